"""One pass over an annotation file and its pictures: all checks, in the order they build on."""

import logging
import os
from collections.abc import Sequence

from detrex.data.coco.boxes import check_boxes
from detrex.data.coco.classes import align, check_names
from detrex.data.coco.document import Document
from detrex.data.coco.identity import check_annotation_ids, check_category_ids, check_image_ids
from detrex.data.coco.images import check_pictures, check_sizes
from detrex.data.coco.keypoints import check_keypoints
from detrex.data.coco.objects import check_areas, check_crowds, check_masks
from detrex.data.coco.reading import no_garbage_collection, read_document

logger = logging.getLogger(__name__)


def inspect(
    json_file: str | os.PathLike[str] | Document,
    image_root: str | os.PathLike[str],
    *,
    masks: bool = False,
    keypoints: bool = False,
    classes: Sequence[str] | None = None,
    source: str = "the model",
    skip_missing: bool = False,
) -> Document:
    """Read an annotation file, inspect all of it, and mend what has one meaning.

    The file and the pictures stay as they are; pictures are not opened.

    Args:
        json_file: annotations in COCO's format; or what was read from them, mended in place.
        image_root: the folder that file names are relative to.
        masks: whether objects without a mask are of no use.
        keypoints: whether keypoints are trained or evaluated.
        classes: the names in the order in which the model numbers them; by default that of the
            categories' ids.
        source: where ``classes`` are from, to be named in an error.
        skip_missing: whether a run can go on without pictures that are missing; they are then a
            warning in the place of an error.

    Returns:
        The mended document with all findings. Where there are errors among them, only the findings
        are of use.

    Raises:
        DataError: the file cannot be read, or is not in COCO's format.
    """
    document = json_file if isinstance(json_file, Document) else read_document(json_file)
    with no_garbage_collection():
        if not document.images:
            document.tell("error", "no-images", "images is empty", "list the pictures")
        check_image_ids(document)
        check_sizes(document)
        check_pictures(
            document, os.fspath(image_root), severity="warning" if skip_missing else "error"
        )
        check_names(document)
        check_category_ids(document)
        check_boxes(document)
        check_crowds(document)
        check_areas(document)
        check_masks(document, masks)
        check_keypoints(document, keypoints)
        check_annotation_ids(document)
        if classes is not None and not has_errors(document):
            align(document, classes, source)
    return document


def has_errors(document: Document) -> bool:
    """Tell whether a document has an error, so that it cannot be used."""
    return any(finding.severity == "error" for finding in document.findings)


def log_findings(document: Document) -> None:
    """Log what was mended or left out, one line each; errors are raised instead.

    Args:
        document: after all checks.
    """
    levels = {"warning": logging.WARNING, "note": logging.INFO}
    for finding in document.findings:
        if finding.severity in levels:
            logger.log(levels[finding.severity], "%s", finding.message)
