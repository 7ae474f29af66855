"""What has come of a file is used, where the server says that it is still the same file."""

import io
import multiprocessing
import os
import re
import signal
import time
from contextlib import suppress
from functools import partial

import pytest
import torch

from detrex.checkpoint import read_state_dict
from detrex.checkpoint.download import cache_dir, http_download
from detrex.errors import DownloadError
from tests.reference.raw_server import answering, response

FORK = multiprocessing.get_context("fork")


def _saved(value):
    stream = io.BytesIO()
    torch.save({"a": torch.full((40000,), value)}, stream)
    return stream.getvalue()


ONES, TWOS = _saved(1.0), _saved(2.0)
HALF = len(ONES) // 2


def asked_from(request):
    found = re.search(rb"Range: bytes=(\d+)-\r\n", request, re.IGNORECASE)
    return int(found.group(1)) if found else 0


def part(body, start, total=None, **headers):
    total = len(body) if total is None else total
    where = f"bytes {start}-{total - 1}/{total}"
    return response(body[start:], "206 Partial Content", Content_Range=where, **headers)


def breaking(first, then):
    """A server that breaks off within its first answer; ``then`` answers the later ones."""

    def behave(connection, request, number):
        if number == 1:
            connection.sendall(first[: len(first) - len(ONES) + HALF])
        else:
            connection.sendall(then(asked_from(request)))

    return behave


def files():
    return [file.name for file in cache_dir().rglob("*") if file.is_file()]


def size_of_parts():
    with suppress(FileNotFoundError):  # it begins anew
        return [file.stat().st_size for file in cache_dir().rglob("*.partial")]
    return []


TAGGED = response(ONES, ETag='"1"')


@pytest.mark.parametrize(
    ("first", "then", "value", "starts"),
    [
        pytest.param(TAGGED, lambda at: part(ONES, at, ETag='"1"'), 1, [0, HALF], id="rest"),
        pytest.param(TAGGED, lambda at: TAGGED, 1, [0, HALF], id="no ranges"),
        pytest.param(TAGGED, lambda at: response(TWOS, ETag='"2"'), 2, [0, HALF], id="another"),
        pytest.param(
            TAGGED,
            lambda at: part(TWOS, at, ETag='"2"') if at else response(TWOS, ETag='"2"'),
            *(2, [0, HALF, 0]),
            id="the rest of another",
        ),
        pytest.param(
            TAGGED,
            lambda at: part(ONES[::-1], at, ETag='"1"') if at else TAGGED,
            *(1, [0, HALF, 0]),
            id="parts that do not fit together",
        ),
        pytest.param(
            TAGGED,
            lambda at: part(ONES, 0, ETag='"1"') if at else TAGGED,
            *(1, [0, HALF, 0]),
            id="another part than was asked for",
        ),
        pytest.param(
            TAGGED,
            lambda at: response(b"", "416 No", Content_Range="bytes */9") if at else TAGGED,
            *(1, [0, HALF, 0]),
            id="no such part",
        ),
        pytest.param(response(ONES), lambda at: TAGGED, 1, [0, 0], id="no tag"),
        pytest.param(response(ONES, ETag='W/"1"'), lambda at: TAGGED, 1, [0, 0], id="weak tag"),
    ],
)
def test_fetch__continues(first, then, value, starts):
    with answering(breaking(first, then)) as server:
        assert read_state_dict(server.url())["a"].unique().tolist() == [value]
    assert [asked_from(request) for request in server.asked] == starts
    assert files() == ["net.pth"]


def test_fetch__continues_in_the_next_process():
    def always_half(connection, request, number):
        connection.sendall(TAGGED[:-HALF])

    def the_rest(connection, request, number):
        at = asked_from(request)
        connection.sendall(part(ONES, at, ETag='"1"') if at else TAGGED)

    with answering(always_half) as server, pytest.raises(DownloadError, match="bytes arrived"):
        read_state_dict(server.url())
    assert sorted(files()) == ["net.pth.fetching", "net.pth.partial"]
    server.behave = the_rest
    with answering(the_rest) as again:
        (cache_dir() / f"127.0.0.1_{server.port}").rename(cache_dir() / f"127.0.0.1_{again.port}")
        read_state_dict(again.url())
    assert [asked_from(request) > 0 for request in again.asked] == [True]
    assert files() == ["net.pth"]


def test_fetch__a_part_that_is_whole():
    def behave(connection, request, number):
        end = f"bytes */{len(ONES)}"
        at = asked_from(request)
        connection.sendall(response(b"", "416 No", Content_Range=end) if at else TAGGED)

    with answering(behave) as server:
        read_state_dict(server.url())
        file = next(cache_dir().rglob("net.pth"))
        http_download.write_note(file, '"1"')
        file.rename(file.with_name("net.pth.partial"))
        read_state_dict(server.url())
    assert [asked_from(request) for request in server.asked] == [0, len(ONES)]
    assert files() == ["net.pth"]


@pytest.mark.parametrize("tag", ['"1"', ""])
def test_fetch__killed_again_and_again_leaves_no_junk(tag):
    headers = {"ETag": tag} if tag else {}

    def slow(connection, request, number):
        at = asked_from(request)
        answer = part(ONES, at, **headers) if at else response(ONES, **headers)
        head, body = answer[: len(answer) - len(ONES) + at], ONES[at:]
        connection.sendall(head)
        for start in range(0, len(body), 10000):
            connection.sendall(body[start : start + 10000])
            time.sleep(0.02)

    with answering(slow) as server:
        for attempt in range(5):
            process = FORK.Process(target=partial(read_state_dict, server.url()))
            process.start()
            while len(server.asked) <= attempt or not any(size_of_parts()):
                time.sleep(0.002)
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            ends = {name.removeprefix("net.pth") for name in files()}
            assert ends <= {".lock", ".fetching", ".partial"}
        assert read_state_dict(server.url())["a"].unique().tolist() == [1]
    starts = [asked_from(request) for request in server.asked]
    assert (starts[-1] > 0) == bool(tag)
    assert starts == sorted(starts)
    assert files() == ["net.pth"]
