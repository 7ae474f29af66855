"""Damaged and hostile weights files of every kind, each the same for the same seed and number.

Valid files are changed in their bytes, in the opcodes of their pickles, in their JSON and in their
records (with checksums that are right again); and pickles are made up by a grammar, so that most
are well formed and mean something that no program has written.
"""

import io
import json
import pickle
import pickletools
import random
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from safetensors.torch import save

from benchmarks.made_up_pickles import NUMBERS, made_up_pickle, random_opcode

INDEX = ".index.json"


@dataclass(frozen=True)
class Case:
    """A folder of files, the first of which is the one to read."""

    kind: str
    files: dict[str, bytes]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(map(len, self.files.values()))


@cache
def valid_cases() -> tuple[Case, ...]:
    """Write small files of each kind that is read.

    Returns:
        Pickles of numpy arrays of every protocol, archives and older pickles of torch, safetensors,
        numpy's archives, files in shards with their index, and a checkpoint with its digest.
    """
    arrays = {
        "f": np.arange(6, dtype=">f4").reshape(2, 3),
        "i": np.asfortranarray(np.arange(6).reshape(2, 3)),
        "b": np.array([True, False]),
        "h": np.float16(2.5),
        "e": np.zeros((0, 3), np.uint8),
        "text": ["x", {"lr": 0.1, "steps": (1, 2)}, None, {1, 2}, b"raw"],
    }
    weight = torch.arange(12.0).view(3, 4)
    tensors = OrderedDict(
        a=weight, tied=weight.t(), n=torch.tensor(7), b=torch.ones(3, dtype=torch.bfloat16)
    )
    checkpoint = {"model": tensors, "best": np.float64(0.5), "p": torch.nn.Parameter(weight)}
    cases = [
        Case("pickle", {"w.pkl": pickle.dumps({"model": arrays}, protocol)})
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
    ]
    for protocol in (2, 4):
        cases.append(Case("torch archive", {"w.pth": _saved(checkpoint, protocol, True)}))
        cases.append(Case("older torch file", {"w.pth": _saved(checkpoint, protocol, False)}))
    flat = {"a": weight, "h": torch.ones(5).half(), "b": torch.tensor([True, False])}
    cases += [Case("safetensors", {"w.safetensors": save(flat)})] * 3
    numbers = {name: value for name, value in arrays.items() if name != "text"}
    for write in (np.savez, np.savez_compressed):
        stream = io.BytesIO()
        write(stream, **numbers)
        cases.append(Case("numpy archive", {"w.npz": stream.getvalue()}))
    cases.append(_in_shards("model", ".safetensors", save, flat))
    cases.append(_in_shards("pytorch_model", ".bin", lambda t: _saved(t, 2, True), flat))
    import hashlib

    data = _saved(checkpoint, 2, True)
    digest = f"{hashlib.sha256(data).hexdigest()}  w.pth\n".encode()
    return (*cases, Case("with a digest", {"w.pth": data, "w.pth.sha256": digest}))


def _saved(content: object, protocol: int, zipped: bool) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    return stream.getvalue()


def _in_shards(
    stem: str, ending: str, write: Callable[[dict[str, torch.Tensor]], bytes], tensors: dict
) -> Case:
    places, shards = {}, {}
    for number, name in enumerate(tensors, 1):
        shard = f"{stem}-0000{number}-of-0000{len(tensors)}{ending}"
        shards[shard] = write({name: tensors[name]})
        places[name] = shard
    index = json.dumps({"metadata": {"total_size": 60}, "weight_map": places}).encode()
    return Case("in shards", {f"{stem}{ending}{INDEX}": index, **shards})


def case(seed: int, number: int) -> Case:
    """Give one damaged or made-up file.

    Args:
        seed: of all.
        number: which of them.
    """
    rng = random.Random(f"{seed} {number}")
    if rng.random() < 0.35:
        return _made_up(rng)
    valid = rng.choice(valid_cases())
    name = rng.choice([*valid.files, *[next(iter(valid.files))] * 3])
    return Case(valid.kind, valid.files | {name: mutate(valid.files[name], rng)})


