"""A backbone, or a whole detector, as a function of one tensor that gives named tensors."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from detrex.detectors import image_channels, image_network, published_statistics
from detrex.errors import ConfigError, did_you_mean
from detrex.layers import box_cxcywh_to_xyxy
from detrex.modeling.backbone.wrapper.wrapper_backbone import WrapperBackbone
from detrex.modeling.dino.inputs import PaddingConstraints

PARTS = ("detector", "backbone")


class TensorBackbone(nn.Module):
    """A backbone that pads images as it needs them.

    Args:
        backbone: gives a dict of feature maps.
    """

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone: Any = backbone
        is_fitting = isinstance(backbone, WrapperBackbone)
        self.rule = PaddingConstraints() if is_fitting else PaddingConstraints.of(backbone)

    def forward(self, image: Float[Tensor, "1 c h w"]) -> dict[str, Float[Tensor, "1 _ _ _"]]:
        """Map normalised images ``(1, C, H, W)`` to feature maps by name."""
        return dict(self.backbone(_pad(image, self.rule)))

    def describe(self) -> dict[str, Any]:
        """Say what the input must be and what the outputs are, in plain values."""
        shapes = self.backbone.output_shape() if hasattr(self.backbone, "output_shape") else {}
        said = published_statistics(self.backbone)
        described: dict[str, Any] = {
            "input": "normalised image (1, C, H, W)",
            "levels": {n: {"stride": s.stride, "channels": s.channels} for n, s in shapes.items()},
        }
        if said is not None:
            described["pixel_mean"] = list(said.pixel_mean)
            described["pixel_std"] = list(said.pixel_std)
            described["input_format"] = said.channel_order
        return described

    @property
    def channels(self) -> int:
        """Channels of the image: those that the network's first convolution takes, if it has any.

        The convolutions of a pyramid stand before those of the network under it.
        """
        said = published_statistics(self.backbone)
        if said is not None:
            return len(said.pixel_mean)
        layers = image_network(self.backbone).modules()
        first = next((layer for layer in layers if isinstance(layer, nn.Conv2d)), None)
        return 3 if first is None else first.in_channels


class TensorDetector(nn.Module):
    """A detector of DINO's kind with normalisation, padding and the choice of the best inside.

    Args:
        detector: has ``forward_tensors``, as `detrex.modeling.dino.DINO` does.
    """

    def __init__(self, detector: Any) -> None:
        super().__init__()
        self.detector: Any = detector
        self.rule = PaddingConstraints.of(detector.backbone)
        self.limit = detector.select_box_nums_for_evaluation

    def forward(self, image: Shaped[Tensor, "1 c h w"]) -> dict[str, Tensor]:
        """Detect objects in one image.

        Args:
            image: (1, C, H, W), 0..255, in the detector's ``input_format``.

        Returns:
            ``boxes`` (k, 4), xyxy in pixels and inside the image, ``scores`` (k,), highest first,
            and ``classes`` (k,), of the best ``select_box_nums_for_evaluation`` detections.
        """
        return self.best(*self.queries(image))

    def queries(
        self, image: Shaped[Tensor, "1 _ h w"]
    ) -> tuple[Float[Tensor, "q c"], Float[Tensor, "q 4"]]:
        """Give every query's class logits (q, c) and box (q, 4), as `forward` takes and gives."""
        height, width = image.shape[-2:]
        image = image.flip(1) if self.detector.flips_channels else image
        mean, std = self.detector.pixel_mean, self.detector.pixel_std
        padded = _pad((image.to(mean.dtype) - mean) / std, self.rule)
        sizes = None if self.rule == PaddingConstraints() else [(height, width)]
        logits, boxes = self.detector.forward_tensors(padded, sizes)
        corners = box_cxcywh_to_xyxy(boxes[0])
        x = (corners[:, 0::2] * width).clamp(min=0).clamp(max=width)
        y = (corners[:, 1::2] * height).clamp(min=0).clamp(max=height)
        return logits[0], torch.stack([x, y], -1).flatten(1)

    def best(self, logits: Float[Tensor, "q c"], boxes: Float[Tensor, "q 4"]) -> dict[str, Tensor]:
        """Choose the best detections among the pairs of a query and a class."""
        best, index = logits.flatten().topk(torch.sym_min(self.limit, logits.numel()))
        query, kind = index // logits.shape[-1], index % logits.shape[-1]
        return {"boxes": boxes[query], "scores": best.sigmoid(), "classes": kind}

    def describe(self) -> dict[str, Any]:
        """Say what the input must be and what the outputs are, in plain values."""
        return {
            "input": "image (1, C, H, W), 0..255; it is normalised inside",
            "input_format": self.detector.input_format,
            "pixel_mean": self.detector.pixel_mean.flatten().tolist(),
            "pixel_std": self.detector.pixel_std.flatten().tolist(),
            "num_classes": self.detector.num_classes,
        }

    @property
    def channels(self) -> int:
        """Channels of the image."""
        return image_channels(self.detector) or 3


def tensor_module(model: nn.Module, part: str = "detector") -> TensorBackbone | TensorDetector:
    """Find the function of a tensor in a model.

    Args:
        model: a detector or a backbone.
        part: ``"detector"``, or ``"backbone"`` for that of the detector, or the model if it is one.

    Returns:
        The module, which shares the model's parts.

    Raises:
        ConfigError: it has no such part, or is a detector whose way out is no function of tensors.
    """
    if part not in PARTS:
        raise ConfigError(
            f"the part to export must be {' or '.join(PARTS)}, got {part!r}."
            f"{did_you_mean(part, PARTS)}"
        )
    backbone = getattr(model, "backbone", None)
    if part == "backbone" or (hasattr(model, "output_shape") and backbone is None):
        return TensorBackbone(backbone if isinstance(backbone, nn.Module) else model)
    if not hasattr(model, "forward_tensors"):
        raise ConfigError(
            f"{type(model).__name__} cannot be exported as a whole: how many objects it suppresses "
            "and keeps depends on the picture, in Python; export its backbone with its pyramid "
            "(part 'backbone'), or a detector with forward_tensors, such as DINO."
        )
    return TensorDetector(model)


def _pad(image: Tensor, rule: PaddingConstraints) -> Tensor:
    """Add zeros at the right and the bottom of (1, C, H, W)."""
    if rule.divisibility <= 1 and not rule.square:
        return image
    height, width = image.shape[-2:]
    if rule.square:
        to_height = to_width = rule.square
    else:
        to_height, to_width = rule.padded([(height, width)])
    return F.pad(image, (0, to_width - width, 0, to_height - height))
