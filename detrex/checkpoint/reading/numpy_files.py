"""Read numpy's archives of arrays (``.npz``), which JAX's programs write, as numbers alone.

``numpy.load`` evaluates an array's header as an expression of Python and reserves the size that it
claims. Here a header is one of a few known forms, and an array takes the bytes that it has.
"""

import math
import re
import zipfile
from pathlib import Path
from pickle import UnpicklingError
from typing import Literal

import numpy as np

from detrex.checkpoint.reading.bounds import FACTOR, allowance
from detrex.checkpoint.reading.safe_pickle.plain_data import UnfitContentError, shorten
from detrex.checkpoint.reading.safe_pickle.values import check_shape

_MAGIC = b"\x93NUMPY"
_MAX_HEADER = 10_000
# No part of it can match in two ways, so that no header takes long.
_HEADER = re.compile(
    r"""\{\s*'descr':\s*'(?P<type>[<>|=]?[A-Za-z]\d*)',\s*'fortran_order':\s*(?P<order>True|False),
    \s*'shape':\s*\(\s*(?P<shape>(?:\d{1,15}L?\s*,\s*)*(?:\d{1,15}L?\s*)?)\),?\s*\}\s*""",
    re.VERBOSE,
)
# Truth values, integers, real and complex numbers; texts stand beside them in some archives.
_KINDS = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248]|c8|c16|[SU]\d{1,6})")


def read_npz(file: Path) -> dict[str, np.ndarray]:
    """Read an archive of ``numpy.savez`` or ``numpy.savez_compressed``.

    Args:
        file: a zip archive of ``.npy`` files.

    Returns:
        Arrays of numbers and of texts by name, in this machine's byte order.

    Raises:
        UnpicklingError: it is damaged, or holds other arrays.
        zipfile.BadZipFile: it is damaged.
    """
    size = file.stat().st_size
    with zipfile.ZipFile(file) as archive:
        left = allowance(size)
        arrays = {}
        for entry in archive.infolist():
            # The other ways to compress reserve what the file claims.
            if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise UnfitContentError("records compressed in a way that numpy does not write")
            left -= entry.file_size
            if left < 0:
                raise UnfitContentError(f"records that inflate to over {FACTOR} times the file")
            arrays[entry.filename.removesuffix(".npy")] = _array(archive.read(entry))
    return arrays


def _array(record: bytes) -> np.ndarray:
    header, start = _header(record)
    found = _HEADER.fullmatch(header)
    if found is None or not _KINDS.fullmatch(found["type"]):
        described = header if found is None else found["type"]
        raise UnfitContentError(f"a numpy array of the type '{shorten(described)}'")
    dtype = np.dtype(found["type"])
    shape = check_shape(tuple(int(n) for n in re.findall(r"\d+", found["shape"])))
    data = record[start:]
    if math.prod(shape) * dtype.itemsize != len(data):
        raise UnpicklingError(
            f"an array of shape {shorten(shape)} and type {dtype} has {len(data)} bytes"
        )
    order: Literal["C", "F"] = "F" if found["order"] == "True" else "C"
    if dtype.kind == "b":
        # Bytes other than 0 and 1 are no truth values.
        return (np.frombuffer(data, np.uint8) != 0).reshape(shape, order=order)
    values = np.frombuffer(data, dtype).astype(dtype.newbyteorder("="), copy=True)
    return values.reshape(shape, order=order)


def _header(record: bytes) -> tuple[str, int]:
    """Give an array's description, and where its elements begin."""
    width = 2 if record[6:7] == b"\x01" else 4
    size = int.from_bytes(record[8 : 8 + width], "little")
    if not record.startswith(_MAGIC) or not 0 < size <= _MAX_HEADER:
        raise UnpicklingError("a record is no array of numpy's")
    start = 8 + width + size
    return record[8 + width : start].decode("latin1"), start
