"""What a detector finds in one picture: to be looked at, filtered, drawn, saved and handed on."""

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from detectron2.structures import Boxes, Instances
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image
from torch import Tensor

from detrex.errors import ConfigError, MissingPackageError
from detrex.files import has_mark, write_atomically, writing_to
from detrex.inference import showing
from detrex.inference.classes import name_of, wanted_labels
from detrex.utils.outputs import DRAWN, refuse_to_replace, save_drawn

if TYPE_CHECKING:
    from supervision import Detections

_MAKER = "detrex"


@dataclass(frozen=True, eq=False, repr=False)
class Result:
    """The objects of one picture, the surest first; all tensors are on the processor.

    Attributes:
        boxes: float32 ``(n, 4)``, x1 y1 x2 y2 in pixels of the picture.
        scores: float32 ``(n,)``, from 0 to 1.
        labels: int64 ``(n,)``, class indices from 0.
        image: the picture, uint8 ``(H, W, 3)``, RGB.
        class_names: by class index; empty where nothing tells them.
        path: the file or the address that the picture is from; None for an array.
        masks: bool ``(n, H, W)``; None for a detector of boxes alone.
        keypoints: float32 ``(n, k, 3)``, x and y in pixels and a score; None without.
        category_ids: the data set's id of each class; empty where they are not known.
        frame: the number of a video's frame, from 0; None for a picture.
        metadata: what drawing takes from detectron2's ``Metadata`` of the data set.
    """

    boxes: Float[Tensor, "n 4"]
    scores: Float[Tensor, " n"]
    labels: Int[Tensor, " n"]
    image: UInt8[np.ndarray, "h w 3"]
    class_names: tuple[str, ...] = ()
    path: str | None = None
    masks: Bool[Tensor, "n h w"] | None = None
    keypoints: Float[Tensor, "n k 3"] | None = None
    category_ids: tuple[int, ...] = ()
    frame: int | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def names(self) -> list[str]:
        """The class of each object, ``"class 3"`` where it has no name."""
        return [name_of(self.class_names, label) for label in self.labels.tolist()]

    @property
    def counts(self) -> dict[str, int]:
        """How many objects there are of each class that was found, the most frequent first."""
        return dict(Counter(self.names).most_common())

    def filter(
        self,
        threshold: float | None = None,
        classes: Iterable[str | int] | str | int | None = None,
    ) -> "Result":
        """Keep the objects of some classes, or that score enough.

        Args:
            threshold: the least score, from 0 to 1; None for all.
            classes: names or indices; None for all.

        Returns:
            Another result, of the same picture.

        Raises:
            ConfigError: the threshold is no number from 0 to 1, or there is no such class.
        """
        kept = torch.ones(len(self), dtype=torch.bool)
        if threshold is not None:
            kept &= self.scores >= checked_threshold(threshold)
        labels = wanted_labels(classes, self.class_names)
        if labels is not None:
            kept &= torch.isin(self.labels, torch.tensor(sorted(labels), dtype=torch.int64))
        return replace(
            self,
            boxes=self.boxes[kept],
            scores=self.scores[kept],
            labels=self.labels[kept],
            masks=None if self.masks is None else self.masks[kept],
            keypoints=None if self.keypoints is None else self.keypoints[kept],
        )

    def plot(self, min_side: int = 480) -> Image.Image:
        """Draw what was found.

        Args:
            min_side: a smaller picture is enlarged until its shorter side has so many pixels, so
                that lines and letters stay thin beside the objects; 0 to leave it as it is.

        Returns:
            The picture of boxes, classes, scores, masks and keypoints.
        """
        return Image.fromarray(showing.drawn(self, min_side))

    def save(self, path: str | Path) -> Path:
        """Write the drawn picture, or what was found as JSON.

        Args:
            path: a file that ends in ``.jpg``, ``.png``, ``.webp``, ``.tif`` or ``.json``; its
                folder is made. Nothing is written over but what this package wrote.

        Returns:
            The path.

        Raises:
            ConfigError: the file is not this package's to replace, or cannot be written.
        """
        target = Path(os.path.expanduser(path))
        if target.suffix.lower() == ".json":
            write_json(target, self.to_dict())
        elif target.suffix.lower() in DRAWN:
            sources = () if self.path is None else (self.path,)
            refuse_to_replace([target], sources)
            save_drawn(np.asarray(self.plot()), target)
        else:
            raise ConfigError(
                f"{target} has no ending that a result is saved under: give it "
                f"{', '.join(DRAWN)} for the drawn picture, or .json."
            )
        return target

    def to_dict(self) -> dict[str, Any]:
        """Give what was found as plain numbers and texts.

        Returns:
            ``path``, ``frame``, ``height``, ``width`` and ``objects``, a list of ``name``,
            ``label``, ``score``, ``box`` (x1 y1 x2 y2), ``mask`` (COCO's run lengths) and
            ``keypoints``.
        """
        height, width = self.image.shape[:2]
        objects: list[dict[str, Any]] = [
            {"name": name, "label": label, "score": score, "box": box}
            for name, label, score, box in zip(
                *(self.names, self.labels.tolist(), self.scores.tolist(), self.boxes.tolist()),
                strict=True,
            )
        ]
        if self.masks is not None:
            for found, coco in zip(objects, replace(self, category_ids=()).to_coco(), strict=True):
                found["mask"] = coco["segmentation"]
        if self.keypoints is not None:
            for found, points in zip(objects, self.keypoints.tolist(), strict=True):
                found["keypoints"] = points
        head = {"path": self.path, "frame": self.frame, "height": height, "width": width}
        return {**head, "objects": objects}

    def to_coco(self, image_id: int = 0) -> list[dict[str, Any]]:
        """Give what was found as a list of COCO's results, as the evaluation writes them.

        Args:
            image_id: the picture's.

        Returns:
            For each object ``image_id``, ``category_id``, ``bbox`` (x y width height), ``score``,
            and where there are masks or keypoints ``segmentation`` (run lengths) and ``keypoints``.
            A category's id is the data set's where that is known, else the class index.

        Raises:
            ConfigError: a class was found that is none of those whose ids are known.
        """
        from detectron2.evaluation.coco_evaluation import instances_to_coco_json

        plain = int(image_id) if isinstance(image_id, Integral) else image_id  # as JSON takes it
        found: list[dict[str, Any]] = instances_to_coco_json(self.to_instances(), plain)
        known = self.category_ids
        for each in found if known else ():
            label = each["category_id"]
            if label >= len(known):
                raise ConfigError(
                    f"class {label} was found, but its data set has {len(known)} classes: set the "
                    "detector's num_classes to that, or ask for some classes alone."
                )
            each["category_id"] = known[label]
        return found

    def to_instances(self) -> Instances:
        """Give what was found as detectron2's ``Instances``."""
        fields: dict[str, Any] = {
            "pred_boxes": Boxes(self.boxes.clone()),
            "scores": self.scores,
            "pred_classes": self.labels,
        }
        if self.masks is not None:
            fields["pred_masks"] = self.masks
        if self.keypoints is not None:
            fields["pred_keypoints"] = self.keypoints.clone()
        return Instances(tuple(self.image.shape[:2]), **fields)

    def to_supervision(self) -> "Detections":
        """Give what was found as ``supervision.Detections``, with ``class_name`` in its ``data``.

        Raises:
            MissingPackageError: supervision is not installed.
        """
        try:
            import supervision
        except ImportError as error:
            raise MissingPackageError(
                "to_supervision needs the package supervision, which is not installed: "
                "`pip install supervision`."
            ) from error
        return supervision.Detections(
            xyxy=self.boxes.numpy(),
            mask=None if self.masks is None else self.masks.numpy(),
            confidence=self.scores.numpy(),
            class_id=self.labels.numpy(),
            data={"class_name": np.array(self.names, dtype=str)},
        )

    def __repr__(self) -> str:
        return f"Result({showing.sentence(self)})"

    def __rich__(self) -> Any:
        return showing.table(self)

    def _repr_html_(self) -> str:
        return showing.html(self)


