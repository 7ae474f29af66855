"""What lies in the cache is whole, and says nothing that is secret."""

import logging
import os
import socket
import time

import pytest
import torch

from detrex.checkpoint import load_weights, read_state_dict
from detrex.checkpoint.download import cache_dir, cached_path, fetch, http_download
from detrex.errors import DownloadError
from tests.checkpoint.download.test_resuming import ONES, files
from tests.reference.raw_server import answering, response


def sending(body, **headers):
    return answering(lambda connection, request, number: connection.sendall(body))


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (b"<html>log in</html>", "it is a web page"),
        (ONES[:9000], "it is cut short or damaged"),
        (b"", "it is empty"),
        (b'{"error": "no"}', "it is of no kind known"),
    ],
)
def test_fetch__no_weights_are_never_kept(body, fault):
    with (
        sending(response(body, length="")) as server,
        pytest.raises(DownloadError, match=f"gave is no whole weights file .{fault}"),
    ):
        read_state_dict(server.url())
    assert files() == []


@pytest.mark.parametrize("body", [b"\n<html>log in</html>", b""])
def test_fetch__no_page_is_kept_whatever_it_is_for(body):
    with (
        sending(response(body)) as server,
        pytest.raises(DownloadError, match=r"it is (a web|emp)"),
    ):
        fetch(server.url("/notes.txt"))
    assert files() == []


def test_fetch__what_older_tools_left_is_set_aside(caplog):
    with sending(response(ONES)) as server:
        file = cached_path(server.url())
        file.parent.mkdir(parents=True)
        file.write_bytes(b"<html>log in</html>")
        read_state_dict(server.url())
    assert f"{file} is no whole weights file (it is a web page): fetching" in caplog.text
    assert sorted(files()) == ["net.pth", "net.pth.damaged"]
    assert file.read_bytes() == ONES


def test_fetch__what_is_damaged_is_named_without_a_network():
    file = cached_path("http://127.0.0.1:9/net.pth")
    file.parent.mkdir(parents=True)
    file.write_bytes(ONES[:9000])
    with pytest.raises(DownloadError, match=rf"refused\); {file} in the cache is no whole weights"):
        read_state_dict("http://127.0.0.1:9/net.pth")
    assert file.read_bytes() == ONES[:9000]


SECRETS = ("hunter2", "aHVudGVyMj", "letmein")


@pytest.mark.parametrize("fails", [False, True])
def test_fetch__no_secret_is_printed_or_kept(caplog, fails):
    answers = []

    def behave(connection, request, number):
        answers.append(request)
        good = response(ONES) if not fails else response(b"", "403 hunter2 token=letmein is old")
        connection.sendall(response(b"", "503 letmein") if number == 1 else good)

    network = torch.nn.Module()
    network.a = torch.nn.Parameter(torch.zeros(40000))
    with answering(behave) as server, caplog.at_level(logging.DEBUG):
        url = server.url("/net.pth?token=letmein&v=1").replace("//", "//user:hunter2@")
        said = ""
        try:
            said = load_weights(network, url).source
        except DownloadError as error:
            said = str(error)
    assert b"Authorization: Basic dXNlcjpodW50ZXIy\r\n" in answers[0]
    kept = " ".join(str(file) for file in cache_dir().rglob("*"))
    assert said.count(f"http://127.0.0.1:{server.port}/net.pth?...") == 1
    assert not [s for s in SECRETS for text in (said, caplog.text, kept) if s in text]


def test_cached_path__leaves_signatures_aside():
    plain, version = cached_path("https://a.b/w.pth"), cached_path("https://a.b/w.pth?v=2")
    signed = "X-Amz-Signature=1&X-Amz-Date=2&Expires=3&token=4"
    assert cached_path(f"https://u:p@a.b/w.pth?{signed}") == plain != version
    assert cached_path(f"https://a.b/w.pth?{signed}&v=2") == version
    assert cached_path("https://a.b/w.pth?key=1") != cached_path("https://a.b/w.pth?key=2")


