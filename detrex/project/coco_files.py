"""Folders with annotations in COCO's format: which file is for what, and where its pictures are."""

import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from detrex.data.coco.document import Document
from detrex.data.coco.reading import read_document
from detrex.data.picture_files import shown
from detrex.errors import DataError
from detrex.project.parts import Data, Part, is_project, split_of

_HEAD = re.compile(r'^\s*\{.*?"(images|annotations|categories|info|licenses)"\s*:', re.DOTALL)
_LISTS = re.compile(r'"(images|annotations)"\s*:')  # lists of classes may be beside other labels
_HEAD_BYTES = 4096
_TRIED_NAMES = 200
_FOLDERS = ("images", "train", "val", "valid", "test", "data")


def is_coco(path: Path) -> bool:
    """Tell whether a folder or file holds annotations in COCO's format.

    Args:
        path: an existing folder or file.
    """
    return path.suffix.lower() == ".json" if path.is_file() else bool(_json_files(path))


def read_coco(path: Path, images: Path | None = None) -> Data:
    """Find the files of a data set; they are checked later.

    Args:
        path: a JSON file, or a folder with some, for training and validation or for one of them.
        images: the folder of the pictures; by default it is searched for.

    Returns:
        The files.

    Raises:
        DataError: it is not clear which file is meant, or the pictures are not found.
    """
    files = [path] if path.is_file() else _json_files(path)
    if not files:
        raise DataError(
            f"{shown(path)} holds no annotations in COCO's format: expected JSON files there, in "
            "`annotations`, or one in each of `train` and `val`."
        )
    splits: dict[str, list[Path]] = {}
    for file in files:
        said = split_of(file.relative_to(path)) if path.is_dir() else ""
        splits.setdefault(said or "train", []).append(file)
    notes = []
    if "test" in splits and "val" in splits:
        notes = [f"{shown(file)}, for testing, is left alone" for file in splits.pop("test")]
    chosen = {split: _one_of(split, candidates) for split, candidates in splits.items()}
    root = path.parent if path.is_file() else path
    parts = {}
    for split, file in chosen.items():
        absolute, document = Path(os.path.abspath(file)), read_document(file)
        document.path = str(absolute)
        parts[split] = Part(
            _image_root(file, document, root, images),
            json_file=absolute,
            source=str(absolute),
            document=document,
        )
    return Data("coco", parts, notes)


def _json_files(folder: Path) -> list[Path]:
    """JSON files that begin as COCO's do, in a folder and those below it."""
    pattern = "*.[jJ][sS][oO][nN]"
    files = [file for above in ("", "*/", "*/*/") for file in folder.glob(above + pattern)]
    found = [file for file in files if file.is_file() and _is_alike(file)]
    # A project in the data's folder has annotations of its own.
    above = {file: [p for p in file.parents if folder in p.parents] for file in found}
    return sorted(file for file in found if not any(map(is_project, above[file])))


def _is_alike(file: Path) -> bool:
    try:
        with file.open("rb") as stream:
            head = stream.read(_HEAD_BYTES)
            encoding = json.detect_encoding(head)
            text = head.decode(encoding, "ignore")
            if _HEAD.match(text) and not _LISTS.search(text):
                text += stream.read().decode(encoding.removesuffix("-sig"), "ignore")
    except OSError:
        return False
    return bool(_HEAD.match(text) and _LISTS.search(text))


def _one_of(split: str, files: Sequence[Path]) -> Path:
    """The file with objects, of several that COCO's own annotations have for a split."""
    named = [file for file in files if file.name.startswith("instances")]
    for candidates in (files, named):
        if len(candidates) == 1:
            return candidates[0]
    listed = ", ".join(shown(file) for file in files[:3])
    raise DataError(
        f"{len(files)} files could hold the annotations for {split} ({listed}): name the one that "
        "is meant by --data, and that for validation by --val."
    )


def _image_root(file: Path, document: Document, root: Path, images: Path | None) -> Path:
    """The folder in which most of the pictures are that a file names."""
    names = document.column("images", "file_name")
    texts = [name for name in names if isinstance(name, str) and name][:_TRIED_NAMES]
    candidates = [images] if images else list(dict.fromkeys(_candidates(file, root)))
    found = [sum(_is_there(folder, name) for name in texts) for folder in candidates]
    best = max(found, default=0)
    if best == 0 and texts:
        places = ", ".join(shown(folder) for folder in candidates[:3])
        cure = "name the folder from which the names lead to them by --images"
        raise DataError(
            f"{shown(file)} names pictures such as {shown(texts[0])}, which are not in {places}: "
            f"{'correct the names, or ' if images else ''}{cure}."
        )
    return Path(os.path.abspath(candidates[found.index(best)]))


def _is_there(folder: Path, name: str) -> bool:
    try:
        return (folder / name).is_file() or (folder / name.replace("\\", "/")).is_file()
    except (OSError, ValueError):  # no name that a file can have
        return False


def _candidates(file: Path, root: Path) -> Iterator[Path]:
    """Folders in which people keep the pictures of a file, the likeliest first."""
    words = re.findall(r"[a-z]+\d*", file.stem.lower())
    kinds = [word for word in words if split_of(word) or word == "default"]  # CVAT's only part
    for base in (file.parent, file.parent.parent, root):
        yield base
        for kind in (*kinds, *(re.sub(r"\d+", "", kind) for kind in kinds)):
            yield from (base / kind, base / kind / "images", base / "images" / kind)
        yield base / file.stem
        yield base / "images"
    for base in (file.parent, file.parent.parent, root):
        yield from (base / name for name in _FOLDERS)
        yield from (base / name / "images" for name in _FOLDERS)
