"""Folders in YOLO's format: a text file beside each picture, read through ``supervision``.

A line is a class from 0, then a box (middle, width, height) or an outline, as shares of the upright
picture. Names of classes are in ``data.yaml`` or ``classes.txt``.
"""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from detrex.data.picture_files import shown
from detrex.data.pictures import upright_size
from detrex.errors import DataError
from detrex.project.parts import (
    Data,
    Labels,
    by_split,
    is_picture,
    label_file,
    pictures_below,
    read_text,
    refuse_shared_labels,
    some_below,
    split_of,
)
from detrex.project.supervised import yolo_boxes

_YAML = (".yaml", ".yml")
_NAME_FILES = ("classes.txt", "obj.names", "classes.names", "_darknet.labels", "labels.txt")
_LABELS = ("labels", "Labels")
_OUTSIDE = 0.05
"""How far a share may be from 0..1: what is out of the picture by less is clipped later."""


@dataclass
class YoloFolder:
    """What is known of a data set before a label file is read.

    Attributes:
        path: what the user named.
        names: of the classes.
        splits: absolute paths of pictures, by ``"train"``, ``"val"`` and ``"test"``.
        keypoint_values: numbers that follow the box of an object with keypoints, 0 for none.
    """

    path: Path
    names: list[str]
    splits: dict[str, list[Path]]
    keypoint_values: int = 0


@dataclass
class _Counts:
    unlabelled: list[str] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    repeated: int = 0


def is_yolo(path: Path) -> bool:
    """Tell whether a folder or file is in YOLO's format.

    Args:
        path: an existing folder or file.
    """
    if path.is_file():
        return path.suffix.lower() in _YAML
    if _yaml_files(path) or _names_file(path) is not None:
        return True
    return any(label_file(picture, ".txt", _LABELS) for picture in some_below(path))


def read_yolo(path: Path, names: Sequence[str] = ()) -> Data:
    """Read a data set.

    Args:
        path: its folder, or its ``data.yaml``.
        names: of the classes, where the folder has none of its own.

    Returns:
        What is to be written in COCO's format.

    Raises:
        DataError: no names, no pictures, no label files, or a line that is none; with the file and
            the line.
        PictureError: a picture that cannot be read.
    """
    folder = find_yolo(path, names)
    counts = _Counts()
    notes = []
    if folder.splits.get("val") and folder.splits["val"] == folder.splits.get("train"):
        del folder.splits["val"]
        notes.append("train and val are the same pictures: those for validation are held back")
    parts = {}
    for split, pictures in folder.splits.items():
        if split == "test" and "val" in folder.splits:
            continue  # which is left alone, and told
        labels = _read_split(folder, pictures, counts)
        parts[split] = labels.part(folder.names, path)
    read = sum(len(part.content["images"]) for part in parts.values() if part.content)
    if len(counts.unlabelled) == read:
        raise DataError(
            f"{shown(path)} has {read} pictures and no label file for any, such as "
            f"{shown(Path(counts.unlabelled[0]).with_suffix('.txt').name)}: put them beside the "
            "pictures, or in `labels` beside `images`."
        )
    notes += _notes(counts, read)
    if "test" in folder.splits and "test" not in parts:
        notes.append(f"{len(folder.splits['test'])} pictures for testing are left alone")
    return Data("yolo", parts, notes)


def _notes(counts: _Counts, read: int) -> list[str]:
    notes = []
    if counts.unlabelled:
        notes.append(
            f"{len(counts.unlabelled)} of {read} pictures have no label file, such as "
            f"{shown(counts.unlabelled[0])}: they count as pictures without objects"
        )
    if counts.repeated:
        notes.append(f"{counts.repeated} lines are there twice in their label file: kept once")
    used, lists = set(counts.files), {"train.txt", "val.txt", "test.txt", *_NAME_FILES}
    stray = sorted(
        file
        for folder in {file.parent for file in used}
        for file in folder.glob("*.txt")
        if file not in used and file.name not in lists
    )
    if stray:
        notes.append(
            f"{len(stray)} text files beside the labels belong to no picture, such as "
            f"{shown(stray[0])}"
        )
    return notes


def find_yolo(path: Path, names: Sequence[str] = ()) -> YoloFolder:
    """Find the pictures and names of a data set.

    Args:
        path: as in `read_yolo`.
        names: as in `read_yolo`.

    Raises:
        DataError: there are no names or no pictures.
    """
    files = [path] if path.is_file() else _yaml_files(path)
    if len(files) > 1:
        raise DataError(
            f"{shown(path)} has several files that describe data "
            f"({', '.join(file.name for file in files[:4])}): name the one that is meant."
        )
    root = path.parent if path.is_file() else path
    described = _read_yaml(files[0]) if files else {}
    found = _names_of(files[0], described) if "names" in described else _names_in(root)
    known = list(found or names)
    if not known:
        raise DataError(
            f"{shown(path)} does not say what its classes are called: write their names into "
            "classes.txt there, one a line in the order of their numbers, or into data.yaml."
        )
    splits = {
        split: pictures
        for split, key in (("train", "train"), ("val", "val"), ("test", "test"))
        if (value := described.get(key) or (described.get("valid") if key == "val" else None))
        and (pictures := _named_pictures(files[0], described, key, value))
    }
    splits = splits or _listed_pictures(root) or by_split(pictures_below(root), root)
    if not any(splits.values()):
        raise DataError(f"{shown(path)} holds no pictures: correct the path.")
    return YoloFolder(path, known, splits, _keypoint_values(files, described))


