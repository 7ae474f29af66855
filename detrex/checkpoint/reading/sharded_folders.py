"""Folders that `torch.distributed.checkpoint` writes, read as data and nothing else.

::

    .metadata      a pickle: names, shapes, and where in which file each part of a tensor lies
    __0_0.distcp   parts of tensors, each as torch.save writes it, one after the other
    rest.pth       what is no sharded tensor, where this package wrote the folder

PyTorch's own reader unpickles ``.metadata``, which can run any code. Here it is read as data, like
any other file of weights (`detrex.checkpoint.reading.safe_pickle`), and held against the files.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from detrex.checkpoint.digests import verify
from detrex.checkpoint.reading.file_formats import read_as_data, read_file
from detrex.checkpoint.reading.safe_pickle import tensors
from detrex.checkpoint.reading.safe_pickle.plain_data import UnfitContentError, shorten
from detrex.checkpoint.reading.safe_pickle.unpickler import Pending, SafeUnpickler
from detrex.checkpoint.reading.safe_pickle.values import check_shape
from detrex.checkpoint.reading.torch_files import read_zip_stream
from detrex.errors import CheckpointError

METADATA = ".metadata"
REST = "rest.pth"
PATHS = "sharded"
"""Where `REST` says how each sharded tensor is called in the checkpoint: keys by name."""

_MODULE = "torch.distributed.checkpoint"


@dataclass(frozen=True)
class Part:
    """A rectangular part of a tensor, or an object, and the bytes of a file that hold it.

    Attributes:
        offsets: its first element, along each axis of the whole; empty for an object.
        sizes: its shape.
        file: name of a file in the folder.
        start: the first byte.
        length: number of bytes.
    """

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    file: str
    start: int
    length: int


@dataclass(frozen=True)
class Entry:
    """A tensor in parts.

    Attributes:
        dtype: number type.
        shape: of the whole.
        parts: which fill it.
    """

    dtype: torch.dtype
    shape: tuple[int, ...]
    parts: tuple[Part, ...]


def is_sharded_folder(folder: Path) -> bool:
    """Tell a folder that `torch.distributed.checkpoint` has written to the end."""
    return (folder / METADATA).is_file()


class ShardedFolder:
    """A checkpoint in parts, of which any part of any tensor can be read.

    Args:
        folder: see `is_sharded_folder`.

    Attributes:
        folder: as given.
        entries: its tensors by the names that the folder has for them.

    Raises:
        CheckpointError: its index cannot be read, or is at odds with the files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._objects: dict[str, Part] = {}
        self._paths: dict[str, Any] = {}
        self.entries: dict[str, Entry] = read_as_data(folder / METADATA, self._read_index)

    def rest(self) -> dict[str, Any]:
        """Read everything but the tensors in parts.

        Returns:
            The checkpoint with gaps where these belong.

        Raises:
            CheckpointError: a file is damaged, or needs code to be read.
        """
        file = self.folder / REST
        content = read_file(file) if file.is_file() else {}
        if not isinstance(content, dict):
            raise CheckpointError(f"{file} holds no dictionary: restore the checkpoint")
        paths = content.pop(PATHS, None)
        if isinstance(paths, dict):
            self._paths = paths
        for name, part in self._objects.items():
            self.put(content, name, self._load(part))
        return content

    def put(self, content: dict[str, Any], name: str, value: Any) -> None:
        """Put a tensor where it belongs in the checkpoint.

        Args:
            content: what `rest` returned; changed in place.
            name: one of `entries`.
            value: the tensor.

        Raises:
            CheckpointError: something else is in its way.
        """
        path = self._paths.get(name, (name,))
        plain = isinstance(path, list | tuple) and 0 < len(path) <= 100
        if not plain or not all(isinstance(key, str | int) for key in path):
            raise CheckpointError(f"{self.folder} names no proper place for {shorten(name)!r}")
        place = content
        for key in path[:-1]:
            place = place.setdefault(key, {})
            if not isinstance(place, dict):
                raise CheckpointError(
                    f"{self.folder} holds two things in the place of {shorten(name)!r}"
                )
        place[path[-1]] = value

    def read(self, name: str) -> Tensor:
        """Read a whole tensor.

        Args:
            name: one of `entries`.

        Raises:
            CheckpointError: a part is damaged.
        """
        entry = self.entries[name]
        parts = entry.parts
        if len(parts) == 1 and parts[0].sizes == entry.shape:
            return self.read_part(name, parts[0])
        whole = torch.empty(entry.shape, dtype=entry.dtype)
        for part in parts:
            _inside(whole, part).copy_(self.read_part(name, part))
        return whole

    def read_part(self, name: str, part: Part) -> Tensor:
        """Read one part of a tensor.

        Args:
            name: one of `entries`.
            part: one of its parts.

        Raises:
            CheckpointError: it is damaged.
        """
        value = self._load(part)
        entry = self.entries[name]
        fits = isinstance(value, Tensor) and value.dtype is entry.dtype
        if not fits or tuple(value.shape) != part.sizes:
            raise CheckpointError(
                f"{self.folder / part.file} holds something else than the part of "
                f"{shorten(name)!r} that {METADATA} promises: restore the checkpoint"
            )
        return value

    def _load(self, part: Part) -> Any:
        def read(file: Path) -> Any:
            with file.open("rb") as stream:
                stream.seek(part.start)
                data = stream.read(part.length)
            return read_zip_stream(BytesIO(data))

        return read_as_data(self.folder / part.file, read)

    def _read_index(self, file: Path) -> dict[str, Entry]:
        verify(file)
        sizes = {f.name: f.stat().st_size for f in self.folder.iterdir() if f.is_file()}
        with file.open("rb") as stream:
            whole = sum(sizes.values())
            index = SafeUnpickler(stream, _NAMES, file_size=whole).load()
        _require(isinstance(index, dict), "its index is no table")
        table, places = index.get("state_dict_metadata"), index.get("storage_data")
        _require(isinstance(table, dict) and isinstance(places, dict), "its index has no tables")
        entries = {}
        claimed = 0
        for name, entry in table.items():
            _require(isinstance(name, str), "a name is no text")
            if entry == _OBJECT:
                part = _part((), (), places.get((name, None)), sizes)
                self._objects[name] = part
                claimed += part.length
                continue
            entries[name] = _entry(name, entry, places, sizes)
            claimed += sum(part.length for part in entries[name].parts)
        # Parts may claim the same bytes, so all of them together are bounded.
        _require(claimed <= whole, "its parts are larger than its files")
        paths = index.get("planner_data")
        self._paths = paths if isinstance(paths, dict) else {}
        return entries


