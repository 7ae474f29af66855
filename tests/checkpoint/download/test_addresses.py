"""Each scheme leads to its own place."""

import pytest

from detrex.checkpoint.download import (
    cache_dir,
    fetch,
    is_address,
    is_file_of_repository,
    is_repository,
)
from detrex.errors import DownloadError


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("https://a/w.pth", True),
        ("hf-hub:timm/resnet18", True),
        ("hf_hub:timm/resnet18", True),
        ("catalog://x", True),
        ("a/w.pth", False),
        ("C:\\w.pth", False),
    ],
)
def test_is_address__(source, expected):
    assert is_address(source) is expected


@pytest.mark.parametrize(
    ("source", "is_whole", "is_file"),
    [
        ("hf-hub:owner/name", True, False),
        ("hf_hub://owner/name@v1/", True, False),
        ("hf-hub:owner/name/model.pth", False, True),
        ("hf-hub:owner/name@v1/folder/model.pth", False, True),
        ("hf-hub:name", False, False),
        ("hf-hub:owner/name@", False, False),
        ("hf-hub:owner/name//", False, False),
        ("https://owner/name/model.pth", False, False),
    ],
)
def test_is_repository__or_a_file_of_one(source, is_whole, is_file):
    assert is_repository(source) is is_whole
    assert is_file_of_repository(source) is is_file


def test_fetch__detectron2(server, monkeypatch, tmp_path):
    from detectron2.utils.file_io import Detectron2Handler

    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "iopath"))
    monkeypatch.setattr(Detectron2Handler, "S3_DETECTRON2_PREFIX", server.url("/detectron2/"))
    server.files["/detectron2/MSRA/R-50.pkl"] = b"weights"
    file = fetch("detectron2://MSRA/R-50.pkl")
    assert file.read_bytes() == b"weights"
    assert cache_dir() in file.parents
    file.unlink()
    theirs = tmp_path / "iopath" / "detectron2" / "MSRA" / "R-50.pkl"
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(b"fetched by detectron2")
    assert fetch("detectron2://MSRA/R-50.pkl") == theirs


def test_fetch__catalog(server, monkeypatch):
    from detectron2.checkpoint.catalog import ModelCatalog

    monkeypatch.setattr(ModelCatalog, "S3_C2_DETECTRON_PREFIX", server.url("/detectron"))
    server.files["/detectron/ImageNetPretrained/MSRA/R-50.pkl"] = b"weights"
    assert fetch("catalog://ImageNetPretrained/MSRA/R-50").read_bytes() == b"weights"
    with pytest.raises(DownloadError, match=r"cannot fetch catalog://nothing \(model not present"):
        fetch("catalog://nothing")


def test_fetch__scheme_of_the_path_manager(tmp_path):
    from detectron2.utils.file_io import PathHandler, PathManager

    class Handler(PathHandler):
        def _get_supported_prefixes(self):
            return ["shelf://"]

        def _get_local_path(self, path, **kwargs):
            return str(tmp_path / path.removeprefix("shelf://"))

    PathManager.register_handler(Handler(), allow_override=True)
    (tmp_path / "w.pth").write_bytes(b"weights")
    assert fetch("shelf://w.pth").read_bytes() == b"weights"
    with pytest.raises(DownloadError, match=r"cannot fetch nowhere://w.pth \(no handler of its"):
        fetch("nowhere://w.pth")


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("ftp://user:hunter2@a.b/w.pth", "cannot fetch ftp://a.b/w.pth, as FTP has no bounds"),
        ("shelf2://user:hunter2@a.b/w.pth?t=hunter2", r"cannot fetch shelf2://a.b/w.pth\?\.\.\. "),
    ],
)
def test_fetch__other_schemes_keep_secrets(address, message):
    with pytest.raises(DownloadError, match=message) as caught:
        fetch(address)
    assert "hunter2" not in str(caught.value)


def test_fetch__a_scheme_in_capitals(server):
    server.files["/w.pth"] = b"weights"
    assert fetch(server.url("/w.pth").replace("http", "HTTP")).read_bytes() == b"weights"
