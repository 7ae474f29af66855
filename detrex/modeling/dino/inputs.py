"""The way in: from dataset dicts to padded images, feature levels, and targets.

Letters in shapes: n images, c channels, (H, W) padded image, (h, w) a feature level, m objects.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from detrex.layers import box_xyxy_to_cxcywh
from detrex.modeling.backbone.features.coverage import Size, round_up

from .sizes import LevelSizes


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
        return round_up(height, step), round_up(width, step)


@dataclass(frozen=True)
class PaddedImages:
    """Images in one tensor, padded with zeros at the right and at the bottom.

    Attributes:
        tensor: (n, c, H, W) normalised images.
        sizes: (height, width) of each before padding; None where none is padded.
    """

    tensor: Float[Tensor, "n c h w"]
    sizes: Sequence[Size] | None

    @classmethod
    def pad(
        cls, images: Sequence[Float[Tensor, "c _ _"]], rule: PaddingConstraints
    ) -> "PaddedImages":
        """Pad (c, h, w) images to their common size under ``rule``."""
        sizes = [(int(image.shape[-2]), int(image.shape[-1])) for image in images]
        height, width = rule.padded(sizes)
        if all(size == (height, width) for size in sizes):
            return cls(images[0][None] if len(images) == 1 else torch.stack(list(images)), None)
        padded = images[0].new_zeros(len(images), images[0].shape[0], height, width)
        for place, (image, (h, w)) in enumerate(zip(images, sizes, strict=True)):
            padded[place, :, :h, :w] = image
        return cls(padded, sizes)


class Levels(NamedTuple):
    """The feature levels of a batch, finest first.

    Attributes:
        features: one (n, c, h, w) tensor per level.
        sizes: how much of them is image.
    """

    features: list[Float[Tensor, "n c _ _"]]
    sizes: LevelSizes


def group_by_padded_size(
    images: Sequence[Float[Tensor, "c _ _"]], rule: PaddingConstraints
) -> list[list[int]]:
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
        The levels in the batch's order, each padded to the largest of its kind with zeros.
    """
    if len(parts) == 1:
        return parts[0]
    places = [index for group in groups for index in group]
    order = sorted(range(len(places)), key=places.__getitem__)
    sizes = LevelSizes.merge([part.sizes for part in parts], order)
    features = []
    for level, (height, width) in enumerate(sizes.shapes):
        maps = [feature for part in parts for feature in part.features[level]]
        merged = maps[0].new_zeros(len(maps), maps[0].shape[0], height, width)
        for place, index in enumerate(order):
            h, w = maps[index].shape[-2:]
            merged[place, :, :h, :w] = maps[index]
        features.append(merged)
    return Levels(features, sizes)


def normalize_images(
    batched_inputs: Sequence[Mapping[str, Any]],
    mean: Float[Tensor, "c 1 1"],
    std: Float[Tensor, "c 1 1"],
    flip: bool = False,
) -> list[Float[Tensor, "c _ _"]]:
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
        # Moved as it is read, four times smaller than as numbers, while the processor goes on.
        image = image.to(mean.device, non_blocking=mean.is_cuda).to(mean.dtype)
        images.append((image - mean) / std)
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
        boxes = instances.gt_boxes.tensor.to(like, non_blocking=like.is_cuda)
        boxes_xyxy_norm = torch.stack([boxes[:, 0::2] / width, boxes[:, 1::2] / height], -1)
        targets.append(
            {
                "labels": labels.to(like.device, non_blocking=like.is_cuda),
                "boxes": box_xyxy_to_cxcywh(boxes_xyxy_norm.flatten(1)),
            }
        )
    return targets