def _yaml_files(folder: Path) -> list[Path]:
    """Files of a folder that describe data: those with the usual name, or all that name classes."""
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in _YAML and p.is_file())
    usual = [file for file in files if file.stem.lower() in ("data", "dataset")]
    return usual or [file for file in files if "names:" in read_text(file)]


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(read_text(file))
    except (yaml.YAMLError, RecursionError) as error:
        place = getattr(error, "problem_mark", None)
        line = f", line {place.line + 1}" if place else ""
        raise DataError(
            f"{shown(file)}{line}, is no YAML: correct it, or write it again."
        ) from None
    if not isinstance(content, dict):
        raise DataError(
            f"{shown(file)} holds no keys, expected names, train and val: correct the file."
        )
    return content


def _names_of(file: Path, described: dict[str, Any]) -> list[str]:
    """Names in the order of the classes; a mapping has to number them from 0 without a gap."""
    # As they are written: to YAML, `no` is a truth value and 007 a number.
    names = yaml.load(read_text(file), Loader=yaml.BaseLoader)["names"]
    if isinstance(names, dict):
        numbers = {str(key).strip(): name for key, name in names.items()}
        wanted = [str(number) for number in range(len(names))]
        if set(numbers) != set(wanted):
            raise DataError(
                f"{shown(file)} numbers its {len(names)} names {', '.join(list(numbers)[:5])}, "
                "expected 0, 1, 2, ... without a gap: give every class that the labels use a name."
            )
        names = [numbers[number] for number in wanted]
    if not isinstance(names, list) or not names:
        raise DataError(
            f"{shown(file)} has names={names!r:.60}, expected the names of the classes: list them."
        )
    count = described.get("nc")
    if count is not None and count != len(names):
        raise DataError(
            f"{shown(file)} has nc={count!r:.20}, but {len(names)} names: correct one of the two."
        )
    for place, name in enumerate(names):
        if not (isinstance(name, str) and name.strip()):
            raise DataError(
                f"{shown(file)} has {name!r:.40} for the name of class {place}, expected a text: "
                "write its name."
            )
    return [name.strip() for name in names]


def _names_file(root: Path) -> Path | None:
    folders = [root, *(root / name for name in (*_LABELS, "images", "train"))]
    return next((f for folder in folders for n in _NAME_FILES if (f := folder / n).is_file()), None)


def _names_in(root: Path) -> list[str]:
    file = _names_file(root)
    lines = read_text(file).splitlines() if file else []
    while lines and not lines[-1].strip():
        lines.pop()
    if file and not all(map(str.strip, lines)):
        empty = [bool(line.strip()) for line in lines].index(False) + 1
        raise DataError(
            f"{shown(file)}, line {empty}, is empty, expected the name of class {empty - 1}: "
            "write it, for classes are numbered by the lines."
        )
    return [line.strip() for line in lines]


def _keypoint_values(files: Sequence[Path], described: dict[str, Any]) -> int:
    shape = described.get("kpt_shape")
    if shape is None:
        return 0
    if not (isinstance(shape, list) and len(shape) == 2 and all(type(n) is int for n in shape)):
        raise DataError(
            f"{shown(files[0])} has kpt_shape={shape!r:.40}, expected the number of keypoints and "
            "2 or 3 values for each, such as [17, 3]: correct it, or take it out."
        )
    return int(shape[0]) * int(shape[1])


def _named_pictures(file: Path, described: dict[str, Any], key: str, value: Any) -> list[Path]:
    """Pictures that a YAML file names by a folder, a list of pictures, or several of these."""
    names = value if isinstance(value, list) else [value]
    pictures: list[Path] = []
    for name in names:
        if not isinstance(name, str):
            raise DataError(
                f"{shown(file)} has {key}={name!r:.60}, expected a folder of pictures: write it."
            )
        place = _resolved(file, described.get("path"), name)
        if place is None and key == "test":
            continue  # which is not needed
        if place is None:
            raise DataError(
                f"{shown(file)} names {name!r:.100} for {key}, which is not there, seen from "
                f"{shown(file.parent)}: correct the path or `path` in the file."
            )
        pictures += pictures_below(place) if place.is_dir() else _list_of_pictures(place)
    return list(dict.fromkeys(pictures))


def _resolved(file: Path, base: Any, name: str) -> Path | None:
    """Find what a YAML file names, also where it was written on another machine."""
    here = file.parent
    parts = [part for part in Path(name.replace("\\", "/")).parts if part not in ("..", ".", "/")]
    candidates = [here / str(base) / name] if base else []
    candidates += [here / name, here / Path(*parts)]
    candidates += [here / Path(*parts[-2:])]
    if parts and split_of(parts[-1]) == split_of(Path(*parts[-2:])):
        candidates.append(here / parts[-1])  # not the `images` of all splits for `val/images`
    return next((candidate for candidate in candidates if candidate.exists()), None)


