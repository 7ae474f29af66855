"""Folders in Pascal VOC's format: an XML file for each picture, read through ``supervision``.

Its pixels count from 1, so that ``xmin`` 1 is the left border and ``xmax`` the last pixel of an
object. A data set in which a box begins at 0 counts from 0, as some programs write it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, ParseError

from detrex.data.picture_files import shown
from detrex.data.pictures import upright_size
from detrex.errors import DataError, first_line
from detrex.project.parts import (
    Data,
    Labels,
    by_split,
    label_file,
    pictures_below,
    read_text,
    refuse_shared_labels,
    some_below,
)
from detrex.project.supervised import require_supervision, voc_boxes

_LABELS = ("Annotations", "annotations", "labels")
_LISTS = ("train", "val", "trainval", "test")
_DRAWN = ("SegmentationClass", "SegmentationObject")
"""Folders of pictures of classes and objects, which are called as the photographs are."""


@dataclass
class _File:
    """One annotation: the size of its picture, and its objects as they are written."""

    size: tuple[int, int]
    boxes: list[list[float]]
    names: list[str]
    outlines: list[list[list[float]]]
    difficult: list[bool]


def is_voc(path: Path) -> bool:
    """Tell whether a folder is in Pascal VOC's format.

    Args:
        path: an existing folder or file.
    """
    if not path.is_dir():
        return False
    return any(label_file(picture, ".xml", _LABELS) for picture in some_below(path))


def read_voc(path: Path) -> Data:
    """Read a data set: one of the challenges with its lists, or pictures with files beside them.

    Args:
        path: its folder; one that holds those of several years is read as a whole.

    Returns:
        What is to be written in COCO's format. Objects marked as difficult become crowds: they are
        neither learnt nor counted when they are missed.

    Raises:
        DataError: there is nothing to read, or an XML file that is none; with the file.
        PictureError: a picture that cannot be read.
    """
    require_supervision()
    splits = _splits(path)
    notes = []
    if "test" in splits and "val" in splits:
        notes.append(f"{len(splits.pop('test'))} pictures for testing are left alone")
    labelled = {p: label_file(p, ".xml", _LABELS) for pictures in splits.values() for p in pictures}
    refuse_shared_labels(labelled)
    files = {p: _read(p, file) for p, file in labelled.items() if file is not None}
    if not files:
        raise DataError(
            f"{shown(path)} holds no XML file for a picture of it: put them beside the pictures, "
            "or in `Annotations` beside `JPEGImages`."
        )
    names = sorted({name for file in files.values() for name in file.names})
    if not names:
        raise DataError(f"{shown(path)} has {len(files)} XML files, and none names an object.")
    start = 0 if any(min(box[:2]) < 0 for file in files.values() for box in file.boxes) else 1
    parts = {}
    for split, pictures in splits.items():
        labels = Labels()
        for picture in pictures:
            read = files.get(picture)
            size = upright_size(picture) if read is None else read.size
            labels.add(picture, size, _objects(read, names, start) if read else ())
        parts[split] = labels.part(names, path)
    return Data("voc", parts, notes + _notes(files, labelled, start))


def _notes(files: dict[Path, _File], labelled: dict[Path, Path | None], start: int) -> list[str]:
    notes = []
    without = [picture for picture, file in labelled.items() if file is None]
    if without:
        notes.append(
            f"{len(without)} of {len(labelled)} pictures have no XML file, such as "
            f"{shown(without[0])}: they count as pictures without objects"
        )
    if difficult := sum(sum(file.difficult) for file in files.values()):
        notes.append(
            f"{difficult} objects are marked as difficult: neither trained on nor evaluated, as in "
            "Pascal VOC's own evaluation"
        )
    if start == 0:
        notes.append("a box begins at pixel 0: pixels are taken to count from 0, not from 1")
    return notes


def _splits(path: Path) -> dict[str, list[Path]]:
    """Pictures by split: as lists of the challenge say, or as folders are called."""
    found = sorted(place for place in path.rglob("ImageSets") if (place / "Main").is_dir())
    splits: dict[str, list[Path]] = {}
    for lists in found:
        for split, pictures in _listed(lists).items():
            splits.setdefault(split, []).extend(pictures)
    splits = splits or by_split(_photographs(path), path)
    return {split: list(dict.fromkeys(some)) for split, some in splits.items() if some}


def _photographs(folder: Path) -> list[Path]:
    return [p for p in pictures_below(folder) if p.parent.name not in _DRAWN]


def _listed(lists: Path) -> dict[str, list[Path]]:
    """Pictures that the lists of one year name."""
    files = {name: lists / "Main" / f"{name}.txt" for name in _LISTS}
    files = {name: file for name, file in files.items() if file.is_file()}
    if "train" in files:
        files.pop("trainval", None)
    known = _by_ending(_photographs(lists.parent))
    splits = {}
    for name, file in files.items():
        pictures = []
        for number, line in enumerate(read_text(file).splitlines(), start=1):
            words = (line.strip(), *line.split()[:1])  # a name may have blanks, or -1, 0, 1 follow
            word = words[-1]
            found = next((known[w] for w in words if w in known), [])
            if word and len(found) != 1:
                raise DataError(
                    f"{shown(file)}, line {number}, names {shown(word)}, of which there "
                    f"{f'are {len(found)} pictures' if found else 'is no picture'} in "
                    f"{shown(lists.parent)}: correct the list."
                )
            pictures += found
        splits["train" if name == "trainval" else name] = pictures
    return splits


def _by_ending(pictures: Iterable[Path]) -> dict[str, list[Path]]:
    """Pictures by their names, with and without folders before and a suffix behind."""
    known: dict[str, list[Path]] = {}
    for picture in pictures:
        for path in (picture, picture.with_suffix("")):
            for place in range(1, len(path.parts)):
                known.setdefault("/".join(path.parts[place:]), []).append(picture)
    return known


def _read(picture: Path, file: Path) -> _File:
    root = _parsed(file)
    size = upright_size(picture)
    _check_size(root, file, picture, size)
    objects = root.findall("object")
    outlines = [_outlines(entry, file) for entry in objects]
    for entry in objects:  # of which supervision would make pixels
        for polygon in entry.findall("polygon"):
            entry.remove(polygon)
    boxes, names = voc_boxes(root, file)
    difficult = [(entry.findtext("difficult") or "").strip() == "1" for entry in objects]
    return _File(size, boxes, [name.strip() for name in names], outlines, difficult)


def _parsed(file: Path) -> Element:
    from defusedxml.common import DefusedXmlException
    from defusedxml.ElementTree import parse

    try:
        root = parse(file).getroot()
    except ParseError as error:
        line = error.position[0]
        raise DataError(
            f"{shown(file)}, line {line}, is no XML ({first_line(error)}): correct it."
        ) from None
    except DefusedXmlException:
        raise DataError(
            f"{shown(file)} cannot be read as XML (it declares entities, which could fill the "
            "memory or read other files): write it without."
        ) from None
    except (ValueError, LookupError, OSError) as error:
        raise DataError(
            f"{shown(file)} cannot be read as XML ({first_line(error)}): write it again."
        ) from None
    if root.tag != "annotation":
        raise DataError(
            f"{shown(file)} begins with <{root.tag:.30}>, expected <annotation> as in Pascal VOC's "
            "format: put another kind of file elsewhere."
        )
    return root


def _check_size(root: Element, file: Path, picture: Path, size: tuple[int, int]) -> None:
    """Hold the size that a file tells against the picture's; 0 and nothing tell nothing."""
    texts = [root.findtext(f"size/{key}") for key in ("width", "height")]
    try:
        said = tuple(int(float(text or 0)) for text in texts)
    except (ValueError, OverflowError):
        raise DataError(
            f"{shown(file)} has a size of {texts[0]!r:.20} x {texts[1]!r:.20}, expected pixels: "
            "correct it."
        ) from None
    if 0 in said or said == size:
        return
    turned = said == size[::-1]
    raise DataError(
        f"{shown(file)} is for a picture of {said[0]} x {said[1]} pixels (width x height), but "
        f"{shown(picture.name)} has {size[0]} x {size[1]}: "
        + (
            "if its EXIF orientation turns it, annotate it upright or remove the tag."
            if turned
            else "put the picture there that was annotated."
        )
    )


