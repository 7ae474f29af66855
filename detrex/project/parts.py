"""Labelled pictures on their way to COCO's format: what a reader of a format gives, and finds."""

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from detrex.data.coco.document import Document
from detrex.data.picture_files import PICTURE_SUFFIXES, files_below, shown
from detrex.errors import DataError

CONFIG = "config.py"
"""The config in a project's folder."""
SIGN = "written by `detrex init`"
"""What its first line says."""

_SPLITS = {
    **dict.fromkeys(("train", "training", "trn"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}


@dataclass
class Part:
    """The pictures of training or of validation.

    Attributes:
        image_root: the folder that file names are relative to.
        json_file: annotations in COCO's format that are there; None where they are to be written.
        content: what is to be written; None where it is there.
        source: what the user named, for messages.
        document: what was read from ``json_file``, to be checked once.
    """

    image_root: Path
    json_file: Path | None = None
    content: dict[str, Any] | None = None
    source: str = ""
    document: Document | None = None


@dataclass
class Data:
    """What was found in a folder or file.

    Attributes:
        form: ``"coco"``, ``"yolo"`` or ``"voc"``.
        parts: by ``"train"``, ``"val"`` and ``"test"``, those that there are.
        notes: what the user should know, one line each.
    """

    form: str
    parts: dict[str, Part]
    notes: list[str] = field(default_factory=list)


@dataclass
class Labels:
    """Pictures with their objects, gathered for one `Part`.

    Attributes:
        images: COCO's entries, with absolute paths as ``file_name``.
        annotations: COCO's entries; ``category_id`` is the class, from 0.
    """

    images: list[dict[str, Any]] = field(default_factory=list)
    annotations: list[dict[str, Any]] = field(default_factory=list)

    def add(self, picture: Path, size: tuple[int, int], objects: Iterable[dict[str, Any]]) -> None:
        """Add a picture.

        Args:
            picture: its absolute path.
            size: width and height in pixels.
            objects: of each ``category_id`` and ``bbox``, and further entries of COCO's.
        """
        number = len(self.images) + 1
        width, height = size
        self.images.append(
            {"id": number, "file_name": str(picture), "width": width, "height": height}
        )
        for entry in objects:
            filled = {"area": _area(entry), "iscrowd": 0, **entry}
            self.annotations.append({"id": len(self.annotations) + 1, "image_id": number, **filled})

    def part(self, names: Sequence[str], source: Path) -> Part:
        """Give what is to be written, with paths from the folder that holds all pictures.

        Args:
            names: of the classes.
            source: what the user named.
        """
        folders = {os.path.dirname(image["file_name"]) for image in self.images}
        root = Path(os.path.commonpath(folders))
        for image in self.images:
            image["file_name"] = Path(image["file_name"]).relative_to(root).as_posix()
        content = {
            "images": self.images,
            "annotations": self.annotations,
            "categories": [{"id": place, "name": name} for place, name in enumerate(names)],
        }
        return Part(root, content=content, source=str(source))


def _area(entry: dict[str, Any]) -> float:
    """Area of an object's outlines, or of its box where it has none, in square pixels."""
    outlines = [np.array(o).reshape(-1, 2) for o in entry.get("segmentation", ())]
    if not outlines:
        return float(np.prod(entry["bbox"][2:]))
    return sum(abs(float(_cross(o, np.roll(o, -1, axis=0)).sum())) / 2 for o in outlines)


def _cross(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]


def is_picture(path: Path) -> bool:
    """Tell a picture by its name; those of hidden files are none."""
    return path.suffix.lower() in PICTURE_SUFFIXES and not path.name.startswith(".")


def pictures_below(folder: Path) -> list[Path]:
    """List the pictures in a folder and in those below it, links to folders among them.

    Args:
        folder: an existing folder.

    Returns:
        Absolute paths in the order of their names.
    """
    found = filter(is_picture, files_below(folder, is_project))  # in which drawn ones may lie
    return sorted(Path(os.path.abspath(path)) for path in found)


def is_project(folder: Path) -> bool:
    """Tell whether ``detrex init`` made a folder.

    Args:
        folder: one that may be there.
    """
    try:
        with (folder / CONFIG).open(encoding="utf-8", errors="replace") as stream:
            return SIGN in stream.readline()
    except OSError:
        return False


def some_below(folder: Path, most: int = 1000) -> list[Path]:
    """List pictures from all over a folder, as many as tell what format it is in.

    Args:
        folder: an existing folder.
        most: about how many.
    """
    pictures = pictures_below(folder)
    return pictures[:: max(1, len(pictures) // most)]


def split_of(path: Path | str) -> str:
    """Tell from the words of a path whether it is for ``"train"``, ``"val"`` or ``"test"``.

    Args:
        path: relative to the data's folder.

    Returns:
        The split, empty where no word says it.
    """
    words = re.split(r"[^a-z]+", str(path).lower())
    return next((_SPLITS[word] for word in words if word in _SPLITS), "")


def by_split(pictures: Iterable[Path], folder: Path) -> dict[str, list[Path]]:
    """Sort pictures by the folders that they are in.

    Args:
        pictures: absolute paths.
        folder: whose sub-folders are called ``train``, ``val``, ``test`` and the like.

    Returns:
        Pictures by split; what is in no such folder is for training.
    """
    root = Path(os.path.abspath(folder))
    splits: dict[str, list[Path]] = {}
    for picture in pictures:
        inside = [name for name in picture.parent.relative_to(root).parts if split_of(name)]
        splits.setdefault(split_of(inside[0]) if inside else "train", []).append(picture)
    return splits


def label_file(picture: Path, suffix: str, folders: Sequence[str]) -> Path | None:
    """Find the file that labels a picture.

    Args:
        picture: its absolute path.
        suffix: of the label file, in lower case; one in capitals is found, too.
        folders: names of folders for labels, such as ``"labels"``; they may lie beside the folder
            of the pictures, with or without one of its name inside, or in the place of an
            ``images`` folder further up.

    Returns:
        The file, None where there is none.
    """
    name = picture.stem + suffix
    parts = picture.parent.parts
    candidates = [picture.with_name(name)]
    for place in reversed(range(1, len(parts))):
        if parts[place].lower() in ("images", "jpegimages"):
            candidates += [Path(*parts[:place], f, *parts[place + 1 :], name) for f in folders]
            break
    candidates += [picture.parent / folder / name for folder in folders]
    above, part = picture.parent.parent, picture.parent.name
    candidates += [above / folder / part / name for folder in folders]
    candidates += [above / folder / name for folder in folders]
    candidates += [candidate.with_suffix(suffix.upper()) for candidate in candidates]
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def refuse_shared_labels(labelled: dict[Path, Path | None]) -> None:
    """Refuse pictures that differ in their suffix alone, so that one file would label both.

    Args:
        labelled: label files by picture.

    Raises:
        DataError: two pictures have one label file.
    """
    owner: dict[Path, Path] = {}
    for picture, file in labelled.items():
        if file is not None and owner.setdefault(file, picture) != picture:
            raise DataError(
                f"{shown(owner[file])} and {shown(picture.name)} have one label file, "
                f"{shown(file.name)}: rename one of them and give it a file of its own."
            )


def read_text(file: Path) -> str:
    """Read a text file, in UTF-8 with or without its mark.

    Args:
        file: an existing file.

    Raises:
        DataError: it cannot be read, or is in another encoding.
    """
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{shown(file)} is no text in UTF-8 (byte {error.start}): save it as UTF-8."
        ) from None
    except OSError as error:
        raise DataError(f"{shown(file)} cannot be read: {error.strerror or error}.") from None
