"""What was found in many pictures, in one file of COCO's format with scores."""

from pathlib import Path
from typing import Any

from detrex.inference.detector import Detector
from detrex.inference.result import Result, require_own_json, write_json


class CocoFile:
    """Collects results and writes them as a data set: images, annotations, categories.

    Args:
        path: the file.
        detector: whose results come; its classes become the categories.

    Raises:
        ConfigError: the file exists, and this package did not write it.
    """

    def __init__(self, path: Path, detector: Detector) -> None:
        require_own_json(path)
        self.path = path
        ids = detector.category_ids or range(len(detector.class_names))
        self._names = dict(zip(ids, detector.class_names, strict=True))
        self.images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []

    @property
    def categories(self) -> list[dict[str, Any]]:
        """The detector's classes, and those without a name that were found."""
        return [{"id": key, "name": name} for key, name in self._names.items()]

    def add(self, result: Result) -> None:
        """Take a result in."""
        height, width = result.image.shape[:2]
        image_id = len(self.images) + 1
        image: dict[str, Any] = {"id": image_id, "file_name": result.path or ""}
        image |= {"height": height, "width": width}
        if result.frame is not None:
            image["frame"] = result.frame
        self.images.append(image)
        if not result.category_ids:  # the ids are the classes, which may have no names
            self._names |= zip(result.labels.tolist(), result.names, strict=True)
        for found in result.to_coco(image_id):
            area = found["bbox"][2] * found["bbox"][3]
            key = len(self.annotations) + 1
            self.annotations.append({"id": key, **found, "area": area, "iscrowd": 0})

    def write(self) -> None:
        """Write the file.

        Raises:
            ConfigError: it cannot be written.
        """
        write_json(
            self.path,
            {
                "images": self.images,
                "annotations": self.annotations,
                "categories": self.categories,
            },
        )
