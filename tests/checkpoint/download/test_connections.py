"""Redirects: over the web, never to less safety, and without the first server's password."""

import io
from urllib.request import HTTPRedirectHandler, Request

import pytest

from detrex.checkpoint.download.connections import opener
from detrex.checkpoint.download.watch import Limits, Watch
from detrex.errors import DownloadError

HEADERS = {"Authorization": "Basic secret", "Range": "bytes=3-", "Proxy-authorization": "secret"}


def redirected(old, new):
    handlers = opener(Watch(Limits(1, 1, 9, 9, 1))).handlers
    handler = next(h for h in handlers if isinstance(h, HTTPRedirectHandler))
    body = io.BytesIO(b"not to be read")
    request = handler.redirect_request(Request(old, headers=HEADERS), body, 302, "Found", {}, new)
    assert body.closed
    return request


@pytest.mark.parametrize(
    ("old", "new", "kept"),
    [
        ("http://a.b/x", "https://a.b/y", {"Authorization", "Range"}),
        ("https://a.b/x", "https://a.b/y", {"Authorization", "Range"}),
        ("https://a.b/x", "https://a.b:81/y", {"Range"}),
        ("https://a.b/x", "https://c.d/y", {"Range"}),
    ],
)
def test_redirect__takes_credentials_to_the_same_server_only(old, new, kept):
    request = redirected(old, new)
    assert request.full_url == new
    assert set(request.headers) == kept


@pytest.mark.parametrize(
    ("new", "why"),
    [
        ("http://a.b/y", "from https to http, where anyone may change the file"),
        ("HTTP://a.b/y", "from https to http"),
        ("file:///etc/passwd", "by file, which is not the web"),
        ("ftp://a.b/y", "by ftp, which is not the web"),
        ("https://user:secret@c.d/y", "with a user's name in it"),
        ("https://c.d:99999/y", "to where no file can be"),
        ("https://c.d/%00", "to where no file can be"),
    ],
)
def test_redirect__refused(new, why):
    with pytest.raises(DownloadError, match=f"fetch https://a.b/x, which leads .* {why}") as caught:
        redirected("https://a.b/x", new)
    assert "secret" not in str(caught.value)
