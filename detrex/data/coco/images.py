"""Images: sizes that are numbers of pixels, and pictures that are on the disk."""

import os
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Literal

from detrex.data.coco.document import Document, is_writable, listed, shorten
from detrex.data.picture_files import MAX_PIXELS, max_pixels


def check_sizes(document: Document) -> None:
    """Check that widths and heights are integers above 0; numbers written otherwise are read.

    Args:
        document: ``images`` are mended in place.
    """
    for key in ("width", "height"):
        values = document.column("images", key)
        if set(map(type, values)) == {int} and min(values) > 0:
            continue
        pixels = [_as_pixels(value) for value in values]
        document.report(
            *("error", f"image-{key}", "images"),
            [i for i, number in enumerate(pixels) if number is None],
            f"{key} is no number of pixels",
            "write the picture's",
            ["id", "width", "height"],
        )
        document.write_integers(f"image-{key}-text", "images", document.images, key, values, pixels)
    limit = max_pixels()
    sides = [(image.get("width"), image.get("height")) for image in document.images]
    document.report(
        *("error", "image-too-large", "images"),
        [i for i, (w, h) in enumerate(sides) if type(w) is type(h) is int and w * h > limit],
        f"width times height is more than {limit}, and no such picture is read",
        f"write the picture's, or raise the limit by the environment variable {MAX_PIXELS}",
        ["width", "height"],
    )


def _as_pixels(value: Any) -> int | None:
    try:
        number = float(value) if type(value) in (int, float, str) else 0.0
        return int(number) if number >= 1 and number == int(number) else None
    except (ValueError, OverflowError):
        return None


def check_pictures(
    document: Document, image_root: str, severity: Literal["error", "warning"] = "error"
) -> None:
    """Find the images whose picture is not on the disk, all at once.

    A backslash in a file name is read as a slash where that leads to a picture.

    Args:
        document: ``images`` are mended in place.
        image_root: the folder that file names are relative to.
        severity: of pictures that are missing.
    """
    names = document.column("images", "file_name")
    unnamed = [i for i, name in enumerate(names) if type(name) is not str or not name.strip()]
    document.report(
        *("error", "image-without-file", "images"),
        unnamed,
        "file_name is missing or no text",
        "write the picture's",
        ["file_name"],
    )
    texts = set(range(len(names))) - set(unnamed)
    impossible = [i for i in sorted(texts) if _is_no_name(names[i])]
    document.report(
        *("error", "image-name", "images"),
        impossible,
        "file_name is an address, or no name that a file can have",
        "fetch the picture, and write its path",
        ["file_name"],
    )
    named = sorted(texts - set(impossible))
    _report_shared_pictures(document, named)
    if "://" in image_root:
        return  # not on this disk; detectron2 fetches it
    missing = _missing(named, {i: os.path.join(image_root, names[i]) for i in named})
    slashed = {i: names[i].replace("\\", "/") for i in missing if "\\" in names[i]}
    absent = _missing(list(slashed), {i: os.path.join(image_root, n) for i, n in slashed.items()})
    mended = sorted(set(slashed) - set(absent))
    document.report(
        *("warning", "backslash", "images"),
        mended,
        "file_name has backslashes",
        "they were read as slashes",
        ["file_name"],
    )
    for position in mended:
        document.images[position]["file_name"] = slashed[position]
    _report_missing(document, image_root, sorted(set(missing) - set(mended)), severity)


def _is_no_name(name: str) -> bool:
    """Whether it is an address, which a reader would fetch, or nothing that a system takes."""
    return "\0" in name or "://" in name or not is_writable(name)


def _report_shared_pictures(document: Document, named: Sequence[int]) -> None:
    names = [document.images[i]["file_name"] for i in named]
    if len(set(names)) == len(names):
        return
    first: dict[str, int] = {}
    again = [i for i, name in zip(named, names, strict=True) if first.setdefault(name, i) != i]
    document.report(
        *("warning", "picture-twice", "images"),
        again,
        "the picture is that of another image, too",
        "both are used",
        ["file_name"],
    )


def _report_missing(
    document: Document, image_root: str, missing: list[int], severity: Literal["error", "warning"]
) -> None:
    if not missing:
        return
    names = [document.images[i]["file_name"] for i in missing]
    document.tell(
        severity,
        "picture-missing",
        f"{len(missing)} of {len(document.images)} pictures are not there ({listed(names)})",
        f"looked for in {image_root}{_hint(image_root, names[0])}; correct image_root or file_name",
        len(missing),
        document.name_of("images", missing[0]),
    )


def _missing(positions: Sequence[int], paths: dict[int, str]) -> list[int]:
    """The positions whose path is no file; listing each folder once is faster than asking."""
    folders = defaultdict(list)
    for position in positions:
        folder, name = os.path.split(paths[position])
        folders[folder].append((position, name))
    missing = []
    for folder, files in folders.items():
        present = _files_in(folder)
        missing += [position for position, name in files if name not in present]
    return sorted(missing)


def _files_in(folder: str) -> set[str]:
    try:
        with os.scandir(folder or ".") as entries:
            return {entry.name for entry in entries if _is_file(entry)}
    except (OSError, ValueError):
        return set()


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # a link to itself
        return False


def _hint(image_root: str, name: str) -> str:
    """Where a picture that is missing seems to be."""
    folder, base = os.path.split(os.path.join(image_root, name.replace("\\", "/")))
    alike = [file for file in _files_in(folder) if _folded(file) == _folded(base)]
    if alike:
        return f", where {shorten(min(alike))} is"
    if os.path.lexists(os.path.join(folder, base)):
        return f", where {shorten(base)} is no regular file"
    if os.path.isfile(os.path.join(image_root, base)):
        return f", where {shorten(base)} is without its folder"
    parent = os.path.dirname(os.path.abspath(image_root))
    if not os.path.isabs(name) and os.path.isfile(os.path.join(parent, name)):
        return f"; image_root={parent} would find the first"
    return ""


def _folded(name: str) -> str:
    """A name without the differences that other systems overlook."""
    return unicodedata.normalize("NFC", name).casefold()
