"""Weights fetched from a server on this machine, which does what servers do."""

import io
import logging
import multiprocessing
import sys
import threading

import pytest
import torch

from detrex.checkpoint.download import cache_dir, fetch, http_download
from detrex.errors import DownloadError
from tests.reference.file_server import BODY, HASHED


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
    monkeypatch.setattr(http_download, "TIMEOUT_SECONDS", 0.3)
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
    monkeypatch.setattr(http_download, "TIMEOUT_SECONDS", 0.2)
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


def test_fetch__processes_at_once(server):
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
    assert len(server.asked) == 1
    assert not leftovers()


def test_fetch__progress_is_logged_or_drawn(server, monkeypatch, caplog):
    monkeypatch.setattr(http_download, "_CHUNK", len(BODY) // 8)
    with caplog.at_level(logging.INFO, logger=http_download.__name__):
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
