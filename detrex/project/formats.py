"""Which format lies in a folder or file, and reading it."""

from pathlib import Path

from detrex.data.coco.classes import class_names
from detrex.data.picture_files import shown
from detrex.errors import ConfigError, DataError
from detrex.project.coco_files import is_coco, read_coco
from detrex.project.parts import Data, Part, is_project, split_of
from detrex.project.voc import is_voc, read_voc
from detrex.project.yolo import is_yolo, read_yolo

FORMATS = {"coco": "COCO's JSON", "yolo": "YOLO's text files", "voc": "Pascal VOC's XML"}
"""What is read, by name."""

_SIGNS = {"coco": is_coco, "voc": is_voc, "yolo": is_yolo}


def read_data(
    data: Path, val: Path | None = None, form: str = "auto", images: Path | None = None
) -> Data:
    """Read what is to be learnt, and what to validate with.

    Args:
        data: a folder or file of `FORMATS`.
        val: the same for validation, where that is elsewhere.
        form: the format of ``data``, or ``"auto"``.
        images: folder of the pictures, where they are not near annotations of COCO's format.

    Returns:
        Parts ``"train"`` and, where there is one, ``"val"``.

    Raises:
        ConfigError: a path or format that is none, or ``supervision`` is missing.
        DataError: what is there is in no known format, or cannot be right.
        PictureError: a picture cannot be read.
    """
    if form not in ("auto", *FORMATS):
        raise ConfigError(f"the format is auto, {', '.join(FORMATS)}, got {form!r:.40}.")
    found = _read(data, form, images, ())
    train = found.parts.get("train") or next(iter(found.parts.values()))
    parts = {"train": train}
    if val is not None:
        further = _read(val, "auto", images, _names(train))
        found.notes += further.notes
        parts["val"] = further.parts.get("val") or next(iter(further.parts.values()))
    elif held := found.parts.get("val") or found.parts.get("test"):
        parts["val"] = held
        if "val" not in found.parts and held is not train:
            found.notes.append("there is no part for validation: that for testing is taken")
    if parts.get("val") is train:
        del parts["val"]
    return Data(found.form, parts, found.notes)


def recognised(path: Path) -> str:
    """Tell the format of a folder or file.

    Args:
        path: an existing one.

    Returns:
        A key of `FORMATS`.

    Raises:
        DataError: it is in none of them, or in several.
    """
    found = [form for form, sign in _SIGNS.items() if sign(path)]
    if len(found) > 1:
        raise DataError(
            f"{shown(path)} holds {' and '.join(FORMATS[form] for form in found)}: say which of "
            f"them is meant by --format {found[0]}."
        )
    if not found:
        what = "is no file" if path.is_file() else "is no folder"
        raise DataError(
            f"{shown(path)} {what} of data that is known: expected {', '.join(FORMATS.values())}, "
            "beside or under the pictures."
        )
    return found[0]


def _read(path: Path, form: str, images: Path | None, names: tuple[str, ...]) -> Data:
    if not path.exists():
        raise ConfigError(f"{shown(path)} does not exist in {Path.cwd()}: correct the path.")
    path = _unpacked(path)
    form = recognised(path) if form == "auto" else form
    if form == "coco":
        return read_coco(path, images)
    return read_voc(path) if form == "voc" else read_yolo(path, names)


def _unpacked(path: Path) -> Path:
    """The folder that is alone in a folder, as archives leave it, or else the path itself."""
    while path.is_dir():
        inside = [
            p for p in path.iterdir() if not (p.name.startswith((".", "__")) or is_project(p))
        ]
        if len(inside) != 1 or not inside[0].is_dir() or split_of(inside[0].name):
            break
        path = inside[0]
    return path


def _names(part: Part) -> tuple[str, ...]:
    """Names of the classes, for a validation set that has none of its own."""
    if part.content is not None:
        return tuple(category["name"] for category in part.content["categories"])
    document = part.document
    return tuple(class_names(document)) if document and document.categories else ()
