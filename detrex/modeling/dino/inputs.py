"""The way in: from dataset dicts to padded images, feature levels with padding masks, and targets.

Letters in shapes: n images, c channels, (H, W) padded image, (h, w) a feature level, m objects.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detrex.layers import box_xyxy_to_cxcywh
from detrex.modeling.backbone.features.coverage import Size


class PaddingConstraints(NamedTuple):
    """How a backbone wants its images padded.

    Attributes:
        divisibility: height and width become multiples of it; 0 or 1 for no rule.
        square: height and width become this size; 0 for no rule.
    """

    divisibility: int = 0
    square: int = 0

    @classmethod
    def of(cls, backbone: nn.Module) -> "PaddingConstraints":
        """Read them from ``padding_constraints`` and ``size_divisibility`` of a backbone.

        The key ``size_divisiblity``, as detectron2's ``SimpleFeaturePyramid`` spells it, is
        understood.
        """
        constraints = getattr(backbone, "padding_constraints", None) or {}
        default = getattr(backbone, "size_divisibility", 0)
        default = constraints.get("size_divisiblity", default)
        return cls(
            divisibility=int(constraints.get("size_divisibility", default)),
            square=int(constraints.get("square_size", 0)),
        )

    def padded(self, sizes: Sequence[Size]) -> Size:
        """Give the padded size that holds every one of ``sizes``.

        Raises:
            ValueError: when an image is larger than the square that the backbone takes.
        """
        height, width = max(h for h, _ in sizes), max(w for _, w in sizes)
        if self.square:
            if max(height, width) > self.square:
                raise ValueError(
                    f"an image of {height}x{width} pixels does not fit the {self.square}x"
                    f"{self.square} square that the backbone takes (padding_constraints); resize "
                    f"images to at most {self.square} pixels on their longer side."
                )
            height = width = self.square
        step = max(self.divisibility, 1)
        return -(-height // step) * step, -(-width // step) * step


@dataclass(frozen=True)
class PaddedImages:
    """Images in one tensor, padded with zeros at the right and at the bottom.

    Attributes:
        tensor: (n, c, H, W) normalised images.
        sizes: (height, width) of each before padding.
    """

    tensor: Tensor
    sizes: list[Size]

    @classmethod
    def pad(cls, images: Sequence[Tensor], rule: PaddingConstraints) -> "PaddedImages":
        """Pad (c, h, w) images to their common size under ``rule``."""
        sizes = [(int(image.shape[-2]), int(image.shape[-1])) for image in images]
        height, width = rule.padded(sizes)
        padded = [
            F.pad(image, (0, width - w, 0, height - h))
            for image, (h, w) in zip(images, sizes, strict=True)
        ]
        return cls(torch.stack(padded), sizes)

    def padding_mask(self, level_size: Size) -> Tensor:
        """Say which cells of an (h, w) level see padding.

        Returns:
            (n, h, w) bool, True where the pixel at the cell's upper left corner is padding.
        """
        height, width = self.tensor.shape[-2:]
        mask = self.tensor.new_ones((len(self.sizes), 1, height, width), dtype=torch.float32)
        for row, (h, w) in zip(mask, self.sizes, strict=True):
            row[:, :h, :w] = 0
        return F.interpolate(mask, size=level_size, mode="nearest").squeeze(1).bool()


class Levels(NamedTuple):
    """The feature levels of a batch, finest first.

    Attributes:
        features: one (n, c, h, w) tensor per level.
        masks: one (n, h, w) bool tensor per level, True = padding.
    """

    features: list[Tensor]
    masks: list[Tensor]


def group_by_padded_size(images: Sequence[Tensor], rule: PaddingConstraints) -> list[list[int]]:
    """Group the indices of those images that ``rule`` pads to one size when each stands alone."""
    groups: dict[Size, list[int]] = {}
    for index, image in enumerate(images):
        size = rule.padded([(int(image.shape[-2]), int(image.shape[-1]))])
        groups.setdefault(size, []).append(index)
    return list(groups.values())


def merge_levels(parts: Sequence[Levels], groups: Sequence[Sequence[int]]) -> Levels:
    """Join the levels of several groups of images into one batch.

    Args:
        parts: the levels of each group.
        groups: for each group the places of its images in the batch.

    Returns:
        The levels in the batch's order, each padded to the largest of its kind with zeros, which
        the masks mark as padding.
    """
    if len(parts) == 1:
        return parts[0]
    order = torch.tensor([index for group in groups for index in group]).argsort().tolist()
    features, masks = [], []
    for level in range(len(parts[0].features)):
        height = max(part.masks[level].shape[-2] for part in parts)
        width = max(part.masks[level].shape[-1] for part in parts)
        grown: list[tuple[Tensor, Tensor]] = []
        for part in parts:
            h, w = part.masks[level].shape[-2:]
            border = (0, width - w, 0, height - h)
            grown.append(
                (F.pad(part.features[level], border), F.pad(part.masks[level], border, value=True))
            )
        features.append(torch.cat([feature for feature, _ in grown])[order])
        masks.append(torch.cat([mask for _, mask in grown])[order])
    return Levels(features, masks)


def normalize_images(
    batched_inputs: Sequence[Mapping[str, Any]], mean: Tensor, std: Tensor, flip: bool = False
) -> list[Tensor]:
    """Take the images out of dataset dicts and normalise them by ``(image - mean) / std``.

    Args:
        batched_inputs: dicts whose ``"image"`` is a (c, h, w) tensor of any real type, usually
            0..255.
        mean: (c, 1, 1), in the unit of the images; its device and type become those of the result.
        std: (c, 1, 1).
        flip: reverse the channels first; `mean` and `std` are in the reversed order.

    Returns:
        One (c, h, w) tensor per image, each of its own size.

    Raises:
        ValueError: when an image is not (c, h, w) with as many channels as ``mean``.
    """
    images = []
    for inputs in batched_inputs:
        image = inputs["image"]
        if image.dim() != 3 or image.shape[0] != len(mean):
            raise ValueError(
                f"an image of shape {tuple(image.shape)} does not suit a detector whose pixel_mean "
                f"has {len(mean)} value(s); give (channels, height, width) images of {len(mean)} "
                f"channel(s), or set pixel_mean and pixel_std to one value per channel."
            )
        image = image.flip(0) if flip else image
        images.append((image.to(mean) - mean) / std)
    return images


def prepare_targets(
    batched_inputs: Sequence[Mapping[str, Any]], num_classes: int, like: Tensor
) -> list[dict[str, Tensor]]:
    """Turn the annotated ``"instances"`` of dataset dicts into targets.

    Args:
        batched_inputs: dicts with ``"instances"``, detectron2 ``Instances`` that hold
            ``gt_classes`` and ``gt_boxes`` (xyxy, in pixels).
        num_classes: the number of classes that the detector knows.
        like: a tensor whose device and floating type the targets take.

    Returns:
        For each image ``"labels"`` (m,) int64 and ``"boxes"`` (m, 4), cxcywh in 0..1 of the image.

    Raises:
        ValueError: when a dict has no ``"instances"``, or a class is outside ``0..num_classes-1``.
    """
    targets = []
    for inputs in batched_inputs:
        if "instances" not in inputs:
            raise ValueError(
                f"training needs 'instances' with gt_boxes and gt_classes, got a dict with "
                f"{sorted(inputs)}; call model.eval() to detect, or let the mapper keep them."
            )
        instances = inputs["instances"]
        labels = instances.gt_classes
        if labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < num_classes:
            raise ValueError(
                f"an annotation has class {int(labels.max())}, but the detector has "
                f"num_classes={num_classes} and takes 0..{num_classes - 1}; set num_classes to "
                f"that of the dataset."
            )
        height, width = instances.image_size
        boxes_xyxy_abs = instances.gt_boxes.tensor.to(like)
        scale = boxes_xyxy_abs.new_tensor([width, height, width, height])
        boxes_cxcywh_norm = box_xyxy_to_cxcywh(boxes_xyxy_abs / scale)
        targets.append({"labels": labels.to(like.device), "boxes": boxes_cxcywh_norm})
    return targets
