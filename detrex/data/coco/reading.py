"""From an annotation file's bytes to a `Document`, or one sentence on why it is none."""

import codecs
import gc
import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from detectron2.utils.file_io import PathManager

from detrex.data.coco.document import Document, listed, shorten
from detrex.errors import DataError, did_you_mean

_CUT = ("Unterminated", "Invalid \\u")  # in the midst of a text
_LISTS = ("images", "annotations", "categories")


def read_document(path: str | os.PathLike[str]) -> Document:
    """Read an annotation file in COCO's format; nothing but its shape is checked.

    Args:
        path: a JSON file, or an address that detectron2's ``PathManager`` knows.

    Returns:
        Its content. ``annotations`` may be missing, as in lists of images to test on.

    Raises:
        DataError: the file is missing, a folder, empty, no JSON, cut short, or its top level is not
            an object of the lists images, annotations and categories, each of objects.
    """
    name = os.fspath(path)
    data = _read_bytes(name)
    twice: list[str] = []
    with no_garbage_collection():
        content = _parse(name, data, twice)
    if not isinstance(content, dict):
        raise DataError(f"{name}: {_unlike_coco(content)}.")
    document = document_of(name, content)
    document.changed |= not _is_plain_utf8(data)  # all that pycocotools reads
    if twice:
        what = f"{len(twice)} objects give a key twice, the first {shorten(twice[0])}"
        document.tell("warning", "key-twice", what, "the last value was taken", len(twice))
    return document


def document_of(path: str, content: dict[str, Any]) -> Document:
    """Make a document of what is, or will be, in a file.

    Args:
        path: the file.
        content: its top level, whose lists become the document's own.

    Raises:
        DataError: it has no lists images, annotations and categories, each of objects.
    """
    lists = {key: _list_of_objects(path, content, key) for key in _LISTS}
    annotations = lists["annotations"]
    return Document(
        path=path,
        images=lists["images"] or [],
        annotations=annotations or [],
        categories=lists["categories"] or [],
        rest={key: value for key, value in content.items() if key not in _LISTS},
        has_annotations=annotations is not None,
        # pycocotools stumbles over annotations that are null.
        changed="annotations" in content and annotations is None,
    )


def _read_bytes(name: str) -> bytes:
    if os.path.exists(name) and not (os.path.isfile(name) or os.path.isdir(name)):
        raise DataError(f"{name} is no regular file, expected annotations: name a JSON file.")
    try:
        data = Path(PathManager.get_local_path(name)).read_bytes()
    except FileNotFoundError:
        raise DataError(
            f"{name} does not exist in {Path.cwd()}: correct the data set's paths, or point the "
            "environment variable DETECTRON2_DATASETS at detectron2's data sets."
        ) from None
    except IsADirectoryError:
        raise DataError(
            f"{name} is a folder, expected an annotation file: name the JSON file in it."
        ) from None
    except (OSError, ValueError) as error:  # a name with NUL, too
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{shorten(name)} cannot be read: {reason}.") from error
    if not data.strip():
        raise DataError(f"{name} is empty, expected annotations in COCO's format: write it again.")
    if data[:2] in (b"\x1f\x8b", b"PK"):
        raise DataError(f"{name} is compressed, expected plain JSON: unpack it.")
    return data


def _parse(name: str, data: bytes, twice: list[str]) -> Any:
    """Read JSON, and add the keys that are given twice in an object to a list."""

    def collect(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            counts = Counter(key for key, _ in pairs)
            again = next(key for key, count in counts.items() if count > 1)
            if again in _LISTS and isinstance(found[again], list):
                raise DataError(f"{name}: {again!r} is given twice: merge the two lists.")
            twice.append(again[:100])
        return found

    try:
        return json.loads(data, object_pairs_hook=collect)
    except DataError:
        raise
    except json.JSONDecodeError as error:
        at_end = not error.doc[error.pos :].strip() or error.msg.startswith(_CUT)
        what = "is cut short" if at_end else "is no JSON"
        raise DataError(
            f"{name} {what}: {error.msg} at line {error.lineno}, column {error.colno}; copy or "
            "export it again."
        ) from None
    except UnicodeDecodeError as error:
        raise DataError(
            f"{name} is no UTF-8 text: byte {error.start} is 0x{data[error.start]:02x}; save it in "
            "UTF-8."
        ) from None
    except (RecursionError, ValueError) as error:  # nested too deeply, or a number of miles
        raise DataError(f"{name} is no JSON that can be read: {str(error)[:100]}.") from None


def _is_plain_utf8(data: bytes) -> bool:
    return not data.startswith(codecs.BOM_UTF8) and json.detect_encoding(data[:4]) == "utf-8"


def _unlike_coco(content: Any) -> str:
    kind = "a list" if isinstance(content, list) else shorten(content)
    first = content[0] if isinstance(content, list) and content else None
    detections = isinstance(first, dict) and "score" in first
    hint = "; it seems to hold detections, not annotations" if detections else ""
    return (
        f"the top level is {kind}, expected an object with images, annotations and categories{hint}"
    )


def _list_of_objects(name: str, content: dict[str, Any], key: str) -> list[dict[str, Any]] | None:
    """The list under a key; None only for annotations that are not there."""
    value = content.get(key)
    if value is None and key == "annotations" and "categories" in content:
        near = did_you_mean(key, [k for k in content if k not in _LISTS])
        if not near:
            return None
    if value is None:
        others = [k for k in content if k not in _LISTS]
        raise DataError(
            f"{name} has no {key!r}, expected a list of objects in COCO's format; its entries are "
            f"{listed(list(content)) or 'none'}: export it in COCO's format."
            + did_you_mean(key, others)
        )
    if not isinstance(value, list):
        raise DataError(
            f"{name}: {key!r} is {shorten(value)}, expected a list of objects: export it in COCO's "
            "format."
        )
    if set(map(type, value)) - {dict}:
        place = next(i for i, item in enumerate(value) if type(item) is not dict)
        raise DataError(
            f"{name}: {key}[{place}] is {shorten(value[place])}, expected an object: correct or "
            "remove it."
        )
    return value


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Hold the collector back: millions of new objects make it run often, and free nothing."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
