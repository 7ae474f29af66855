"""Holding pictures back for validation."""

import hashlib
import math
from typing import Any

from detrex.errors import DataError

SHARE = 0.15
"""Of the pictures, what is held back."""


def hold_out(
    content: dict[str, Any], source: str, share: float = SHARE, seed: int = 0
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split a data set in two, the same way each time.

    Whether a picture is held back depends on its name and the others', not on their order: pictures
    are sorted by a digest of the seed and the name. Of those with and of those without objects the
    same share is taken, so that both parts have objects.

    Args:
        content: in COCO's format, checked.
        source: what it is, for messages.
        share: of the pictures, above 0 and below 1.
        seed: another one holds back others.

    Returns:
        The content for training and that for validation, each with all classes.

    Raises:
        DataError: fewer than two pictures have objects.
    """
    objects = {a["image_id"] for a in content.get("annotations", ()) if not a.get("iscrowd")}
    names = {image["file_name"] for image in content["images"] if image["id"] in objects}
    if len(names) < 2:
        raise DataError(
            f"{source}: objects are in {len(names)} of {len(content['images'])} pictures, expected "
            "at least 2, one to learn from and one to validate with: label more, or name a "
            "validation set by --val."
        )
    empty = {image["file_name"] for image in content["images"]} - names
    held = _first(names, max(1, round(share * len(names))), seed)
    held |= _first(empty, round(share * len(empty)), seed)
    return tuple(  # type: ignore[return-value]
        _part(content, held, inside=inside) for inside in (False, True)
    )


def _first(names: set[str], count: int, seed: int) -> set[str]:
    def digest(name: str) -> bytes:
        return hashlib.sha256(f"{seed}/{name}".encode(errors="surrogateescape")).digest()

    return set(sorted(names, key=digest)[: min(count, math.ceil(len(names) / 2))])


def _part(content: dict[str, Any], held: set[str], *, inside: bool) -> dict[str, Any]:
    images = [image for image in content["images"] if (image["file_name"] in held) == inside]
    ids = {image["id"] for image in images}
    annotations = [a for a in content.get("annotations", ()) if a["image_id"] in ids]
    return {**content, "images": images, "annotations": annotations}