def _listed_pictures(root: Path) -> dict[str, list[Path]]:
    """Pictures that ``train.txt`` and ``val.txt`` list, where there are such files."""
    files = {split: root / f"{split}.txt" for split in ("train", "val", "test")}
    splits = {split: file for split, file in files.items() if file.is_file()}
    if "train" not in splits or not any(
        is_picture(Path(line.strip())) for line in read_text(splits["train"]).splitlines()
    ):
        return {}
    return {split: _list_of_pictures(file) for split, file in splits.items()}


def _list_of_pictures(file: Path) -> list[Path]:
    if not file.suffix.lower() == ".txt":
        raise DataError(f"{shown(file)} is neither a folder nor a list of pictures (.txt).")
    pictures = []
    for number, line in enumerate(read_text(file).splitlines(), start=1):
        if not line.strip():
            continue
        picture = _found(file.parent, line.strip())
        if picture is None:
            raise DataError(
                f"{shown(file)}, line {number}, names {shown(line.strip())}, which is not there, "
                f"seen from {shown(file.parent)}: correct the path."
            )
        pictures.append(picture)
    return pictures


def _found(here: Path, name: str) -> Path | None:
    """Find a picture of a list, also where the list was written for another place."""
    parts = [part for part in Path(name.replace("\\", "/")).parts if part != ".."]
    candidates = [here / name, *(here / Path(*parts[n:]) for n in range(len(parts) - 1))]
    return next((Path(os.path.abspath(c)) for c in candidates if c.is_file()), None)


def _read_split(folder: YoloFolder, pictures: Sequence[Path], counts: _Counts) -> Labels:
    labelled = {picture: label_file(picture, ".txt", _LABELS) for picture in pictures}
    labelled = {p: None if f and f.name in _NAME_FILES else f for p, f in labelled.items()}
    refuse_shared_labels(labelled)
    counts.unlabelled += [str(picture) for picture, file in labelled.items() if file is None]
    counts.files += filter(None, labelled.values())
    labels = Labels()
    for picture, file in labelled.items():
        size = upright_size(picture)
        labels.add(picture, size, _objects(folder, file, size, counts) if file else ())
    return labels


def _objects(
    folder: YoloFolder, file: Path, size: tuple[int, int], counts: _Counts
) -> list[dict[str, Any]]:
    """Read a label file into COCO's entries."""
    numbered = [
        (number, line.split())
        for number, line in enumerate(read_text(file).splitlines(), start=1)
        if line.strip()
    ]
    once: dict[tuple[str, ...], list[str]] = {}
    for number, values in numbered:
        once.setdefault(tuple(values), _checked(folder, f"{shown(file)}, line {number}", values))
    counts.repeated += len(numbered) - len(once)
    lines = list(once.values())
    boxes, classes = yolo_boxes([" ".join(line) for line in lines], size, file)
    objects = []
    for box, number, line in zip(boxes, classes, lines, strict=True):
        x0, y0, x1, y1 = box
        entry: dict[str, Any] = {"category_id": number, "bbox": [x0, y0, x1 - x0, y1 - y0]}
        if len(line) > 5:  # supervision makes pixels of an outline; its corners say more
            entry["segmentation"] = [
                [float(v) * size[i % 2] for i, v in enumerate(line[1:])],
            ]
        objects.append(entry)
    return objects


def _checked(folder: YoloFolder, place: str, values: list[str]) -> list[str]:
    """Check a line, and give the class and the box or outline in it."""
    if len(values) in (6, 5 + folder.keypoint_values):  # a score or keypoints behind a box
        values = values[:5]
    if len(values) < 5 or len(values) % 2 == 0:
        raise DataError(
            f"{place}, has {len(values)} values, expected a class and either x, y, width, height "
            "or the x and y of three points or more: correct the line."
        )
    try:
        number = float(values[0])
        shares = [float(value) for value in values[1:]]
    except ValueError:
        number, shares = 0.0, [math.nan]
    if not all(map(math.isfinite, (number, *shares))):
        raise DataError(f"{place}, holds {' '.join(values)!r:.80}, expected numbers: correct it.")
    if number not in range(len(folder.names)):
        raise DataError(
            f"{place}, has the class {values[0]:.20}, but the {len(folder.names)} names of "
            f"{shown(folder.path)} stand for 0 to {len(folder.names) - 1}: correct the line, or "
            "name the class in data.yaml or classes.txt."
        )
    if min(shares) < -_OUTSIDE or max(shares) > 1 + _OUTSIDE:
        raise DataError(
            f"{place}, holds {min(shares):g} to {max(shares):g}, expected shares of the picture's "
            "width and height from 0 to 1: divide pixels by them."
        )
    if len(values) == 5 and min(shares[2:]) < 0:
        raise DataError(f"{place}, has a negative width or height: correct it.")
    return [str(int(number)), *values[1:]]
