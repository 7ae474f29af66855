"""Files of the Hugging Face hub, from a server of this machine that answers as the hub does."""

import hashlib
import json
import os
import sys
import time

import huggingface_hub.utils
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save

from detrex.checkpoint import read_state_dict
from detrex.checkpoint.download import fetch
from detrex.errors import DownloadError
from tests.reference.raw_server import answering


def forget_sessions():
    """Before version 1 of huggingface_hub, a session stays online, or offline, as it began."""
    getattr(huggingface_hub.utils, "reset_sessions", lambda: None)()


def go_offline(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    forget_sessions()


@pytest.fixture
def hub(server, monkeypatch, tmp_path):
    """A repository ``owner/name`` served as the Hugging Face hub does."""
    forget_sessions()
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
    go_offline(monkeypatch)
    hub.files.clear()
    assert values("hf-hub:owner/name/half.safetensors") == [0.5, 0.5]
    with pytest.raises(DownloadError, match=r"fetch hf-hub:owner/other \(.*looked for model"):
        fetch("hf-hub:owner/other")


@pytest.mark.parametrize("address", ["owner/name", "owner/name@main/model.safetensors.index.json"])
def test_read_state_dict__hub_has_shards(hub, address):
    start = "/owner/name/resolve/main/"
    hub.files[f"{start}model-2.safetensors"] = save({"b": torch.ones(1)})
    hub.files[f"{start}model-1.safetensors"] = hub.files.pop(f"{start}model.safetensors")
    places = {"a": "model-1.safetensors", "b": "model-2.safetensors"}
    index = json.dumps({"weight_map": places}).encode()
    hub.files[f"{start}model.safetensors.index.json"] = index
    for path, body in hub.files.items():
        etag = f'"{hashlib.sha256(body).hexdigest()}"'
        hub.headers[path] = {"ETag": etag, "X-Repo-Commit": "0" * 40}
    found = read_state_dict(f"hf-hub:{address}")
    assert {name: value.tolist() for name, value in found.items()} == {"a": [1, 1], "b": [1]}


def test_read_state_dict__hub_lacks_a_shard(hub):
    path = "/owner/name/resolve/main/model.safetensors.index.json"
    hub.files[path] = b'{"weight_map": {"a": "model-1.safetensors"}}'
    hub.headers[path] = {"ETag": '"1"', "X-Repo-Commit": "0" * 40}
    with pytest.raises(DownloadError, match=r"fetch hf-hub:owner/name/model-1.safetensors"):
        read_state_dict("hf-hub:owner/name/model.safetensors.index.json")


def test_fetch__hub_has_no_such_file(hub):
    with pytest.raises(DownloadError, match=r"absent.bin \(.*404.*looked for absent.bin: check"):
        fetch("hf-hub:owner/name/absent.bin")
    with pytest.raises(DownloadError, match="names no repository of the Hugging Face hub"):
        fetch("hf-hub:name")


def test_fetch__hub_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(DownloadError, match="`pip install huggingface_hub`, or give the path"):
        fetch("hf-hub:owner/name")


def test_fetch__hub_sends_something_else(hub, caplog):
    path = "/owner/name/resolve/main/model.safetensors"
    right = hub.files[path]
    hub.files[path] = b"<" * len(right)
    with pytest.raises(DownloadError, match=r"no whole weights file .it is a web page.*\.damaged"):
        read_state_dict("hf-hub:owner/name")
    assert "fetching it again" in caplog.text
    hub.files[path] = right
    assert read_state_dict("hf-hub:owner/name")["a"].tolist() == [1, 1]


def test_fetch__hub_damaged_in_the_cache(hub, monkeypatch):
    file = fetch("hf-hub:owner/name").resolve()
    file.write_bytes(file.read_bytes()[:-1])
    with monkeypatch.context() as offline:
        go_offline(offline)
        with pytest.raises(DownloadError, match=r"model.safetensors in the cache is no whole .*\("):
            read_state_dict("hf-hub:owner/name")
    forget_sessions()
    assert read_state_dict("hf-hub:owner/name")["a"].tolist() == [1, 1]


def test_fetch__hub_that_drips(monkeypatch, tmp_path):
    def drip(connection, request, number):
        for _ in range(500):
            connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            time.sleep(0.02)

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("DETREX_DOWNLOAD_TIMEOUT", "0.1")
    with answering(drip) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url("").replace("//", "//user:hunter2@"))
        with pytest.raises(
            DownloadError, match=r"hf-hub:owner/name \(0 bytes came in 0.4"
        ) as caught:
            fetch("hf-hub:owner/name")
    assert "hunter2" not in str(caught.value)


def test_fetch__hub_leftovers_of_killed_downloads_go(hub, tmp_path):
    blobs = tmp_path / "hub" / "models--owner--name" / "blobs"
    blobs.mkdir(parents=True)
    files = [blobs / f"{'0' * 64}.{name}.incomplete" for name in ("01234567", "89abcdef")]
    for file, age in zip(files, (10**6, 1), strict=True):
        file.write_bytes(b"some")
        os.utime(file, (time.time() - age,) * 2)
    fetch("hf-hub:owner/name")
    assert [file.exists() for file in files] == [False, True]


@pytest.mark.parametrize("header", ["ETag", "X-Repo-Commit"])
def test_fetch__hub_that_names_a_file_outside_of_the_cache(hub, tmp_path, header):
    path = "/owner/name/resolve/main/model.safetensors"
    hub.headers[path][header] = f'"{"../" * 9}{str(tmp_path)[1:]}/evil"'
    for _ in range(2):
        with pytest.raises(DownloadError, match=r"names a file .*, which leads out of the cache"):
            fetch("hf-hub:owner/name")
    assert not (tmp_path / "evil").exists()