def checked_threshold(threshold: float) -> float:
    """Check a least score.

    Raises:
        ConfigError: it is no number from 0 to 1.
    """
    is_number = isinstance(threshold, Real) and not isinstance(threshold, bool)
    if not is_number or not 0 <= threshold <= 1:
        raise ConfigError(
            f"threshold={threshold!r:.60} is no score: expected a number from 0 to 1, such as 0.5."
        )
    return float(threshold)


def write_json(target: Path, content: Mapping[str, Any]) -> None:
    """Write what was found as JSON, over nothing but what this package wrote.

    Args:
        target: the file; its folder is made.
        content: plain values; the maker's name is added.

    Raises:
        ConfigError: the file is not this package's to replace, or cannot be written.
    """
    require_own_json(target)
    text = json.dumps({"made_by": _MAKER, **content}, indent=1).encode()
    with writing_to(target, "name another file.", ConfigError):
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(target, lambda stream: stream.write(text))


def require_own_json(target: Path) -> None:
    """Check that a JSON file is free to be written.

    Raises:
        ConfigError: it exists, and this package did not write it.
    """
    mark = f'{{\n "made_by": "{_MAKER}"'.encode()
    if os.path.lexists(target) and not has_mark(target, mark, len(mark)):
        raise ConfigError(
            f"{target} exists and was not written by this program, so it is not written over: "
            "name another file, or remove it."
        )
