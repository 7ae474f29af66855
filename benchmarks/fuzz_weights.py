"""Read damaged and hostile weights files, and count how each ends.

    python benchmarks/fuzz_weights.py --count 100000     mutations of valid files of every kind
    python benchmarks/fuzz_weights.py --folder FOLDER    the files of a folder, one JSON line each

Files are read in processes of their own. A file may load, or be refused in one sentence
(`CheckpointError`); the exit status is 1 when any other error, a signal or a hang was seen.
"""

import argparse
import faulthandler
import io
import json
import os
import pickle
import pickletools
import random
import resource
import subprocess
import sys
import tempfile
import time
import zipfile
from collections import Counter, OrderedDict
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save

from detrex.checkpoint.reading.state_dict import read_state_dict
from detrex.errors import CheckpointError

BATCH = 500
HANG = 60
NAMES = (
    *("numpy dtype", "numpy ndarray", "numpy.core.multiarray _reconstruct", "numpy matrix"),
    *("numpy._core.multiarray scalar", "numpy.core.numeric _frombuffer", "_codecs encode"),
    *("collections OrderedDict", "collections Counter", "builtins set", "__builtin__ bytearray"),
    *("builtins complex", "os system", "torch FloatStorage", "torch BoolStorage", "torch Size"),
    *("torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_tensor_v3", "torch float32"),
    *("torch._utils _rebuild_parameter", "torch._tensor _rebuild_from_type_v2", "torch device"),
    *("torch._utils _rebuild_qtensor", "torch FloatTensor", "torch.nn.parameter Parameter"),
)
NUMBERS = (0, 1, -1, 2, 7, 255, 256, 2**16, 2**31 - 1, -(2**31))


def valid_files() -> list[tuple[str, bytes]]:
    """Write one small file of each kind.

    Returns:
        The ending and the bytes of each: pickles of numpy arrays of every protocol, archives and
        older pickles of torch, and safetensors.
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
    files = [
        (".pkl", pickle.dumps({"model": arrays}, protocol))
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
    ]
    for zipped in (True, False):
        stream = io.BytesIO()
        torch.save(checkpoint, stream, _use_new_zipfile_serialization=zipped)
        files.append((".pth", stream.getvalue()))
    return [*files, (".safetensors", save({"a": weight, "h": torch.ones(5).half()}))]


def mutate(data: bytes, rng: random.Random) -> bytes:
    """Damage a file, either anywhere or, where it has a pickle, in its opcodes."""
    if data.startswith(b"PK") and rng.random() < 0.7:
        return _mutate_archive(data, rng)
    if data.startswith((b"\x80", b"(", b"c")) and rng.random() < 0.7:
        return _mutate_opcodes(data, rng)
    return _mutate_bytes(data, rng)


def _mutate_archive(data: bytes, rng: random.Random) -> bytes:
    """Change one record and write the archive anew, so that its checksums are right."""
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(stream, "w") as new:
        records = {name: old.read(name) for name in old.namelist()}
        name = rng.choice([*records, *[n for n in records if n.endswith(".pkl")] * 8])
        records[name] = mutate(records[name], rng)
        for name, content in records.items():
            new.writestr(name, content)
    return stream.getvalue()


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


def _mutate_opcodes(data: bytes, rng: random.Random) -> bytes:
    """Drop, repeat, swap, replace or insert whole opcodes of one of the file's pickles."""
    first, codes = rng.choice(_pickles(data))
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


def random_opcode(rng: random.Random) -> bytes:
    """Write one opcode with an argument that is likely to hurt."""
    way = rng.randrange(8)
    if way == 0:
        module, name = rng.choice(NAMES).split()
        return f"c{module}\n{name}\n".encode()
    if way == 1:
        return b"J" + rng.choice(NUMBERS).to_bytes(4, "little", signed=True)
    if way == 2:
        return rng.choice((b"h", b"q")) + bytes([rng.randrange(40)])
    if way == 3:
        text = rng.choice((b"O8", b"f4", b"V8", b"<", b"model", b"storage", b"\xff" * 8))
        return rng.choice((b"X", b"B", b"T")) + len(text).to_bytes(4, "little") + text
    if way == 4:
        size = rng.choice((0, 4, 2**31, 2**62)).to_bytes(8, "little")
        return rng.choice((b"\x8e", b"\x8d", b"\x96", b"\x95", b"\x8b", b"r", b"j")) + size
    if way == 5:
        return rng.choice(pickletools.opcodes).code.encode("latin1")
    return bytes([rng.choice(b"RRRbbb\x81(tueas012]})\x85\x86\x87\x8f\x90\x91\x94Q")])


