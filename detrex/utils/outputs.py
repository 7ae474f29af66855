"""Where a program's drawn pictures go: never over an input, nor over any other file of the user's.

A drawn picture carries a mark in its EXIF, and a video one at its end that players pass over, so
that the next run can replace it and nothing else.
"""

import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from detrex.errors import ConfigError, PictureError
from detrex.files import writing_to

DRAWN = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp")
"""How the names of drawn pictures end, in lower case: of the formats that carry the mark."""

_EXIF_SOFTWARE = 0x0131
_MARK = "drawn by detrex"
# What may stand at the end of a file and says nothing: an atom of MP4's, a chunk of AVI's.
_VIDEO_MARKS = {
    ".avi": b"JUNK" + (len(_MARK) + 1).to_bytes(4, "little") + _MARK.encode() + b"\0",
    **dict.fromkeys(
        (".mp4", ".m4v", ".mov"), (len(_MARK) + 8).to_bytes(4, "big") + b"free" + _MARK.encode()
    ),
}
_MOST_NAMED = 5
_LONGEST = 420  # characters of the reasons in one message


def plan_outputs(
    sources: Sequence[str | os.PathLike[str]],
    folder: str | os.PathLike[str],
    suffix: str | None = None,
) -> list[Path]:
    """Give each source picture a file of its own under a folder.

    The folders below the nearest one that all sources share are kept, so that ``a/x.png`` and
    ``b/x.png`` stay two.

    Args:
        sources: the pictures that are read, each once.
        folder: where drawn pictures go.
        suffix: the ending of all outputs, such as ``".png"``; None to keep each source's own where
            it can carry the mark, and to put ``.png`` after the others.

    Returns:
        A file for each source, no two alike even where case does not count.

    Raises:
        ConfigError: one of them is a source, or another file that was not drawn by this module.
    """
    absolute = [Path(os.path.abspath(source)) for source in sources]
    if not absolute:
        return []
    shared = os.path.commonpath([path.parent for path in absolute])
    taken: set[str] = set()
    targets = []
    for path in absolute:
        relative = path.relative_to(shared)
        target = next(name for name in _names(relative, suffix) if str(name).lower() not in taken)
        taken.add(str(target).lower())
        targets.append(Path(folder) / target)
    refuse_to_replace(targets, sources)
    return targets


def refuse_to_replace(
    targets: Iterable[str | os.PathLike[str]], sources: Iterable[str | os.PathLike[str]] = ()
) -> None:
    """Check that no file of the user's would be written over.

    Args:
        targets: files to be written.
        sources: files that are read; a link to one of them is found out too.

    Raises:
        ConfigError: a target is one of the sources, or exists and was not drawn by this module.
    """
    inputs = {_identity(source) for source in sources} - {None}
    for target in map(Path, targets):
        if _identity(target) is None:
            continue
        if _identity(target) in inputs:
            raise ConfigError(
                f"{target} is one of the input files and would be written over: name another "
                f"folder than {target.parent} for the output."
            )
        if not _is_drawn(target):
            raise ConfigError(
                f"{target} exists and was not drawn by this program, so it is not written over: "
                "name another output, or remove the file."
            )


def make_folder(folder: str | os.PathLike[str], option: str) -> Path:
    """Make the folder that pictures go to, and try whether it can be written to.

    Args:
        folder: the folder; its parents are made too.
        option: what the user gave it to, for the error.

    Returns:
        Its path.

    Raises:
        ConfigError: it cannot be made or written to.
    """
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise ConfigError(
            f"{option} {path} cannot be a folder to write to ({error.strerror}): name another."
        ) from error
    return path


def save_drawn(picture: np.ndarray, target: Path) -> None:
    """Write a drawn picture with its mark; the folder is made where need be.

    Args:
        picture: uint8 ``(H, W, 3)``, RGB.
        target: the file, whose ending tells the format.

    Raises:
        ConfigError: the file was not drawn by this module, or cannot be written.
    """
    refuse_to_replace([target])
    exif = Image.Exif()
    exif[_EXIF_SOFTWARE] = _MARK
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(target, exif=exif)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{target} cannot be written ({reason}): name another output.") from error


def mark_video(path: Path) -> None:
    """Mark a video as drawn, where its kind has a place for it: MP4, QuickTime's and AVI.

    Args:
        path: a whole file, which gets some bytes at its end.

    Raises:
        ConfigError: it cannot be written to.
    """
    if mark := _VIDEO_MARKS.get(path.suffix.lower()):
        with writing_to(path, "name another output.", ConfigError), path.open("ab") as stream:
            stream.write(mark)


class Failures:
    """The pictures that a program could not draw, while it goes on with the others.

    Attributes:
        reasons: a sentence for each, with its file.
        total: how many pictures were tried.
    """

    def __init__(self) -> None:
        self.reasons: list[str] = []
        self.total = 0

    def attempt(self, draw: Callable[..., Any], *args: Any) -> bool:
        """Draw one picture.

        Args:
            draw: called with ``args``.
            args: its arguments.

        Returns:
            Whether the picture could be read and drawn.
        """
        self.total += 1
        try:
            draw(*args)
        except PictureError as error:
            self.reasons.append(str(error))
            return False
        return True

    def note(self, error: PictureError) -> None:
        """Count a picture that failed elsewhere."""
        self.total += 1
        self.reasons.append(str(error))

    def sentence(self) -> str:
        """Say how many pictures failed, and of the first few why; empty where none did."""
        if not self.reasons:
            return ""
        named = [reason.rstrip(".") for reason in self.reasons[:_MOST_NAMED]]
        while len(named) > 1 and len("; ".join(named)) > _LONGEST:
            named.pop()
        rest = len(self.reasons) - len(named)
        more = [f"and {rest} more"] if rest > 0 else []
        return (
            f"{len(self.reasons)} of {self.total} pictures could not be drawn: "
            f"{'; '.join(named + more)}."
        )

    def end(self) -> None:
        """End the program with status 1 where there was a failure.

        Raises:
            SystemExit: with `sentence`.
        """
        if self.reasons:
            raise SystemExit(self.sentence())


def _names(relative: Path, suffix: str | None) -> Iterable[Path]:
    """Names for an output, the plainest first and without end."""
    own = relative.suffix.lower() in DRAWN
    ending = suffix or (relative.suffix if own else ".png")
    yield relative.with_suffix(ending) if suffix or own else Path(f"{relative}{ending}")
    yield Path(f"{relative}{ending}")
    number = 2
    while True:
        yield relative.with_name(f"{relative.stem}-{number}{ending}")
        number += 1


def _identity(path: str | os.PathLike[str]) -> tuple[int, int] | None:
    """What two names of one file share; None for a name that no file has."""
    try:
        stat = os.stat(path)
    except (OSError, ValueError):
        return None
    return stat.st_dev, stat.st_ino


def _is_drawn(path: Path) -> bool:
    if not path.is_file():
        return False
    if mark := _VIDEO_MARKS.get(path.suffix.lower()):
        with path.open("rb") as stream:
            stream.seek(max(path.stat().st_size - len(mark), 0))
            return stream.read() == mark
    try:
        with Image.open(path, formats=("JPEG", "PNG", "TIFF", "WEBP")) as picture:
            return picture.getexif().get(_EXIF_SOFTWARE) == _MARK
    except Exception:  # whatever else it is, it is the user's
        return False
