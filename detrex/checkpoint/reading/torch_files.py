"""Read what ``torch.save`` writes, zip archives and older pickles, as data and nothing else.

``torch.load(weights_only=True)`` has functions on its list that reserve whatever size a file
claims, and its unpickler can be ended by a deeply nested key. Here the pickle is read as plain data
(`detrex.checkpoint.reading.safe_pickle`), and a tensor is a view of bytes that the file really has.

    zip archive   data.pkl, and one stored record (data/0, data/1, ...) for each storage
    older pickle  number, version, system, content, order of the storages; then their bytes

Each record of an archive has a checksum, and is read to its end, where that is compared; an older
pickle has none (`detrex.checkpoint.digests` keeps one for checkpoints).
"""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError
from typing import IO, Any

import torch
from torch import Tensor

from detrex.checkpoint.reading.safe_pickle.plain_data import UnfitContentError, shorten
from detrex.checkpoint.reading.safe_pickle.tensors import NAMES, Storage, strided
from detrex.checkpoint.reading.safe_pickle.unpickler import SafeUnpickler

MAGIC = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19"
_VERSION = 1001
_CHUNK = 2**24


def read_zip(file: Path, storage: Callable[[Any], Storage] | None = None) -> Any:
    """Read an archive of ``torch.save``.

    Args:
        file: a zip archive.
        storage: gives the storage that a persistent id describes; by default that of the file.

    Returns:
        Its content, with tensors on the CPU that need no gradients.

    Raises:
        UnpicklingError: it is damaged, made to do harm, or holds what is no plain tensor.
        zipfile.BadZipFile: it is damaged.
    """
    with file.open("rb") as stream:
        return read_zip_stream(stream, storage)


def read_zip_stream(stream: IO[bytes], storage: Callable[[Any], Storage] | None = None) -> Any:
    """Read an archive of ``torch.save``; see `read_zip`.

    Args:
        stream: seekable, with nothing but the archive.
        storage: as there.
    """
    size = stream.seek(0, io.SEEK_END)
    with zipfile.ZipFile(stream) as archive:
        records = _Records(archive, size)
        pickle = io.BytesIO(records.read("data.pkl"))
        return SafeUnpickler(pickle, NAMES, storage or records.load, file_size=size).load()


class _Records:
    """The storages of an archive, each read when the first tensor needs it."""

    def __init__(self, archive: zipfile.ZipFile, size: int) -> None:
        self._archive = archive
        self._left = size
        self._storages: dict[str, Tensor] = {}
        names = [name for name in archive.namelist() if name.endswith("data.pkl")]
        self._folder = min(names, key=len, default="data.pkl").removesuffix("data.pkl")
        # torch.serialization.set_crc32_options(False) leaves all checksums out.
        self._has_sums = any(entry.CRC for entry in archive.infolist())
        has_order = f"{self._folder}byteorder" in archive.namelist()
        self._big = has_order and self.read("byteorder") == b"big"

    def read(self, name: str) -> bytes:
        return self._archive.read(self._entry(name))

    def _entry(self, name: str) -> zipfile.ZipInfo:
        try:
            entry = self._archive.getinfo(self._folder + name)
        except KeyError:
            raise UnpicklingError(f"it lacks the record {shorten(name)}") from None
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
            raise UnfitContentError("compressed records, which torch.save does not write")
        # Records may claim the same bytes, so all of them together are bounded.
        self._left -= entry.file_size
        if self._left < 0:
            raise UnpicklingError("its records are larger than the file")
        if not self._has_sums:
            entry.CRC = None  # type: ignore[assignment]
        return entry

    def load(self, pid: Any) -> Storage:
        dtype, key, count = storage_of(pid)
        if key not in self._storages:
            self._storages[key] = self._read(f"data/{key}", dtype, count)
        return Storage(_as_described(self._storages[key], dtype, count, key))

    def _read(self, name: str, dtype: torch.dtype, count: int) -> Tensor:
        entry = self._entry(name)
        # A storage of half an element more is that of a tensor which was seen as another type.
        if not 0 <= entry.file_size - count * dtype.itemsize < dtype.itemsize:
            raise UnpicklingError(
                f"the record {shorten(name)} has {entry.file_size} bytes and {count} elements of "
                f"{dtype.itemsize}"
            )
        values = torch.empty(count, dtype=dtype)
        with self._archive.open(entry) as stream:
            _fill(values, stream)
            stream.read()  # at its end the checksum is compared
        width = dtype.itemsize // (2 if dtype.is_complex else 1)
        if self._big and width > 1:
            raw = values.view(torch.uint8)
            raw.copy_(raw.view(-1, width).flip(1).flatten())
        return values