def _outlines(entry: Element, file: Path) -> list[list[float]]:
    """Polygons of an object: x and y of each corner, as written."""
    outlines = []
    for polygon in entry.findall("polygon"):
        try:
            values = [float(value.text or "") for value in polygon.iter() if value is not polygon]
        except ValueError:
            values = []
        if len(values) < 6 or len(values) % 2:
            raise DataError(
                f"{shown(file)} has a polygon that is not the x and y of three corners or more: "
                "correct it."
            )
        outlines.append(values)
    return outlines


def _objects(file: _File, names: list[str], start: int) -> Iterable[dict[str, Any]]:
    """COCO's entries; ``start`` is the number of the first pixel."""
    place = {name: number for number, name in enumerate(names)}
    for box, name, outlines, difficult in zip(
        file.boxes, file.names, file.outlines, file.difficult, strict=True
    ):
        x0, y0, x1, y1 = box
        if start == 0:  # the corners are the borders themselves, of which one pixel was taken off
            x0, y0 = x0 + 1, y0 + 1
        entry: dict[str, Any] = {"category_id": place[name], "bbox": [x0, y0, x1 - x0, y1 - y0]}
        if outlines:
            entry["segmentation"] = [[v - start for v in outline] for outline in outlines]
        yield {**entry, "iscrowd": 1} if difficult else entry
