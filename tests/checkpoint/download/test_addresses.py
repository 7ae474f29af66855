"""Each scheme leads to its own place."""

import hashlib
import sys

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save

from detrex.checkpoint import read_state_dict
from detrex.checkpoint.download import cache_dir, fetch, is_address
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


@pytest.fixture
def hub(server, monkeypatch, tmp_path):
    """A repository ``owner/name`` served as the Hugging Face hub does."""
    monkeypatch.setenv("HF_ENDPOINT", server.url(""))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
    for file, value in (("model.safetensors", 1.0), ("half.safetensors", 0.5)):
        path = f"/owner/name/resolve/main/{file}"
        server.files[path] = body = save({"a": torch.full((2,), value)})
        etag = f'"{hashlib.sha256(body).hexdigest()}"'
        server.headers[path] = {"ETag": etag, "X-Repo-Commit": "0" * 40}
    return server


def test_fetch__hub(hub, monkeypatch):
    def values(address):
        return read_state_dict(address)["a"].tolist()

    assert values("hf-hub:owner/name") == [1, 1]
    assert values("hf_hub:owner/name/half.safetensors") == [0.5, 0.5]
    assert values("hf-hub://owner/name@main") == [1, 1]
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.files.clear()
    assert values("hf-hub:owner/name/half.safetensors") == [0.5, 0.5]
    with pytest.raises(DownloadError, match=r"fetch hf-hub:owner/other \(.*looked for model"):
        fetch("hf-hub:owner/other")


def test_fetch__hub_has_no_such_file(hub):
    with pytest.raises(DownloadError, match=r"absent.bin \(.*404.*looked for absent.bin: check"):
        fetch("hf-hub:owner/name/absent.bin")
    with pytest.raises(DownloadError, match="names no repository of the Hugging Face hub"):
        fetch("hf-hub:name")


def test_fetch__hub_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(DownloadError, match="`pip install huggingface_hub`, or give the path"):
        fetch("hf-hub:owner/name")
