"""Annotation files in COCO's format, inspected as a whole before anything is trained on them.

::

    bytes --reading--> Document --checks, mended in place--> records of training
                          |                                  the file of the evaluation
                          `--> findings, one line each

`inspect` does all of it. The checks, one module each: `identity` (ids), `images` (sizes, pictures
on the disk), `classes` (names and their order), `boxes`, `objects` (crowds, areas, outlines),
`keypoints`.
"""

from detrex.data.coco.document import Document, Finding
from detrex.data.coco.inspection import has_errors, inspect

__all__ = ["Document", "Finding", "has_errors", "inspect"]
