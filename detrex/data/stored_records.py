"""The records of a data set in one file without a name, which all processes of a machine share.

Each record is pickled by itself and read when it is wanted; where it ends, and whether its image is
wide, stand behind all of them in arrays that are mapped. Nothing of it is a Python object, so that
workers that are forked copy none of it, the system may drop what it keeps of the file in memory,
and the file vanishes with the last process that has it open, however that one ends.
"""

import mmap
import os
import pickle
import tempfile
from array import array
from collections.abc import Iterable, Iterator, Mapping
from multiprocessing.context import get_spawning_popen
from multiprocessing.reduction import DupFd
from typing import Any, BinaryIO

import numpy as np
import torch.utils.data

from detrex.errors import DataError

Record = dict[str, Any]

HIGH, WIDE, UNKNOWN = range(3)
"""The groups of images by their aspect ratio: wider than high, not so, and without a size."""


class StoredRecords(torch.utils.data.Dataset[Any]):
    """Records that are read from a file, one fresh dict at a time.

    Made by `store`. Pickled for a worker or another process of this machine, it names the file
    alone: that must happen while this process lives.

    Args:
        file: open for reading, in the form that `store` writes.
        count: the number of records.
    """

    def __init__(self, file: BinaryIO, count: int) -> None:
        self.file, self._count = file, count
        size = os.fstat(file.fileno()).st_size
        tail = size - 9 * count
        start = tail // mmap.ALLOCATIONGRANULARITY * mmap.ALLOCATIONGRANULARITY
        mapped = mmap.mmap(file.fileno(), size - start, access=mmap.ACCESS_READ, offset=start)
        self._ends = np.frombuffer(mapped, np.int64, count, tail - start)
        self.aspects = np.frombuffer(mapped, np.uint8, count, tail - start + 8 * count)

    def __len__(self) -> int:
        """The number of records."""
        return self._count

    def __getitem__(self, index: int) -> Record:
        """Read a record; what is done to it changes nothing here.

        Raises:
            IndexError: there is none of this number.
        """
        index = int(index)
        if not -self._count <= index < self._count:
            raise IndexError(f"{index} is none of {self._count} records")
        index %= self._count
        start = int(self._ends[index - 1]) if index else 0
        return pickle.loads(os.pread(self.file.fileno(), int(self._ends[index]) - start, start))

    def __iter__(self) -> Iterator[Record]:
        """Read all records in their order."""
        return (self[index] for index in range(self._count))

    def __deepcopy__(self, memo: Any) -> "StoredRecords":
        return self  # it cannot be changed

    def __reduce__(self) -> tuple[Any, ...]:
        place: Any = f"/proc/{os.getpid()}/fd/{self.file.fileno()}"
        if get_spawning_popen() is not None:
            place = DupFd(self.file.fileno())
        return _opened, (place, self._count)


def _opened(place: Any, count: int) -> StoredRecords:
    """Open the file of `StoredRecords` in another process."""
    file = place if isinstance(place, str) else place.detach()
    return StoredRecords(open(file, "rb"), count)


def store(records: Iterable[Mapping[str, Any]]) -> StoredRecords:
    """Write records into a file without a name, in the folder for temporary files.

    Args:
        records: detectron2's dataset dicts, or any others that can be pickled. They are taken one
            after another, so that a generator never has them all in memory.

    Returns:
        The records.

    Raises:
        DataError: there is no room for them.
    """
    ends, aspects = array("q"), bytearray()
    size = 0
    try:
        file: Any = tempfile.TemporaryFile()  # noqa: SIM115
        for record in records:
            plain = record if type(record) is dict else dict(record)
            size += file.write(pickle.dumps(plain, protocol=5))
            ends.append(size)
            aspects.append(_aspect(record))
        padding = bytes(-size % 8 or 8)
        file.write(padding)
        ends.tofile(file)
        file.write(aspects)
        file.flush()
    except OSError as error:
        raise DataError(
            f"the records of a data set, {size / 2**20:.0f} MiB and more, cannot be written into "
            f"{tempfile.gettempdir()} ({error.strerror or error}): point the environment variable "
            "TMPDIR at a folder with room."
        ) from error
    return StoredRecords(file, len(ends))


def _aspect(record: Mapping[str, Any]) -> int:
    try:
        return WIDE if record["width"] > record["height"] else HIGH
    except (KeyError, TypeError):
        return UNKNOWN


def aspects_of(records: Any) -> np.ndarray:
    """Give the aspect ratios of a data set's images, one byte an image.

    Args:
        records: `StoredRecords`, another data set that has ``aspects``, or one that is read through
            for them.

    Returns:
        ``(len(records),)``, uint8: `HIGH`, `WIDE` or `UNKNOWN`.
    """
    if hasattr(records, "aspects"):
        return records.aspects
    found = (_aspect(records[i]) for i in range(len(records)))
    return np.fromiter(found, np.uint8, len(records))
