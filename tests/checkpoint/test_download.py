"""Weights fetched from a server on this machine, which does what servers do."""

import hashlib
import io
import logging
import multiprocessing
import sys
import threading

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save

from detrex.checkpoint import download, read_state_dict
from detrex.checkpoint.download import cache_dir, cached_path, fetch, hash_in_name, is_address
from detrex.errors import DownloadError
from tests.reference.file_server import serving

BODY = bytes(range(256)) * 1031
HASHED = f"/models/net-{hashlib.sha256(BODY).hexdigest()[:8]}.pth"


@pytest.fixture(autouse=True)
def _quick(tmp_path, monkeypatch):
    """A cache of its own, and no long pauses."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    for proxy in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(proxy, raising=False)
    monkeypatch.setattr(download, "WAITS_SECONDS", (0.01, 0.01))


@pytest.fixture
def server():
    with serving() as running:
        running.files = {HASHED: BODY, "/models/net.pth": BODY}
        yield running


def leftovers():
    return [path.name for path in cache_dir().rglob("*.partial")]


def test_fetch__once_then_from_the_cache(server):
    file = fetch(server.url(HASHED))
    assert file == cache_dir() / HASHED.rpartition("/")[2]
    assert file.read_bytes() == BODY
    server.files.clear()
    assert fetch(server.url(HASHED)) == file
    assert server.asked == [HASHED]
    assert not leftovers()


def test_fetch__offline_from_what_torch_has_fetched(server):
    cache_dir().mkdir(parents=True)
    file = cache_dir() / HASHED.rpartition("/")[2]
    torch.hub.download_url_to_file(server.url(HASHED), str(file), progress=False)
    server.files.clear()
    assert fetch(server.url(HASHED)) == file
    assert len(server.asked) == 1


@pytest.mark.parametrize("fault", [503, 429, "truncated", "hang up", "slow"])
@pytest.mark.parametrize("path", [HASHED, "/models/net.pth"])
def test_fetch__tries_again_after_a_passing_fault(server, monkeypatch, caplog, fault, path):
    monkeypatch.setattr(download, "TIMEOUT_SECONDS", 0.3)
    server.faults[path] = [fault, fault]
    assert fetch(server.url(path)).read_bytes() == BODY
    assert server.asked == [path] * 3
    assert caplog.text.count("again in 0.01 s") == 2
    assert not leftovers()


@pytest.mark.parametrize(
    ("faults", "reason", "attempts"),
    [
        ([404], "HTTP 404 Not Found", 1),
        ([403], "HTTP 403 Forbidden", 1),
        ([503] * 9, "HTTP 503 Service Unavailable", 3),
        (["truncated"] * 9, f"{len(BODY) // 2} of {len(BODY)} bytes arrived", 3),
        (["hang up"] * 9, "Remote end closed connection", 3),
        (["slow"] * 9, "timed out", 3),
    ],
)
def test_fetch__says_why_not_and_what_to_do(server, monkeypatch, faults, reason, attempts):
    monkeypatch.setattr(download, "TIMEOUT_SECONDS", 0.2)
    url = server.url("/models/net.pth")
    server.faults["/models/net.pth"] = faults
    with pytest.raises(DownloadError) as caught:
        fetch(url)
    message = str(caught.value)
    assert message.startswith(f"cannot fetch {url} ({reason}")
    assert message.endswith("or give the path of a file that you have fetched by other means")
    assert len(server.asked) == attempts
    assert not [path for path in cache_dir().rglob("*") if path.is_file()]


def test_fetch__no_server():
    with pytest.raises(DownloadError, match=r"127.0.0.1:9/w.pth \(.*refused\): check the address"):
        fetch("http://127.0.0.1:9/w.pth")


def test_fetch__another_file_than_its_name_promises(server):
    server.files[HASHED] = BODY[::-1]
    promised = HASHED[-12:-4]
    with pytest.raises(DownloadError, match=rf"not the file .* expected {promised}\.\.\.\): check"):
        fetch(server.url(HASHED))
    assert len(server.asked) == 1
    assert not [path for path in cache_dir().rglob("*") if path.is_file()]


def test_fetch__damaged_cache_is_mended(server, caplog):
    file = fetch(server.url(HASHED))
    file.write_bytes(BODY[:100])
    assert fetch(server.url(HASHED)).read_bytes() == BODY
    assert "is not the file that its name promises" in caplog.text


def test_fetch__a_failure_keeps_what_the_cache_has(server):
    file = fetch(server.url(HASHED))
    file.write_bytes(BODY[:100])
    server.files.clear()
    with pytest.raises(DownloadError, match="HTTP 404"):
        fetch(server.url(HASHED))
    assert file.read_bytes() == BODY[:100]


def test_fetch__unknown_length(server):
    server.faults["/models/net.pth"] = ["no length"]
    assert fetch(server.url("/models/net.pth")).read_bytes() == BODY


def test_fetch__equal_names_at_different_addresses(server):
    server.files |= {"/other/net.pth": b"other", "/models/net.pth": BODY}
    assert fetch(server.url("/other/net.pth")).read_bytes() == b"other"
    assert fetch(server.url("/models/net.pth")).read_bytes() == BODY
    assert fetch(server.url("/models/net.pth?v=2")) != fetch(server.url("/models/net.pth"))


def test_fetch__threads_at_once(server):
    server.faults[HASHED] = ["slow"]
    got = []
    threads = [
        threading.Thread(target=lambda: got.append(fetch(server.url(HASHED)).read_bytes()))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == [BODY] * 4
    assert server.asked == [HASHED]


def _fetch_in_process(url, queue):
    queue.put(fetch(url).read_bytes() == BODY)


@pytest.mark.parametrize("locks", [True, False])
def test_fetch__processes_at_once(server, monkeypatch, locks):
    if not locks:
        monkeypatch.setitem(sys.modules, "fcntl", None)
    server.faults["/models/net.pth"] = ["slow"] * 2
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    arguments = (server.url("/models/net.pth"), queue)
    processes = [context.Process(target=_fetch_in_process, args=arguments) for _ in range(3)]
    for process in processes:
        process.start()
    assert [queue.get(timeout=30) for _ in processes] == [True] * 3
    for process in processes:
        process.join()
    assert len(server.asked) == (1 if locks else 3)
    assert not leftovers()


def test_fetch__progress_is_logged_or_drawn(server, monkeypatch, caplog):
    monkeypatch.setattr(download, "_CHUNK", len(BODY) // 8)
    with caplog.at_level(logging.INFO, logger=download.__name__):
        fetch(server.url("/models/net.pth"))
    assert "Fetching net.pth (0.3 MB)" in caplog.text
    assert caplog.text.count("Fetching net.pth: ") == 3
    caplog.clear()
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    fetch(server.url(HASHED))
    assert not caplog.text
    assert HASHED.rpartition("/")[2] in terminal.getvalue()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet50-11ad3fa6.pth", "11ad3fa6"),
        ("a-b-0123456789abcdef.safetensors", "0123456789abcdef"),
        ("resnet50-11ad3fa.pth", ""),
        ("resnet50-20230131.pth", ""),
        ("resnet50-20231331.pth", "20231331"),
        ("resnet50_11ad3fa6.pth", ""),
        ("resnet50-11AD3FA6.pth", ""),
        ("resnet50.pth", ""),
    ],
)
def test_hash_in_name__(name, expected):
    assert hash_in_name(name) == expected


@pytest.mark.parametrize("url", ["https://a.b", "https://a.b/", "http:///w.pth"])
def test_cached_path__no_file_named(url):
    with pytest.raises(DownloadError, match=r"names no file: expected one such as https://a/b"):
        cached_path(url)


def test_cached_path__stays_in_the_cache():
    path = cached_path("https://user:secret@a.b:81/../x/%2e%2e/../w.pth")
    assert path == cache_dir() / "a.b_81" / "x" / "w.pth"


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