@pytest.mark.parametrize(
    "path", ["/ü ä.pth", "/%C3%BC%20%C3%A4.pth", f"/{'n' * 300}.pth", f"{'/dir' * 900}/w.pth"]
)
def test_fetch__names_of_any_kind(path):
    with sending(response(ONES)) as server:
        assert read_state_dict(server.url(path))["a"].unique().tolist() == [1]
    assert cache_dir() in cached_path(server.url(path)).parents
    assert cached_path(server.url(path)).name.endswith((".pth", "\u00e4.pth"))


def test_cached_path__long_names_keep_their_hash_and_stay_apart():
    long = "n" * 300
    assert cached_path(f"https://a.b/{long}-0123456789abcdef.pth").parent == cache_dir()
    assert cached_path(f"https://a.b/1{long}.pth") != cached_path(f"https://a.b/2{long}.pth")
    assert cached_path("https://a.b/%ff.pth") != cached_path("https://a.b/%fe.pth")


@pytest.mark.parametrize("place", ["file", "nowhere", "folder"])
def test_fetch__a_cache_that_cannot_be_written(tmp_path, monkeypatch, place):
    with sending(response(ONES)) as server:
        if place == "file":
            (tmp_path / "blocked").write_text("a file")
            monkeypatch.setenv("TORCH_HOME", str(tmp_path / "blocked"))
        elif place == "nowhere":
            monkeypatch.setenv("TORCH_HOME", "/proc/nowhere")
        else:
            cached_path(server.url()).mkdir(parents=True)
        with pytest.raises(DownloadError, match=r"cannot be kept in .*: set TORCH_HOME to a "):
            read_state_dict(server.url())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_fetch__a_cache_of_another_user(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "locked"))
    (tmp_path / "locked").mkdir(mode=0o500)
    with (
        sending(response(ONES)) as server,
        pytest.raises(DownloadError, match=r"\(Permission denied\): set TORCH_HOME"),
    ):
        read_state_dict(server.url())


def test_fetch__a_disk_without_room(monkeypatch):
    with sending(response(ONES)) as server:
        usage = type("Usage", (), {"free": 1000})
        monkeypatch.setattr(http_download.shutil, "disk_usage", lambda folder: usage)
        with pytest.raises(DownloadError, match=r"the disk is full: 0.2 MB are needed and 0.0 MB"):
            read_state_dict(server.url())
    assert files() == []


@pytest.mark.parametrize("length", [None, ""])
def test_fetch__a_file_that_is_too_large(monkeypatch, length):
    monkeypatch.setenv("DETREX_DOWNLOAD_MAX_BYTES", "100000")
    with (
        sending(response(ONES, length=length)) as server,
        pytest.raises(DownloadError, match=r"it has .*0.[12] MB.: set DETREX_DOWNLOAD_MAX_BYTES"),
    ):
        read_state_dict(server.url())
    assert files() == []


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_fetch__a_server_that_drips(monkeypatch, scheme):
    """Headers or a handshake, a byte now and then: within every timeout of one read."""
    handshake = b"\x16\x03\x03\x40\x00" + b"\2" * 999
    starts = {"http": b"HTTP/1.1 200 OK\r\nX: " * 99, "https": handshake}

    def drip(connection, request, number):
        for byte in starts[scheme]:
            connection.sendall(bytes([byte]))
            time.sleep(0.02)

    monkeypatch.setenv("DETREX_DOWNLOAD_TIMEOUT", "0.1")
    start = time.monotonic()
    with (
        answering(drip, reads=False) as server,
        pytest.raises(DownloadError, match=r"127.0.0.1:\d+/models/net.pth \("),
    ):
        read_state_dict(server.url().replace("http", scheme))
    assert time.monotonic() - start < 10
    assert files() == []


def test_fetch__a_name_that_is_never_resolved(monkeypatch):
    monkeypatch.setenv("DETREX_DOWNLOAD_TIMEOUT", "0.1")
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **keywords: time.sleep(3))
    with pytest.raises(DownloadError, match=r"0 bytes came in 0\.4 s"):
        read_state_dict("http://a.b/net.pth")
