"""Tar files of pictures and records that are cut, changed, or made to harm who reads them."""

import gzip
import io
import itertools
import pickle
import random
import tarfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from tests.faults.trials import Trial, Wrong
from tests.reference.tar_files import picture, record, write_tar

NAMES = ("round", "square", "other")


class Bomb:
    """Writes a file when it is unpickled."""

    def __reduce__(self):
        return Path.touch, (Path("harm"),)


def trials(count: int, seed: int) -> Iterable[Trial]:
    """Give so many trials: each crafted file once, then random changes of a good one."""
    changed = ((f"{what} {n}", make) for n in itertools.count() for what, make in _CHANGES.items())
    for number, (name, make) in enumerate(itertools.chain(_crafted(), changed)):
        if number == count:
            return
        run = _reads(make, random.Random(f"{seed} {number}"))
        yield Trial("shards", name, run, "right" if name.startswith("good") else "either")


def _reads(make: Callable[[random.Random], bytes], chance: random.Random) -> Callable[[], None]:
    def run() -> None:
        from detrex.data.pictures import read_image
        from detrex.data.shards import shard_records

        Path("a.tar").write_bytes(make(chance))
        try:
            records = shard_records("a.tar", NAMES)
            for found in records:
                boxes = np.array([each["bbox"] for each in found["annotations"]], float)
                classes = {each["category_id"] for each in found["annotations"]}
                if not np.isfinite(boxes).all() or not classes <= {0, 1, 2}:
                    raise Wrong(f"{found} is no record")
                if read_image(found["file_name"]).shape[2] != 3:
                    raise Wrong(f"{found['file_name']} is no picture")
        finally:
            if Path("harm").exists():
                raise Wrong("a member was unpickled")

    return run


def _tar(members: dict) -> bytes:
    path = Path("made.tar")
    try:
        return write_tar(path, members).read_bytes()
    finally:
        path.unlink()


def _good(*_: object) -> bytes:
    members = {}
    for number in range(4):
        members |= {f"{number}.png": picture(number)[1], f"{number}.json": record(number)}
    return _tar(members)


def _header(name: str, kind: bytes, size: int = 0, link: str = "") -> bytes:
    member = tarfile.TarInfo(name)
    member.type, member.size, member.linkname = kind, size, link
    return member.tobuf(tarfile.GNU_FORMAT)


def _crafted() -> Iterator[tuple[str, Callable[[random.Random], bytes]]]:
    bomb = pickle.dumps(Bomb())
    good = {"a.png": picture(0)[1], "a.json": record(0)}
    pickles = {"a.pyd": bomb, **good, "a.pkl": bomb, "a.pickle": bomb, "b.pth": bomb}
    end = bytes(1024)
    yield "good", _good
    yield "good, with pickles", lambda _: _tar(pickles)
    yield "good, names that lead out", lambda _: _tar({f"../../{n}": v for n, v in good.items()})
    yield "empty", lambda _: b""
    yield "zeros", lambda _: bytes(10240)
    yield "compressed", lambda _: gzip.compress(_good())
    for kind in ("SYMTYPE", "LNKTYPE", "FIFOTYPE", "CHRTYPE", "DIRTYPE", "CONTTYPE"):
        link = _header("a.png", getattr(tarfile, kind), link="/etc/passwd")
        yield kind, lambda _, link=link: link + _tar({"a.json": record(0)})
    for size in (2**33 - 1, 2**62, -(2**40)):
        for kind in (tarfile.REGTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE):
            yield (
                f"{size} bytes of kind {kind!r}",
                lambda _, size=size, kind=kind: _header("a.png", kind, size) + _good(),
            )
    chain = _header("././@LongLink", tarfile.GNUTYPE_LONGNAME, 512) + b"a.png".ljust(512, b"\0")
    yield "a chain of long names", lambda _: chain * 3000 + end
    yield "sparse", lambda _: _header("a.png", tarfile.GNUTYPE_SPARSE, 512) + _good()
    for name, content in {
        "deep": b"[" * 200_000,
        "a long number": b"1" * 100_000,
        "NaN": b'{"width": NaN, "height": 1, "annotations": []}',
        "a list of lists": b'{"width": 1, "height": 1, "annotations": [[[]]]}',
        "a box of texts": record(0, annotations=[{"bbox": "1234", "category_id": 0}]),
        "an endless box": record(0, annotations=[{"bbox": [0, 0, 1e999, 1], "category_id": 0}]),
        "a category of a list": record(0, annotations=[{"bbox": [1] * 4, "category_id": []}]),
        "run lengths": record(
            0,
            annotations=[
                {"bbox": [1] * 4, "category_id": 0, "segmentation": {"counts": [-1], "size": [9]}}
            ],
        ),
        "keypoints": record(
            0, annotations=[{"bbox": [1] * 4, "category_id": 0, "keypoints": "words"}]
        ),
        "a size of truth": record(0, width=True),
    }.items():
        yield f"JSON: {name}", lambda _, content=content: _tar({**good, "a.json": content})


def _flipped(chance: random.Random) -> bytes:
    content = bytearray(_good())
    for _ in range(chance.choice([1, 1, 8])):
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    return bytes(content)


def _cut(chance: random.Random) -> bytes:
    content = _good()
    return content[: chance.randrange(len(content))]


def _shifted(chance: random.Random) -> bytes:
    content = _good()
    place, length = chance.randrange(len(content)), chance.choice([1, 7, 512])
    return content[:place] + chance.randbytes(length) + content[place:]


def _without(chance: random.Random) -> bytes:
    content = io.BytesIO(_good()).getvalue()
    place = chance.randrange(len(content))
    return content[:place] + content[place + chance.choice([1, 512, 1024]) :]


_CHANGES = {"flipped": _flipped, "cut": _cut, "more": _shifted, "less": _without}
