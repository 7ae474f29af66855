"""Opening a picture's file: what it must be, how large it may be, and what is said of any other.

The header alone is read here, before memory is taken for pixels.
"""

import functools
import io
import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from detectron2.utils.file_io import PathManager
from PIL import EpsImagePlugin, Image, ImageFile, UnidentifiedImageError

from detrex.errors import ConfigError, PictureError, first_line
from detrex.files import foreign_kind

logger = logging.getLogger(__name__)

MAX_PIXELS = "DETREX_MAX_PIXELS"
"""The environment variable for the most pixels of a picture, 178,956,970 by default."""

PICTURE_SUFFIXES = frozenset(
    (
        *(".avif", ".bmp", ".gif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".mpo", ".pgm"),
        *(".png", ".ppm", ".tif", ".tiff", ".webp"),
    )
)
"""How the names of the pictures end that are found in folders, in lower case."""

# PostScript and the like are left out: reading them starts another program.
_FORMATS = (
    *("AVIF", "BMP", "DIB", "GIF", "JPEG", "JPEG2000", "MPO", "PCX", "PNG", "PPM", "QOI", "SGI"),
    *("TGA", "TIFF", "WEBP"),
)
_SCANS, _START_OF_SCAN = 100, b"\xff\xda"
_LONGEST_PPM_HEADER = 4096


@contextmanager
def opened(
    path: str | os.PathLike[str], data: bytes | None = None
) -> Iterator[ImageFile.ImageFile]:
    """Open a picture of a format that is read; whatever goes wrong names the file.

    Args:
        path: of the file, or an address that detectron2's ``PathManager`` knows.
        data: what the file holds, where that is in memory and ``path`` a name for it alone.

    Yields:
        The picture, of which only the header is read. What its reader raises later is told, too.

    Raises:
        PictureError: the file is missing, damaged, no regular file, no picture, or has too many
            pixels.
    """
    if data is None:
        require_file(path)
    try:
        limit = max_pixels()
        with _stream(path, data) as stream:
            _check_header(stream)
            image = Image.open(stream, formats=_formats())
            if image.width * image.height > limit:
                raise Image.DecompressionBombError(f"{image.width} x {image.height}")
            _check_scans(image, stream)
            yield image
    except (PictureError, ConfigError):
        raise
    except Exception as error:  # Pillow's readers raise whatever a damaged file leads to
        raise PictureError(f"{shown(path)} {_reason(error, path, data)}") from error


def _stream(path: str | os.PathLike[str], data: bytes | None) -> IO[bytes]:
    stream: IO[bytes] = (
        PathManager.open(os.fspath(path), "rb") if data is None else io.BytesIO(data)
    )
    return stream


def require_file(path: str | os.PathLike[str]) -> None:
    """Refuse what cannot be a picture, such as a named pipe, for which a reader would wait.

    Args:
        path: of the file; an address, and what does not exist, are left to the reader.

    Raises:
        PictureError: it is there, and no regular file; or no file can have this name.
    """
    try:
        name = os.fsencode(path)
    except UnicodeEncodeError:
        name = b"\0"
    if b"\0" in name:
        raise PictureError(f"{shown(path)} is no name that a file can have: correct the path.")
    if os.path.exists(path) and not os.path.isfile(path):
        kind = "a folder" if os.path.isdir(path) else "no regular file"
        raise PictureError(f"{shown(path)} is {kind}, expected a picture: name a file.")


def files_below(
    folder: str | os.PathLike[str], left_out: Callable[[Path], bool] = lambda _: False
) -> Iterator[Path]:
    """Go through the files in a folder and in those below it, links to folders among them.

    Args:
        folder: an existing folder.
        left_out: tells folders that are not entered, beside hidden ones.

    Yields:
        Each file once, under ``folder``, but for hidden ones. A folder that cannot be read is
        left out with a warning.
    """
    seen: set[str] = set()
    for place, folders, files in os.walk(folder, onerror=_warn, followlinks=True):
        real = os.path.realpath(place)
        folders[:] = sorted(
            name for name in folders if name[0] != "." and not left_out(Path(place, name))
        )
        if real in seen:  # a link in a circle
            folders.clear()
            continue
        seen.add(real)
        yield from (Path(place, name) for name in sorted(files) if name[0] != ".")


def _warn(error: OSError) -> None:
    reason = error.strerror or error
    logger.warning("%s cannot be read (%s): its files are left out.", error.filename, reason)


def max_pixels() -> int:
    """Give the most pixels that a picture may have, and let Pillow know.

    Returns:
        ``$DETREX_MAX_PIXELS``, or what Pillow refuses by itself.

    Raises:
        ConfigError: the variable is no whole number above 0.
    """
    text = os.environ.get(MAX_PIXELS, "")
    if not text:
        return 2 * (Image.MAX_IMAGE_PIXELS or 1 << 62)
    if not (text.isascii() and text.isdigit() and len(text) < 19 and int(text)):
        raise ConfigError(
            f"{MAX_PIXELS}={text[:50]!r} is no number of pixels: expected one such as 500000000."
        )
    Image.MAX_IMAGE_PIXELS = int(text)  # it warns from there, and refuses twice as many
    return int(text)


def without_ghostscript() -> None:
    """Keep Pillow from starting Ghostscript in this process, whoever opens a PostScript file."""
    EpsImagePlugin.gs_binary = False


def shown(path: str | os.PathLike[str]) -> str:
    """Write a path for a message: on one line, and of a long one the end."""
    text = os.fsdecode(path)
    text = text if text.isprintable() else repr(text)
    return text if len(text) <= 200 else f"...{text[-200:]}"


@functools.cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _check_header(stream: IO[bytes]) -> None:
    """Refuse a PPM whose comments are long: Pillow reads them byte by byte."""
    head = stream.read(_LONGEST_PPM_HEADER)
    stream.seek(0)
    numbers = 2 if head[1:2] in (b"1", b"4") else 3
    whole = rb"P\S*(?:(?:\s|#[^\n\r]*[\n\r])+[^\s#]+){%d}" % numbers
    if head[:1] == b"P" and len(head) == _LONGEST_PPM_HEADER and not re.match(whole, head):
        raise ValueError(f"it has a header of more than {_LONGEST_PPM_HEADER} bytes")


def _check_scans(image: ImageFile.ImageFile, stream: IO[bytes]) -> None:
    """Refuse a progressive JPEG that is passed over again and again: each pass takes time."""
    if image.format not in ("JPEG", "MPO") or not image.info.get("progressive"):
        return
    place = stream.tell()
    stream.seek(0)
    scans = stream.read().count(_START_OF_SCAN)
    stream.seek(place)
    if scans > _SCANS:
        raise ValueError(f"it has {scans} scans, more than {_SCANS}")


def _reason(error: Exception, path: str | os.PathLike[str], data: bytes | None) -> str:
    """Say what is wrong with a file that could not be read, and what to do."""
    cure = ": copy it again or leave it out."
    if isinstance(error, FileNotFoundError):
        return "does not exist: correct the path."
    if isinstance(error, PermissionError):
        return "may not be read (permission denied): change its mode."
    if isinstance(error, Image.DecompressionBombError):
        return (
            f"has too many pixels ({first_line(error).rstrip('.')}): cut it into tiles, or, where "
            f"you trust the file, raise the limit of {max_pixels()} by the environment variable "
            f"{MAX_PIXELS}."
        )
    if isinstance(error, MemoryError):
        return "does not fit into memory: cut it into tiles."
    if isinstance(error, UnidentifiedImageError):
        return (
            f"is no picture{_disguise(path, data)}, expected one of {', '.join(_formats())}{cure}"
        )
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be opened ({error.strerror}): correct the path, or leave it out."
    return f"is truncated or damaged ({first_line(error).rstrip('.')}){cure}"


def _disguise(path: str | os.PathLike[str], data: bytes | None) -> str:
    """Say in brackets what a file is that is no picture, where that is easily seen."""
    with _stream(path, data) as stream:
        head = stream.read(64)
    kind = foreign_kind(head)
    if head.startswith(b"%!PS"):
        kind = "it is PostScript, which is not read"
    return f" ({kind})" if kind else ""
