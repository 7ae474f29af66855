import pytest

from detrex.errors import PictureError
from detrex.inference import web_pictures
from detrex.inference.web_pictures import fetch_picture, is_web_address
from tests.reference.file_server import BODY, serving


@pytest.fixture
def server():
    with serving() as running:
        running.files = {"/a.png": BODY}
        yield running


def test_fetch_picture__gives_what_is_there(server):
    assert fetch_picture(server.url("/a.png")) == BODY


def test_fetch_picture__no_more_than_the_bound(server, monkeypatch):
    monkeypatch.setattr(web_pictures, "MAX_BYTES", len(BODY) - 1)
    with pytest.raises(PictureError, match=r"/a\.png cannot be fetched .*more than 263935 bytes"):
        fetch_picture(server.url("/a.png"))


def test_fetch_picture__what_fails_is_named_without_secrets(server):
    with pytest.raises(PictureError, match="404") as caught:
        fetch_picture(server.url("/b.png?token=topsecret"))
    assert "topsecret" not in str(caught.value)
    server.faults["/a.png"] = ["truncated"]
    with pytest.raises(PictureError, match=r"it ended after .* of 263936 bytes"):
        fetch_picture(server.url("/a.png"))


@pytest.mark.parametrize(
    ("name", "expected"), [("HTTPS://a/b.png", True), ("http:/a", False), ("b.png", False)]
)
def test_is_web_address__by_its_scheme(name, expected):
    assert is_web_address(name) is expected
