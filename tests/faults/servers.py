"""Servers of every kind on 127.0.0.1, which are asked for a weights file.

A trial starts one in its own process, lowers the bounds of a download so that each ends in about a
second, and reads the weights: right to the last value, or not at all, with one sentence in which no
secret is and nothing left in the cache.
"""

import io
import logging
import os
import random
import socket
import struct
import time
from collections.abc import Callable, Iterable
from functools import partial
from itertools import chain, cycle, islice

import torch
from safetensors.torch import save

from detrex.checkpoint import read_state_dict
from detrex.checkpoint.download import cache_dir, cached_path, http_download
from detrex.errors import DetrexError
from tests.faults.addresses import (
    NOWHERE,
    PLANTED,
    SECRET,
    SURROUNDINGS,
    ask_amid,
    ask_hub,
    ask_nowhere,
    name_of,
)
from tests.faults.trials import Trial, Wrong, expect
from tests.reference.raw_server import answering, response

Behave = Callable[[socket.socket, bytes, int], object]
BOUNDS = {"TIMEOUT": "0.2", "DEADLINE": "3", "MAX_BYTES": "3e7", "LOCK_TIMEOUT": "1"}
TENSORS = {"a": torch.arange(3000.0), "b": torch.ones(2, 5)}


def _saved(**options: object) -> bytes:
    stream = io.BytesIO()
    torch.save(TENSORS, stream, **options)
    return stream.getvalue()


WEIGHTS = _saved()
OLD = _saved(_use_new_zipfile_serialization=False)
TABLE = save(TENSORS)
GOOD = response(WEIGHTS)


def sends(*parts: bytes, pause: float = 0) -> Behave:
    """Send parts, with a pause after each."""

    def behave(connection: socket.socket, request: bytes, number: int) -> None:
        for part in parts:
            connection.sendall(part)
            time.sleep(pause)

    return behave


def endless(part: bytes, head: bytes = b"", pause: float = 0) -> Behave:
    """Send a head, and then one thing for ever."""

    def behave(connection: socket.socket, request: bytes, number: int) -> None:
        for piece in chain([head], cycle([part])):
            connection.sendall(piece)
            time.sleep(pause)

    return behave


def leads(place: str, status: str = "302 Found") -> Behave:
    """Redirect to a place, whatever is asked for."""
    return sends(response(b"", status, Location=place))


def first(*answers: bytes) -> Behave:
    """Give one answer after the other, the last one again and again."""
    return lambda connection, request, number: connection.sendall(
        answers[min(number, len(answers)) - 1]
    )


