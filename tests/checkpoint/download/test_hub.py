"""Files of the Hugging Face hub, from a server of this machine that answers as the hub does."""

import hashlib
import sys

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save

from detrex.checkpoint import read_state_dict
from detrex.checkpoint.download import fetch
from detrex.errors import DownloadError


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
