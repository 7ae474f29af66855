"""One line about an architecture, as measured on the ``meta`` device through its wrapper.

The rows of all architectures make the table that ``detrex backbones`` searches, and are the proof
that each of them becomes a backbone by its name alone.
"""

import math
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from detrex.errors import BackboneError
from detrex.modeling.backbone.features.coverage import Size, round_up
from detrex.modeling.backbone.inspection.meta_run import meta_twin
from detrex.modeling.backbone.training.norms import norm_kind
from detrex.modeling.backbone.wrapper.wrapper_backbone import WrapperBackbone

OUT_STRIDES = (8, 16, 32)
TRAINING_SIZE: Size = (800, 1333)
FLOPS_SIZE: Size = (640, 640)


def survey(name: str, library: str) -> dict[str, Any]:
    """Build an architecture by stride, run it on a detection image, and write down what it is.

    Args:
        name: architecture of the library.
        library: ``"timm"`` or ``"torchvision"``.

    Returns:
        A row of plain values. ``ok`` says whether res3, res4 and res5 came with their true shapes
        for an image of 800 x 1333, padded as published; ``reason`` why not. ``strides`` and
        ``channels`` are those of the network's own maps; ``gflops`` are multiply-adds of the
        network in units of 1e9 for an image of 640 x 640.

    Raises:
        ValueError: `library` is none of the two.
    """
    if library not in ("timm", "torchvision"):
        raise ValueError(f"library must be 'timm' or 'torchvision', got {library!r}.")
    start = time.perf_counter()
    row: dict[str, Any] = {"name": name, "library": library, "ok": False, "reason": ""}
    try:
        backbone = build_on_meta(name, library, out_strides=OUT_STRIDES)
        row |= describe(backbone)
        row["reason"] = wrong_levels(backbone, TRAINING_SIZE)
        row["ok"] = not row["reason"]
    except Exception as error:  # one architecture's failure is its row, not the end of the survey
        row["reason"] = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    row["seconds"] = round(time.perf_counter() - start, 2)
    return row


def build_on_meta(name: str, library: str, **keywords: Any) -> WrapperBackbone:
    """Build a backbone without weights, and without memory for them where that is possible.

    Args:
        name: architecture of the library.
        library: ``"timm"`` or ``"torchvision"``.
        **keywords: for the wrapper.

    Returns:
        The backbone in evaluation mode, on ``meta``; a few whose constructor computes with values,
        such as torchvision's RegNet, are built on the CPU and then moved.

    Raises:
        BackboneError: see the wrappers.
    """
    if library == "timm":
        from detrex.modeling.backbone.timm_backbone import TimmBackbone as Wrapper
    else:
        from detrex.modeling.backbone.torchvision_backbone import TorchvisionBackbone as Wrapper  # type: ignore[assignment]
    try:
        with torch.device("meta"):
            return Wrapper(name, **keywords).eval()
    except (NotImplementedError, BackboneError):
        return Wrapper(name, **keywords).eval().to("meta")


def describe(backbone: WrapperBackbone) -> dict[str, Any]:
    """Write down what a backbone's network is.

    Args:
        backbone: as from `build_on_meta`.

    Returns:
        Plain values: see `survey`.
    """
    network = backbone.network
    maps = backbone.spec.features
    last = {feature.stride: feature for feature in maps}
    strides = sorted(last)
    rule = backbone.input_size
    return {
        "strides": strides,
        "channels": [last[stride].channels for stride in strides],
        "kind": kind_of(strides),
        "layout": maps[-1].layout,
        "params": sum(p.numel() for p in network.parameters()),
        "gflops": round(multiply_adds_for(backbone, FLOPS_SIZE) / 1e9, 3),
        "norm": norm_kind(network),
        "multiple": rule.multiple,
        "tile": list(rule.tile) if rule.tile else None,
        "keywords": dict(rule.keywords),
        "levels": {f.name: f.channels for f in backbone.features},
        "derivations": {f.name: f.derivation for f in backbone.features if f.derivation},
        "mean": list(backbone.preprocess.pixel_mean),
        "std": list(backbone.preprocess.pixel_std),
    }


def kind_of(strides: Sequence[int]) -> str:
    """Name what a network is by the strides of its maps.

    Args:
        strides: different ones, rising.

    Returns:
        ``"flat"`` for one stride, ``"pyramid"`` where 8, 16 and 32 are among them, else
        ``"partial"``.
    """
    if len(strides) == 1:
        return "flat"
    return "pyramid" if set(OUT_STRIDES) <= set(strides) else "partial"


def count_tiles(backbone: WrapperBackbone, image_size: Size) -> int:
    """Count the pieces in which the network sees an image; 1 where it takes it whole."""
    fitted = backbone.fitted_size(image_size)
    tile = backbone.input_size.tile or fitted
    return math.prod(whole // part for whole, part in zip(fitted, tile, strict=True))


def multiply_adds_for(backbone: WrapperBackbone, image_size: Size) -> int:
    """Count the multiply-adds of a backbone's network for an image of any size, in its tiles.

    Args:
        backbone: as from `build_on_meta`.
        image_size: height and width in pixels, before padding.
    """
    size = backbone.input_size.tile or backbone.fitted_size(image_size)
    return count_tiles(backbone, image_size) * multiply_adds(backbone.network, size)


def multiply_adds(network: nn.Module, size: Size, in_channels: int = 3) -> int:
    """Count a network's multiplications with addition, for one image.

    Args:
        network: any network on the ``meta`` device.
        size: height and width of the image in pixels.
        in_channels: its channels.

    Returns:
        The number for convolutions, matrix products and attention, as torch counts them, halved:
        torch counts a multiplication and an addition as two.
    """
    network = meta_twin(network).requires_grad_(False)  # the counter hooks onto gradients otherwise
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.empty(1, in_channels, *size, device="meta"))
    return counter.get_total_flops() // 2


def wrong_levels(backbone: WrapperBackbone, image_size: Size, in_channels: int = 3) -> str:
    """Hold the levels that come out against those that are published.

    Args:
        backbone: a backbone on the ``meta`` device.
        image_size: height and width of an image in pixels; it is padded as published.
        in_channels: its channels.

    Returns:
        What is untrue, empty for nothing.
    """
    step = backbone.size_divisibility or 1
    size = tuple(round_up(side, step) for side in image_size)
    with torch.no_grad():
        outputs = backbone(torch.empty(1, in_channels, *size, device="meta"))
    if list(outputs) != backbone.features.names:
        return f"gives {list(outputs)} where {backbone.features.names} are published"
    for feature in backbone.features:
        level = outputs[feature.name]
        height, width = (-(-side // feature.stride) for side in size)
        if level.shape[1:] != (feature.channels, height, width):
            return (
                f"{feature.name} is {tuple(level.shape)} where {feature.channels} channels of "
                f"{height} x {width} cells are published"
            )
    return ""