def chunked(*chunks: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    """Write a body of no stated length."""
    head = response(length="", Transfer_Encoding="chunked")
    return head + b"".join(b"%x\r\n%s\r\n" % (len(c), c) for c in chunks) + end


def drips(text: bytes) -> Behave:
    """Send a byte now and then."""
    return sends(*(bytes([byte]) for byte in text), pause=0.05)


def _reset(connection: socket.socket, request: bytes, number: int) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _moves(connection: socket.socket, request: bytes, number: int) -> None:
    there = b"GET /y" in request
    connection.sendall(GOOD if there else response(b"", "302 Found", Location="../y/ü x.pth"))


def _far(connection: socket.socket, request: bytes, number: int) -> None:
    connection.sendall(response(b"", "302 Found", Location=f"/{number}.pth"))


HALF = len(WEIGHTS) // 2
TAGGED = response(WEIGHTS, ETag='"1"')
REST = response(
    WEIGHTS[HALF:],
    "206 Partial Content",
    ETag='"1"',
    Content_Range=f"bytes {HALF}-{len(WEIGHTS) - 1}/{len(WEIGHTS)}",
)
BROKEN = TAGGED[: len(TAGGED) - len(WEIGHTS) + HALF]
HEAD = b"HTTP/1.1 200 OK\r\n"

RIGHT: dict[str, Behave] = {
    "plain": sends(GOOD),
    "of no length": sends(response(WEIGHTS, length="")),
    "in chunks": sends(chunked(WEIGHTS[:100], WEIGHTS[100:])),
    "in chunks and a length": sends(
        chunked(WEIGHTS).replace(b"Transfer", b"Content-Length: 5\r\nTransfer")
    ),
    "slow and steady": sends(*(GOOD[i : i + 500] for i in range(0, len(GOOD), 500)), pause=0.03),
    "moved": _moves,
    "moved for good": first(response(b"", "308 Moved", Location="/z"), GOOD),
    "busy at first": first(response(b"", "503 Busy", Retry_After="1"), GOOD),
    "hung up at first": first(b"", GOOD),
    "continue first": sends(b"HTTP/1.1 100 Continue\r\n\r\n" * 3 + GOOD),
    "broken off, continued": first(BROKEN, REST),
    "broken off, no ranges": first(BROKEN, TAGGED),
    "broken off, changed": first(BROKEN, response(WEIGHTS, ETag='"2"')),
    "broken off, a wrong rest": first(BROKEN, REST.replace(b'"1"', b'"2"'), TAGGED),
    "broken off, another rest": first(BROKEN, REST[:-9] + b"x" * 9, TAGGED),
    "broken off, 416": first(BROKEN, response(b"", "416 No"), TAGGED),
    "no version": sends(GOOD.replace(b"HTTP/1.1", b"HTTP/1.0")),
    "no reason": sends(GOOD.replace(b"200 OK", b"200")),
    "bare line feeds": sends(GOOD.replace(b"\r\n", b"\n", 3).replace(b"\r\n", b"\n", 1)),
    "old pickle": sends(response(OLD)),
    "safetensors": sends(response(TABLE)),
    "a page as its type": sends(response(WEIGHTS, Content_Type="text/html")),
    "more than it says": sends(GOOD + b"more"),
    "cookies": sends(response(WEIGHTS, Set_Cookie="a=b; Max-Age=99999999999999999999")),
}
WRONG: dict[str, Behave] = {
    "slow body": lambda c, r, n: (c.sendall(response(length="9999")), drips(WEIGHTS)(c, r, n)),
    "slow headers": drips(HEAD + b"X: y\r\n" * 99),
    "slow chunks": sends(
        response(length="", Transfer_Encoding="chunked"), *[b"1\r\na\r\n"] * 99, pause=0.05
    ),
    "100 for ever": endless(b"HTTP/1.1 100 Continue\r\n\r\n"),
    "100 for ever, slowly": endless(b"HTTP/1.1 100 Continue\r\n\r\n", pause=0.05),
    "102 for ever": endless(b"HTTP/1.1 102 Processing\r\n\r\n"),
    "headers for ever": endless(b"X: y\r\n", HEAD),
    "a header for ever": endless(b"x" * 999, HEAD + b"X: "),
    "a status for ever": endless(b"x" * 999),
    "body for ever": endless(b"x" * 99999, response(length="")),
    "chunks for ever": endless(
        b"9\r\n" + b"x" * 9 + b"\r\n", response(length="", Transfer_Encoding="chunked")
    ),
    "chunk's size for ever": endless(b"0" * 999, response(length="", Transfer_Encoding="chunked")),
    "trailers for ever": endless(b"X: y\r\n", chunked(WEIGHTS, end=b"0\r\n")),
    "redirect with a body for ever": endless(
        b"x" * 99999, response(b"", "302 Found", "", Location="/x")
    ),
    "error with a body for ever": endless(b"x" * 99999, response(b"", "500 No", "")),
    "redirect to itself": leads("/models/net.pth"),
    "redirects for ever": _far,
    "redirect to nowhere": sends(response(b"", "302 Found")),
    "redirect to nothing": leads(""),
    "redirect to a file": leads("file:///etc/passwd"),
    "redirect to ftp": leads("ftp://127.0.0.1/x.pth"),
    "redirect to data": leads("data:application/octet-stream,abc"),
    "redirect with a name": leads(f"http://user:{SECRET}@127.0.0.1:9/x.pth"),
    "redirect to no port": leads("http://127.0.0.1:99999/x.pth"),
    "redirect to no host": leads("http:///x.pth"),
    "redirect to half an address": leads("http://[::1/x.pth"),
    "redirect to %00": leads("/a%00b"),
    "redirect to a closed port": leads("http://127.0.0.1:9/x.pth"),
    "redirect to https": leads("https://127.0.0.1:9/x.pth"),
    "a page": sends(response(b"<html>log in</html>")),
    "JSON": sends(response(b'{"error": "no"}')),
    "nothing": sends(response(b"")),
    "cut short": sends(response(WEIGHTS[:9000], length="")),
    "cut short, old": sends(response(OLD[:-5], length="")),
    "cut short, in chunks": sends(chunked(WEIGHTS[:9000])),
    "cut short, safetensors": sends(response(TABLE[:-1], length="")),
    "no last chunk": sends(chunked(WEIGHTS, end=b"")),
    "no chunk": sends(response(b"zz\r\nabc", length="", Transfer_Encoding="chunked")),
    "a changed byte": sends(response(WEIGHTS[:HALF] + b"~" + WEIGHTS[HALF + 1 :])),
    "another coding": sends(response(WEIGHTS, Transfer_Encoding="gzip", length="")[:-4]),
    "packed": sends(response(WEIGHTS, Content_Encoding="gzip")),
    "fewer than it says": sends(response(WEIGHTS, length="99999")),
    "more than it says, cut": sends(response(WEIGHTS, length="9000")),
    **{
        f"length {text!r}": sends(response(WEIGHTS, length=text))
        for text in (
            "abc",
            "-5",
            "1e4",
            "+9",
            "0x10",
            "9" * 17,
            "9" * 30,
            "5²",
            "5, 6",
            "5\r\nContent-Length: 6",
        )
    },
    **{
        f"status {text!r}": sends(response(WEIGHTS if "20" in text else b"", text))
        for text in (
            "204 Empty",
            "206 Part",
            "101 Switch",
            "300 Many",
            "304 Same",
            "401 Who",
            "403 No",
            "404 Gone",
            "418 Tea",
            "500 Oh",
            "502 Bad",
            "599 x",
            "999 x",
            "abc OK",
            "-1 x",
            "2000 OK",
        )
    },
    "a reason with control characters": sends(response(b"", "404 \x1b[31m\x00\x07" + "x" * 9000)),
    "a reason with a secret": sends(response(b"", f"404 {SECRET} token={SECRET}")),
    "early hints": sends(b"HTTP/1.1 103 Early Hints\r\n\r\n" + GOOD),
    "no HTTP": sends(WEIGHTS),
    "another protocol": sends(b"SSH-2.0-OpenSSH_9.6\r\n"),
    "silent": lambda c, r, n: time.sleep(60),
    "hung up": sends(b""),
    "reset": _reset,
    "headers cut short": sends(HEAD + b"Content-Le"),
    "headers of no form": sends(HEAD + b"\x00\xff: \xfe\r\n no\r\n:\r\n\r\n"),
}


def ask(behave: Behave, right: bool, path: str = "/models/net.pth") -> None:
    """Read weights from a server, and see what they are and what is left."""
    os.environ |= {f"DETREX_DOWNLOAD_{name}": value for name, value in BOUNDS.items()}
    http_download.WAITS_SECONDS = (0.02, 0.02)
    logging.basicConfig(level=logging.INFO)
    with answering(behave) as server:
        url = server.url(f"{path}?token={SECRET}").replace("//", f"//user:{SECRET}@")
        try:
            found = read_state_dict(url)
        except DetrexError as error:
            expect(SECRET not in str(error), "a secret is in the message")
            left = [file.name for file in cache_dir().rglob("*") if file.is_file()]
            resumable = {f"{cached_path(url).name}{e}" for e in (".partial", ".fetching")}
            expect(not set(left) - resumable, f"{left} is left")
            for file in cache_dir().rglob("*.partial"):
                file.unlink()  # to be continued, where the server lets it
            raise
    if not right:
        raise Wrong("no sentence")
    same = found.keys() == TENSORS.keys() and all(found[k].equal(v) for k, v in TENSORS.items())
    expect(same, "other weights than the server has")


def ask_mutated(seed: int) -> None:
    """Read weights from a server whose answers have a few bytes changed, mostly in their heads."""
    draw = random.Random(seed)
    answer = bytearray(draw.choice([GOOD, TAGGED, chunked(WEIGHTS[:99], WEIGHTS[99:])]))
    for _ in range(draw.randint(1, 4)):
        at = draw.randrange(draw.choice([16, 60, 120, len(answer)]))
        change = draw.randrange(3)
        if change == 0:
            answer[at] = draw.randrange(256)
        elif change == 1:
            del answer[at : at + draw.randint(1, 30)]
        else:
            answer[at:at] = draw.randbytes(draw.randint(1, 30))
    ask(sends(bytes(answer)), right=True)


HUB: dict[str, tuple[Behave, dict[str, str], str]] = {
    "good": (sends(response(TABLE)), {}, "right"),
    "silent": (lambda c, r, n: time.sleep(60), {}, "sentence"),
    "slow body": (sends(response(length="12176"), *[b"x"] * 99, pause=0.05), {}, "sentence"),
    "100 for ever": (endless(b"HTTP/1.1 100 Continue\r\n\r\n"), {}, "sentence"),
    "a page": (sends(response(b"<html>log in</html>")), {}, "sentence"),
    "as many other bytes": (sends(response(b"<" * len(TABLE))), {}, "sentence"),
    "cut short": (sends(response(TABLE)[:-9]), {}, "sentence"),
    "404": (sends(response(b"", "404 No")), {}, "sentence"),
    "401 with the token": (sends(response(b"", f"401 hf_{SECRET * 4}")), {}, "sentence"),
    "a tag that is a path": (sends(response(TABLE)), {"ETag": '"../../evil"'}, "sentence"),
    "a commit that is a path": (sends(response(TABLE)), {"X-Repo-Commit": "../evil"}, "sentence"),
}


def _others() -> Iterable[Trial]:
    for address in NOWHERE:
        run = partial(ask_nowhere, address)
        yield Trial("servers", f"at {name_of(address)} #{len(address)}", run, "sentence", 20)
    for name, plant in SURROUNDINGS.items():
        yield Trial("servers", name, partial(ask_amid, plant, WEIGHTS), "sentence", 20)
    for name, plant in PLANTED.items():
        yield Trial("servers", name, partial(ask_amid, plant, WEIGHTS), "either", 20)
    for name, (get, head, ending) in HUB.items():
        run = partial(ask_hub, get, head, TABLE, ending == "right")
        yield Trial("servers", f"hub: {name}", run, ending, 20)


def trials(count: int, seed: int) -> Iterable[Trial]:
    """The servers above, in an order of the seed, then those with mutated answers."""
    known = [(name, behave, "right") for name, behave in RIGHT.items()]
    known += [(name, behave, "sentence") for name, behave in WRONG.items()]
    fixed = [
        Trial("servers", name, partial(ask, behave, ending == "right"), ending, 20)
        for name, behave, ending in known
    ]
    fixed += _others()
    random.Random(seed).shuffle(fixed)
    mutated = (
        Trial("servers", f"mutated {n}", partial(ask_mutated, n), "either", 20)
        for n in range(seed * 10**6, seed * 10**6 + max(0, count))
    )
    return islice(chain(fixed, mutated), count)