def read_pickle(file: Path) -> Any:
    """Read a file of ``torch.save`` of before torch 1.6.

    Args:
        file: a file that begins with `MAGIC` in a pickle.

    Returns:
        Its content, with tensors on the CPU that need no gradients.

    Raises:
        UnpicklingError: it is damaged, made to do harm, or holds what is no plain tensor.
    """
    with file.open("rb") as stream:
        storages = _Storages(file.stat().st_size)
        _, version, _ = (SafeUnpickler(stream, NAMES).load() for _ in range(3))
        if version != _VERSION:
            raise UnpicklingError(f"its version is {shorten(version)}, and {_VERSION} is known")
        content = SafeUnpickler(stream, NAMES, storages.load).load()
        storages.fill(SafeUnpickler(stream, NAMES).load(), stream)
    return content


class _Storages:
    """The storages of an older file, whose bytes come after the tensors that are views of them."""

    def __init__(self, size: int) -> None:
        self._left = size
        self._whole: dict[str, Tensor] = {}

    def load(self, pid: Any) -> Storage:
        dtype, key, count = storage_of(pid[:5] if isinstance(pid, tuple) else pid)
        if key not in self._whole:
            self._left -= count * dtype.itemsize
            if self._left < 0:
                raise UnpicklingError("its storages are larger than the file")
            self._whole[key] = torch.empty(count, dtype=dtype)
        whole = _as_described(self._whole[key], dtype, count, key)
        view = pid[5] if len(pid) > 5 else None
        if view is None:
            return Storage(whole)
        if not (isinstance(view, tuple) and len(view) == 3):
            raise UnpicklingError("a part of a storage has no proper description")
        return Storage(strided(Storage(whole), view[1], (view[2],), (1,)))

    def fill(self, order: Any, stream: IO[bytes]) -> None:
        keys = order if isinstance(order, list) else []
        if not all(isinstance(key, str) for key in keys) or set(keys) != set(self._whole):
            raise UnpicklingError("the order of its storages names others than it has")
        for key in dict.fromkeys(keys):
            whole = self._whole[key]
            if int.from_bytes(stream.read(8), "little") != len(whole):
                raise UnpicklingError(f"the storage {shorten(key)} is not as long as it should be")
            _fill(whole, stream)


def storage_of(pid: Any) -> tuple[torch.dtype, str, int]:
    """Take a storage's number type, name and count of elements out of its persistent id.

    Args:
        pid: as the pickle has it.

    Raises:
        UnpicklingError: it describes no storage.
    """
    if not (isinstance(pid, tuple) and len(pid) == 5 and pid[0] == "storage"):
        raise UnpicklingError("it refers to something that is no storage")
    _, dtype, key, _, count = pid
    known = isinstance(dtype, torch.dtype) and isinstance(key, (str, int))
    if not known or type(count) is not int or not 0 <= count < 2**48:
        raise UnpicklingError("a storage has no proper description")
    return dtype, str(key), count


def _as_described(values: Tensor, dtype: torch.dtype, count: int, key: str) -> Tensor:
    if values.dtype != dtype or len(values) != count:
        raise UnpicklingError(f"the storage {shorten(key)} has two descriptions")
    return values


def _fill(values: Tensor, stream: IO[bytes]) -> None:
    """Fill a flat tensor from a stream, which must have as many bytes."""
    if not len(values):
        return
    raw = values.view(torch.uint8)
    view = memoryview(raw.numpy().data)
    for start in range(0, len(view), _CHUNK):
        part = view[start : start + _CHUNK]
        if stream.readinto(part) != len(part):  # type: ignore[attr-defined]
            raise UnpicklingError("it ends too early")
    if values.dtype is torch.bool:
        # Bytes other than 0 and 1 are no truth values.
        raw.ne_(0)