def read_sharded(folder: Path) -> dict[str, Any]:
    """Read a checkpoint in parts as a whole, on the CPU, as it is nested.

    Args:
        folder: see `is_sharded_folder`.

    Raises:
        CheckpointError: something in it is damaged, or needs code to be read.
    """
    parts = ShardedFolder(folder)
    content = parts.rest()
    for name in parts.entries:
        parts.put(content, name, parts.read(name))
    return content


def split_sharded(
    content: Mapping[str, Any], is_part: Callable[[Any], bool]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Take the sharded tensors out of a checkpoint, for a folder.

    Args:
        content: dictionaries in dictionaries; what lies in lists stays there.
        is_part: tells a sharded tensor.

    Returns:
        These by name, and what `REST` is to hold.
    """
    found: dict[str, Tensor] = {}
    paths: dict[str, list[Any]] = {}

    def kept(table: Mapping[Any, Any], path: tuple[Any, ...]) -> dict[Any, Any]:
        left = {}
        for key, value in table.items():
            here = (*path, key)
            if isinstance(value, Mapping):
                left[key] = kept(value, here)
            elif is_part(value):
                name = ".".join(map(str, here))
                found[name], paths[name] = value, list(here)
            else:
                left[key] = value
        return left

    rest = kept(content, ())
    return found, {**rest, PATHS: paths}


def _entry(name: str, entry: Any, places: Mapping[Any, Any], sizes: Mapping[str, int]) -> Entry:
    _require(isinstance(entry, dict), "a tensor has no proper description")
    dtype, shape, chunks = (entry.get(key) for key in ("properties", "size", "chunks"))
    _require(isinstance(dtype, torch.dtype), "a tensor has no number type")
    _require(isinstance(chunks, list | tuple), "a tensor has no parts")
    shape = check_shape(shape)
    parts = tuple(_part_of(name, chunk, places, sizes) for chunk in chunks)
    _check_tiling(shape, parts, dtype.itemsize)
    return Entry(dtype, shape, parts)


def _part_of(name: str, chunk: Any, places: Mapping[Any, Any], sizes: Mapping[str, int]) -> Part:
    _require(isinstance(chunk, dict), "a part has no proper description")
    offsets, shape = check_shape(chunk.get("offsets")), check_shape(chunk.get("sizes"))
    return _part(offsets, shape, places.get((name, offsets)), sizes)


def _part(
    offsets: tuple[int, ...], shape: tuple[int, ...], place: Any, sizes: Mapping[str, int]
) -> Part:
    _require(isinstance(place, dict), "a part has no place in a file")
    file, start, length = (place.get(key) for key in ("relative_path", "offset", "length"))
    _require(isinstance(file, str) and file in sizes, f"it lacks the file {shorten(file)}")
    whole = type(start) is int and type(length) is int
    _require(whole and 0 <= start <= start + length <= sizes[file], "a part is cut off")
    if place.get("transform_descriptors"):
        raise UnfitContentError("parts that are compressed")
    return Part(offsets, shape, file, start, length)


def _check_tiling(shape: tuple[int, ...], parts: tuple[Part, ...], width: int) -> None:
    """Refuse parts that leave a gap, overlap, reach beyond the tensor or lack bytes."""
    for part in parts:
        inside = len(part.offsets) == len(part.sizes) == len(shape) and all(
            offset + size <= whole
            for offset, size, whole in zip(part.offsets, part.sizes, shape, strict=True)
        )
        _require(inside, "a part reaches beyond its tensor")
        _require(math.prod(part.sizes) * width <= part.length, "a part has too few bytes")
    count = math.prod(shape)
    _require(sum(math.prod(part.sizes) for part in parts) == count, "a tensor is incomplete")
    if len([part for part in parts if math.prod(part.sizes)]) > 1:
        covered = torch.zeros(shape, dtype=torch.bool)
        for part in parts:
            _inside(covered, part).fill_(True)
        _require(bool(covered.all()), "parts of a tensor overlap")


def _inside(whole: Tensor, part: Part) -> Tensor:
    for axis, (offset, size) in enumerate(zip(part.offsets, part.sizes, strict=True)):
        whole = whole.narrow(axis, offset, size)
    return whole


def _require(condition: bool, otherwise: str) -> None:
    if not condition:
        raise UnpicklingError(otherwise)


class _Described(Pending):
    """Stand for a dataclass, until its fields are given."""

    def __init__(self, *_: Any) -> None:
        super().__init__()

    def build(self, state: Any) -> Any:
        _require(isinstance(state, dict), "a description has no fields")
        return state


class _Index(_Described):
    """Stand for a ``MetadataIndex``, a key of a table."""

    def build(self, state: Any) -> Any:
        fields = super().build(state)
        name, offset = fields.get("fqn"), fields.get("offset")
        _require(isinstance(name, str), "a name is no text")
        return name, None if offset is None else check_shape(offset)


class _Properties(_Described):
    """Stand for ``TensorProperties``, of which the number type is taken."""

    def build(self, state: Any) -> Any:
        _require(isinstance(state, tuple) and bool(state), "a tensor has no properties")
        return state[0]


_OBJECT = "an object"


def _nothing(*_: Any) -> None:
    """Stand for what is not needed."""


def _object(*_: Any) -> str:
    return _OBJECT


def _described() -> Iterator[tuple[str, Any]]:
    for name in ("Metadata", "StorageMeta", "TensorStorageMetadata", "ChunkStorageMetadata"):
        yield f"{_MODULE}.metadata.{name}", _Described
    yield f"{_MODULE}.filesystem._StorageInfo", _Described
    yield f"{_MODULE}.metadata.MetadataIndex", _Index
    yield f"{_MODULE}.metadata.BytesStorageMetadata", _object
    older = "torch.distributed._shard.sharded_tensor.metadata"
    yield f"{_MODULE}.metadata.TensorProperties", _Properties
    yield f"{older}.TensorProperties", _Properties
    yield f"{_MODULE}.metadata._MEM_FORMAT_ENCODING", _nothing
    yield f"{older}.MEM_FORMAT_ENCODING", _nothing
    for place in ("pathlib", "pathlib._local"):
        for kind in ("Path", "PosixPath", "WindowsPath"):
            yield f"{place}.{kind}", _nothing


_NAMES = {**tensors.NAMES, **dict(_described())}
