"""Levels that FPN adds below its last: whether they are what it says.

detectron2's FPN hands its top block the map that the block names, the bottom-up network's before
its own, and publishes a chain of strides from its last level on, whichever map that was.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import FPN, SimpleFeaturePyramid
from torch import nn

from detrex.errors import BackboneError, ConfigError

from .inspection.meta_run import is_on_meta, lacks_values

_FORWARDS = (FPN.forward, SimpleFeaturePyramid.forward)
_SIDE = 64
"""Cells on a side of the map on which a top block is tried."""


def top_levels(top_block: nn.Module, in_feature: str, shape: ShapeSpec) -> list[ShapeSpec]:
    """Try a top block on a map without data, or of zeros where it reads its map's values.

    Args:
        top_block: such as ``LastLevelMaxPool``.
        in_feature: name of the map, for the message.
        shape: its channels and stride.

    Returns:
        Channels and stride of each level that the block gives.

    Raises:
        BackboneError: the block is built for other channels.
    """
    try:
        levels = _levels(top_block, shape.channels or 1)
    except RuntimeError as error:
        raise BackboneError(
            f"the top block {type(top_block).__name__} does not take {in_feature!r} of "
            f"{shape.channels} channels ({str(error).splitlines()[0][:160]}): build it with "
            f"in_channels={shape.channels}."
        ) from error
    return [
        ShapeSpec(channels=lv.shape[1], stride=(shape.stride or 1) * _SIDE // lv.shape[-1])
        for lv in levels
    ]


def _levels(top_block: nn.Module, channels: int) -> Sequence[torch.Tensor]:
    try:
        return _run(top_block, channels, "meta")
    except RuntimeError as error:
        if not (isinstance(error, NotImplementedError) or lacks_values(error)):
            raise
    return _run(top_block, channels, "cpu")


def _run(top_block: nn.Module, channels: int, device: str) -> Sequence[torch.Tensor]:
    block = copy.deepcopy(top_block).eval()
    block = block.to_empty(device=device) if is_on_meta(block) else block.to(device)
    dtype = next((parameter.dtype for parameter in block.parameters()), torch.float32)
    with torch.no_grad():
        return block(torch.zeros(1, channels, _SIDE, _SIDE, dtype=dtype, device=device))


def check_top_block(pyramid: nn.Module) -> None:
    """Refuse a top block whose levels would not have the strides and channels that are published.

    Args:
        pyramid: an FPN or a simple feature pyramid that runs as detectron2's; other modules pass.

    Raises:
        ConfigError: the block's ``in_feature`` names a map that is not there, one that both the
            network and the pyramid have, or one of another stride than the last level.
        BackboneError: the block is built for other channels.
    """
    top_block: Any = getattr(pyramid, "top_block", None)
    if top_block is None or type(pyramid).forward not in _FORWARDS:
        return
    network: Any = getattr(pyramid, "bottom_up", None) or pyramid.net
    in_feature = top_block.in_feature
    maps = network.output_shape()
    levels = list(pyramid.output_shape().items())[: -top_block.num_levels]  # type: ignore[operator]
    who = f"the top block {type(top_block).__name__} of {type(pyramid).__name__} takes the map"
    last, last_shape = levels[-1]
    if in_feature in maps and in_feature in dict(levels):
        raise ConfigError(
            f"{who} {in_feature!r}, which {type(network).__name__} gives as well and which would "
            f"be taken ({maps[in_feature].channels} channels, stride {maps[in_feature].stride}): "
            'call its outputs by strides, such as out_features=["res2", "res3", "res4", "res5"].'
        )
    taken = maps.get(in_feature, dict(levels).get(in_feature))
    if taken is None or taken.stride != last_shape.stride:
        what = "which is not there" if taken is None else f"of stride {taken.stride}"
        raise ConfigError(
            f"{who} {in_feature!r}, {what}, and its levels go on from {last!r} of stride "
            f"{last_shape.stride}: set top_block.in_feature to {last!r}, or leave top_block out."
        )
    top_levels(top_block, in_feature, taken)
