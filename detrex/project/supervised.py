"""What ``supervision`` reads for us, alike in all of its versions."""

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, fromstring

import numpy as np

from detrex.data.picture_files import shown
from detrex.errors import ConfigError, DataError, first_line

_PROBE = (
    "<annotation><object><name>a</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax>"
    "<ymax>2</ymax></bndbox></object></annotation>"
)


def require_supervision() -> None:
    """Refuse to go on without the package.

    Raises:
        ConfigError: it is not installed, or too old.
    """
    _readers()


def yolo_boxes(
    lines: Sequence[str], size: tuple[int, int], file: Path
) -> tuple[list[list[float]], list[int]]:
    """Read the lines of a label file.

    Args:
        lines: checked ones, of boxes and outlines.
        size: width and height of the picture in pixels.
        file: for messages.

    Returns:
        Boxes as x0, y0, x1, y1 in pixels, and their classes.

    Raises:
        DataError: ``supervision`` refuses a line.
    """
    if not lines:
        return [], []
    read, _ = _readers()
    try:
        found = read(lines=list(lines), resolution_wh=size, with_masks=False)
    except Exception as error:  # a parser of another package, with any error of its own
        raise _refused(file, error) from error
    return found.xyxy.astype(float).tolist(), found.class_id.tolist()


def voc_boxes(root: Element, file: Path) -> tuple[list[list[float]], list[str]]:
    """Read the boxes of an annotation in Pascal VOC's format, whose pixels count from 1.

    Args:
        root: the parsed file, without polygons.
        file: for messages.

    Returns:
        Boxes as x0, y0, x1, y1 in pixels from 0, around all pixels of the object, and their names.

    Raises:
        DataError: ``supervision`` refuses it.
    """
    if root.find("object") is None:
        return [], []
    _, read = _readers()
    try:
        found, names = read(root, [], (1, 1))
    except Exception as error:  # a parser of another package, with any error of its own
        raise _refused(file, error) from error
    boxes = found.xyxy.astype(float) + _correction()
    return boxes.tolist(), [names[number] for number in found.class_id]


def _refused(file: Path, error: Exception) -> DataError:
    return DataError(f"{shown(file)} cannot be read ({first_line(error).rstrip('.')}): correct it.")


@cache
def _correction() -> np.ndarray:
    """What is to be added: versions below 0.31.1 take one pixel off the far corner, too."""
    _, read = _readers()
    found, _ = read(fromstring(_PROBE), [], (2, 2))
    return np.array([0.0, 0.0, 2.0, 2.0]) - found.xyxy[0]


@cache
def _readers() -> tuple[Callable[..., Any], Callable[..., Any]]:
    try:
        from supervision.dataset.formats.pascal_voc import detections_from_xml_obj
        from supervision.dataset.formats.yolo import yolo_annotations_to_detections
    except ImportError as error:
        raise ConfigError(
            "data in YOLO's or Pascal VOC's format are read by the package supervision, which "
            f"cannot be imported ({first_line(error)}): pip install supervision."
        ) from error
    return yolo_annotations_to_detections, detections_from_xml_obj