def outcome(file: Path) -> dict[str, object]:
    """Read a file.

    Returns:
        ``name``, ``end`` ("loaded", "sentence" or the error's class), ``message``, ``seconds``,
        and ``grown``, MiB by which the process's largest memory grew.
    """
    start, before = time.perf_counter(), _largest_memory()
    message = ""
    try:
        # A copy touches every element that a tensor claims.
        for tensor in read_state_dict(file).values():
            tensor.clone()
        end = "loaded"
    except CheckpointError as error:
        message = str(error)
        told = len(message) - len(str(file)) < 500 and "\n" not in message
        end = "sentence" if told else "an unfit sentence"
    except Exception as error:
        message, end = str(error)[:300], type(error).__name__
    seconds, grown = time.perf_counter() - start, _largest_memory() - before
    return dict(name=file.name, end=end, message=message, seconds=seconds, grown=grown)


def _largest_memory() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def read_mutations(seed: int, first: int, count: int) -> None:
    """Read mutations by their numbers, and print each number before it and its end after it."""
    files = valid_files()
    with tempfile.TemporaryDirectory() as folder:
        for number in range(first, first + count):
            rng = random.Random(f"{seed} {number}")
            ending, data = rng.choice(files)
            file = Path(folder) / f"w{ending}"
            file.write_bytes(mutate(data, rng))
            print(number, flush=True)
            print(json.dumps(outcome(file)), flush=True)


def run_batches(seed: int, count: int) -> bool:
    """Read mutations in processes of their own, each of which goes on after one that died."""
    ends: Counter[str] = Counter()
    failures, longest, largest, number = [], 0.0, 0.0, 0
    while number < count:
        size = min(BATCH, count - number)
        command = [sys.executable, __file__, f"--seed={seed}", "--worker", str(number), str(size)]
        try:
            done = subprocess.run(
                command, stdout=subprocess.PIPE, text=True, timeout=HANG + size, check=False
            )
            lines, died = done.stdout.splitlines(), done.returncode
        except subprocess.TimeoutExpired as error:
            lines, died = (error.stdout or b"").decode().splitlines(), "a hang"
        for line in lines[1::2]:
            result = json.loads(line)
            ends[result["end"]] += 1
            longest, largest = max(longest, result["seconds"]), max(largest, result["grown"])
            if result["end"] not in ("loaded", "sentence"):
                failures.append(f"{number}: {result['end']}: {result['message']}")
            number += 1
        if died:
            ends["died"] += 1
            failures.append(f"{number}: the process ended with {died}")
            number += 1
    print("\n".join(failures))
    print(f"{count} files, seed {seed}: {dict(ends)}")
    print(f"longest {longest:.2f} s, largest growth of memory {largest:.0f} MiB")
    return not failures


def main() -> int:
    """Parse the command line and run.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=5000, help="mutations to read")
    parser.add_argument("--seed", type=int, default=0, help="of the mutations")
    parser.add_argument("--folder", type=Path, help="read the files of this folder instead")
    parser.add_argument("--worker", type=int, nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    faulthandler.enable()
    torch.set_num_threads(1)
    if args.folder:
        for file in sorted(args.folder.iterdir()):
            print(json.dumps(outcome(file)), flush=True)
        return 0
    if args.worker:
        read_mutations(args.seed, *args.worker)
        return 0
    os.environ["PYTHONPATH"] = os.pathsep.join(p for p in sys.path if p)
    return 0 if run_batches(args.seed, args.count) else 1


if __name__ == "__main__":
    sys.exit(main())