def _made_up(rng: random.Random) -> Case:
    way = rng.randrange(3)
    if way == 0:
        return Case("made-up pickle", {"w.pkl": made_up_pickle(rng)})
    data = [rng.randbytes(rng.choice((16,) * 20 + (0, 4, 15))) for _ in range(3)]
    if way == 1:
        records = {"w/data.pkl": made_up_pickle(rng), "w/version": b"3\n"}
        records |= {f"w/data/{i}": part for i, part in enumerate(data)}
        if rng.random() < 0.2:
            records["w/byteorder"] = rng.choice((b"big", b"little", b"middle"))
        return Case("made-up archive", {"w.pth": archive(records)})
    starts = (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})
    head = b"".join(pickle.dumps(start, 2) for start in starts)
    tail = pickle.dumps([str(i) for i in range(rng.randrange(4))], 2)
    storages = b"".join((len(part) // 4).to_bytes(8, "little") + part for part in data)
    return Case("made-up older", {"w.pth": head + made_up_pickle(rng) + tail + storages})


def archive(records: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """Write a zip archive."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as out:
        for name, content in records.items():
            out.writestr(zipfile.ZipInfo(name), content, compression)
    return stream.getvalue()


def mutate(data: bytes, rng: random.Random) -> bytes:
    """Damage a file, either anywhere or in what it is made of."""
    if rng.random() < 0.7:
        if data.startswith(b"PK"):
            return _mutate_archive(data, rng)
        if data.startswith((b"\x80", b"(", b"c")):
            return _mutate_opcodes(data, rng)
        if data[8:9] == b"{":
            size = int.from_bytes(data[:8], "little")
            header = _mutate_json(data[8 : 8 + size], rng)
            return len(header).to_bytes(8, "little") + header + data[8 + size :]
        if data.startswith(b"{"):
            return _mutate_json(data, rng)
        if data.startswith(b"\x93NUMPY"):
            return data[:10] + _mutate_numbers(data[10:], rng)
    return _mutate_bytes(data, rng)


def _mutate_archive(data: bytes, rng: random.Random) -> bytes:
    """Change one record and write the archive anew, so that its checksums are right."""
    records = dict(_records(data))
    name = rng.choice([*records, *[n for n in records if n.endswith(".pkl")] * 8])
    way = rng.randrange(20)
    if way == 0:
        del records[name]
    elif way == 1:
        other = rng.choice([*records, "w/data/9", "../../x", "", "a\n\x1b[2J", "constants.pkl"])
        records[other] = records.pop(name)
    else:
        records[name] = mutate(records[name], rng)
    return archive(records, rng.choice((zipfile.ZIP_STORED,) * 9 + (zipfile.ZIP_DEFLATED,)))


@cache
def _records(data: bytes) -> tuple[tuple[str, bytes], ...]:
    with zipfile.ZipFile(io.BytesIO(data)) as old:
        return tuple((name, old.read(name)) for name in old.namelist())


def _mutate_bytes(data: bytes, rng: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 5))):
        at = rng.randrange(len(out) + 1)
        way = rng.randrange(6)
        if way == 0:
            out[at : at + 1] = rng.randbytes(1)
        elif way == 1:
            del out[at : at + rng.choice((1, 4, len(out)))]
        elif way == 2:
            out[at:at] = out[at : at + rng.randrange(64)] * rng.choice((1, 2, 500))
        elif way == 3:
            out[at : at + 8] = rng.choice(NUMBERS).to_bytes(8, "little", signed=True)
        elif way == 4:
            out[at : at + 1] = b"9" * rng.choice((1, 3, 20))
        elif at < len(out):
            out[at] ^= 1 << rng.randrange(8)
    return bytes(out)


def _mutate_numbers(data: bytes, rng: random.Random) -> bytes:
    """Put another number or another word where the text of a header has one."""
    digits = [at for at in range(len(data)) if data[at : at + 1].isdigit()]
    if not digits or rng.random() < 0.3:
        return _mutate_bytes(data, rng)
    at = rng.choice(digits)
    put = rng.choice((str(rng.choice(NUMBERS)), "9" * 30, "0", "-", "(", "'O'", "__import__", "L"))
    return data[:at] + put.encode() + data[at + 1 :]


def _mutate_json(data: bytes, rng: random.Random) -> bytes:
    content = json.loads(data)
    for _ in range(rng.choice((1, 1, 2))):
        holder: object = content
        while isinstance(holder, (dict, list)) and holder:
            keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
            key = rng.choice(keys)
            inner = holder[key]  # type: ignore[call-overload]
            if not (isinstance(inner, (dict, list)) and inner and rng.random() < 0.8):
                break
            holder = inner
        else:
            break
        way = rng.randrange(4)
        if way == 0:
            del holder[key]  # type: ignore[attr-defined]
        elif way == 1 and isinstance(holder, dict):
            holder[str(_random_json(rng))[:200]] = holder.pop(key)
        else:
            holder[key] = _random_json(rng)  # type: ignore[index]
    return json.dumps(content).encode()


def _random_json(rng: random.Random) -> object:
    deep: object = []
    for _ in range(rng.choice((3, 200, 900))):
        deep = [deep]
    texts = ("F32", "F64", "BOOL", "F4", "F8_E8M0", "I64", "..", "", "a", "/", "\ud800", "\n")
    plain = (None, True, 1.5, 1e308, [], {}, {"a": {}}, [0, 4], [2**63, 2**64], deep)
    return rng.choice((*texts, *plain, *NUMBERS, 2**64, 10**30))


def _mutate_opcodes(data: bytes, rng: random.Random) -> bytes:
    """Drop, repeat, swap, replace or insert whole opcodes of one of the file's pickles."""
    first, whole = rng.choice(_pickles(data))
    codes = list(whole)
    rest = data[first + sum(map(len, codes)) :]
    for _ in range(rng.choice((1, 1, 2, 5))):
        at = rng.randrange(len(codes) + 1)
        way = rng.randrange(6)
        if way == 0:
            del codes[at : at + 1]
        elif way == 1:
            codes[at:at] = codes[at : at + rng.randrange(9)] * rng.choice((1, 2, 200))
        elif way == 2 and len(codes) > 1:
            i, j = rng.sample(range(len(codes)), 2)
            codes[i], codes[j] = codes[j], codes[i]
        elif way == 3:
            codes[at : at + 1] = [random_opcode(rng)]
        elif way == 4:
            codes[at:at] = [random_opcode(rng) for _ in range(rng.choice((1, 3, 30)))]
        else:
            codes[at:at] = [random_opcode(rng)] * rng.choice((2, 1000))
    return data[:first] + b"".join(codes) + rest


@cache
def _pickles(data: bytes) -> list[tuple[int, list[bytes]]]:
    """Find where each pickle of a file begins, and its opcodes with their arguments.

    The longest comes ten times: it holds the content, and the others of torch's older files little.
    """
    found, begin = [], 0
    while begin < len(data):
        starts = []
        try:
            starts.extend(at for _, _, at in pickletools.genops(data[begin:]))
        except ValueError:
            break
        ends = [*starts[1:], starts[-1] + 1]
        codes = [data[begin + a : begin + b] for a, b in zip(starts, ends, strict=True)]
        found.append((begin, codes))
        begin += ends[-1]
    found = found or [(0, [data[at : at + 1] for at in range(len(data))])]
    return [*found, *[max(found, key=lambda pickle: len(pickle[1]))] * 9]
