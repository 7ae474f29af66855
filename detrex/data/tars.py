"""Pictures and their JSON files in tar files, found once and read where they lie."""

import errno
import io
import os
import re
import tarfile
from collections.abc import Iterator, Mapping
from typing import Any

from detectron2.utils.file_io import PathHandler, PathManager

from detrex.data.coco.document import shorten
from detrex.data.picture_files import PICTURE_SUFFIXES
from detrex.errors import DataError

PREFIX = "tar://"
"""Begins the address of a picture in a tar file: ``tar://FILE#MEMBER@OFFSET+SIZE``."""

_PICTURES = sorted(suffix.removeprefix(".") for suffix in PICTURE_SUFFIXES)
_NAME = re.compile(r"((?:.*/)?[^/.]+)\.([^/]+)")  # as WebDataset takes it: up to the first dot
_KINDS = ("json", *_PICTURES)
_ADDRESS = re.compile(re.escape(PREFIX) + r"(.*)#[^#]*@(\d+)\+(\d+)", re.DOTALL)
_BLOCK = 512
_LONGEST_JSON = 2**24


def samples_of(shard: str) -> Iterator[tuple[str, str, bytes]]:
    """Look through a tar file whose images are a picture and a JSON file of one name each.

    Members that are neither are passed over.

    Args:
        shard: the file.

    Yields:
        An image's name for messages, its picture's address, and its JSON.

    Raises:
        DataError: the file is no tar file, compressed or cut short, or an image lacks one of the
            two.
    """
    last = ""
    try:
        with open(shard, "rb") as file, tarfile.open(fileobj=file, mode="r:") as archive:
            for sample in _grouped(archive, shard):
                last = f" after {sample[0].partition(': ')[2]}"
                yield sample
            file.seek(archive.offset)
            if file.read(_BLOCK) != bytes(_BLOCK):  # tarfile takes anything here for the end
                raise tarfile.ReadError(f"no valid header at byte {archive.offset}")
    except DataError:
        raise
    except Exception as error:  # tarfile raises whatever a damaged header leads to
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise DataError(
            f"{shard} is no tar file that can be read, or is damaged{last} ({reason[:150]}): "
            "copy or write it again, without compression."
        ) from None


def _grouped(archive: tarfile.TarFile, shard: str) -> Iterator[tuple[str, str, bytes]]:
    """Bring the picture and the JSON of each image together, which follow each other."""
    stem = ""
    found: dict[str, Any] = {}
    for member in archive:
        archive.members = []  # type: ignore[attr-defined]  # which tarfile would keep
        match = _NAME.fullmatch(member.name)
        kind = match[2].rpartition(".")[2].lower() if match else ""
        if not match or not member.isreg() or kind not in _KINDS or member.issparse():
            continue
        if match[1] != stem:
            if stem:
                yield _sample(shard, stem, found)
            stem, found = match[1], {}
        if kind != "json":
            shown = member.name.replace("#", "%23")
            place = f"{os.path.abspath(shard)}#{shown}@{member.offset_data}+{member.size}"
            found["picture"] = PREFIX + place
        elif member.size <= _LONGEST_JSON and (stream := archive.extractfile(member)):
            found["json"] = stream.read()
    if stem:
        yield _sample(shard, stem, found)


def _sample(shard: str, stem: str, found: Mapping[str, Any]) -> tuple[str, str, bytes]:
    name = f"{shard}: {shorten(stem)}"
    for kind in ("picture", "json"):
        if kind not in found:
            raise DataError(
                f"{name} has no {kind} file, expected one picture ({', '.join(_PICTURES)}) and one "
                "JSON file of one name, behind each other: write the shard again."
            )
    return name, found["picture"], found["json"]


class _PicturesInTars(PathHandler):
    """Opens a picture by its address in a tar file."""

    def _get_supported_prefixes(self) -> list[str]:
        return [PREFIX]

    def _open(self, path: str, mode: str = "r", buffering: int = -1, **_: Any) -> Any:
        address = _ADDRESS.fullmatch(path)
        if address is None or mode != "rb":
            raise ValueError(f"{path} is no address of a picture in a tar file, to be read")
        shard, offset, size = address.groups()
        if not os.path.isfile(shard):
            raise FileNotFoundError(errno.ENOENT, "no regular file", shard)
        with open(shard, "rb") as file:
            file.seek(int(offset))
            # `read` takes the memory that it is asked for, though the file be shorter.
            return io.BytesIO(file.read(min(int(size), os.fstat(file.fileno()).st_size)))


PathManager.register_handler(_PicturesInTars())
