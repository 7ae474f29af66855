"""The stage that a C4 detector runs on each region, for another backbone."""

import copy
import logging
import math
import re
from typing import Any

from detectron2.config import LazyCall
from detectron2.modeling.backbone import BottleneckBlock
from detectron2.modeling.backbone import ResNet as _ResNet
from omegaconf import DictConfig, OmegaConf
from torch import nn

from detrex.config.backbone_node import (
    build_without_weights,
    names_by_stride,
    published_shapes,
    says_strides,
    without_references,
)
from detrex.config.building import first_line, with_full_stop
from detrex.config.lazy_call import target_name

logger = logging.getLogger(__name__)

_STAGE = "detrex.modeling.backbone.RoiStage"


def fit_region_stage(model: DictConfig, path: str, built: nn.Module, asked: DictConfig) -> None:
    """Let the stage that runs on regions be the new backbone's own, or one without weights.

    Args:
        model: the detector's config with its new backbone, changed in place.
        path: where the backbone stands.
        built: the backbone on ``meta``.
        asked: its call as the user wrote it, with maps that the backbone may have been relieved of.
    """
    heads = model.roi_heads
    name = str(heads.in_features[0])
    channels = (published_shapes(built) or {})[name].channels
    old_channels = heads.res5.get("out_channels")
    if isinstance(built, _ResNet) and heads.res5.get("in_channels") == channels:
        return  # the stage of ResNet-50, 101 and 152 is one and the same
    try:
        heads.res5, heads.pooler.output_size = _own_stage(model, path, built, asked)
    except _NoStageError as error:
        logger.warning(
            "roi_heads.res5 starts from random weights, for %s has no stage of its own to run on "
            "regions: %s",
            *(target_name(OmegaConf.select(model, path)), with_full_stop(str(error))),
        )
        heads.res5 = _new_stage(heads.res5, channels)
    for head in (heads.get("box_predictor"), heads.get("mask_head")):
        shape: Any = head.get("input_shape") if isinstance(head, DictConfig) else None
        written = isinstance(shape, DictConfig) and not OmegaConf.is_interpolation(
            shape, "channels"
        )
        if written and shape.channels == old_channels:
            shape.channels = heads.res5.out_channels


class _NoStageError(Exception):
    """A backbone has no stage for regions; the message is a clause that says why."""


def _own_stage(
    model: DictConfig, path: str, built: nn.Module, asked: DictConfig
) -> tuple[DictConfig, int]:
    """Give the call of the backbone's own stage, and the side of regions that it takes."""
    backbone, name = OmegaConf.select(model, path), str(model.roi_heads.in_features[0])
    stride = (published_shapes(built) or {})[name].stride
    node = copy.deepcopy(backbone)
    if says_strides(node):
        node.out_strides = [stride, 2 * stride]
    elif node.get("out_features") is not None:
        following = re.sub(r"\d+$", lambda number: str(int(number[0]) + 1), name)
        node.out_features = [name, following]
    else:
        node = copy.deepcopy(asked)
    try:
        whole = published_shapes(build_without_weights(node)) or {}
    except Exception as error:  # constructors can fail in any way
        raise _NoStageError(first_line(error)) from error
    last = names_by_stride(whole).get(2 * stride)
    if name not in whole or last is None:
        raise _NoStageError(
            f"with {', '.join(whole)} it gives no map of stride {2 * stride} beside {name}, which "
            "out_strides would ask for"
        )
    same = [key for key in node if key in backbone and node[key] == backbone[key]]
    reasons, resolved = [], without_references(node)
    for side in _sides(
        model.roi_heads.pooler.output_size, stride, getattr(built, "size_divisibility", 0)
    ):
        call: dict[Any, Any] = {
            "_target_": _STAGE,
            "in_feature": name,
            "out_feature": last,
            "pooled_size": side,
        }
        trial = DictConfig({**call, "backbone": resolved}, flags={"allow_objects": True})
        try:
            build_without_weights(trial, "cpu")
        except Exception as error:  # constructors can fail in any way
            reasons.append(str(error).rstrip("."))
            continue
        for key in node:
            if key in same and key != "_target_":
                node[key] = f"${{....{path}.{key!s}}}"
            elif OmegaConf.is_interpolation(node, key):
                node[key] = resolved[key]
        call |= {"pooled_size": "${..pooler.output_size}", "out_channels": whole[last].channels}
        return DictConfig({**call, "backbone": node}, flags={"allow_objects": True}), side
    raise _NoStageError(reasons[0])


def _sides(asked: Any, stride: int, divisibility: int) -> list[int]:
    """Sides of a region's map, in cells, at which an image of that many cells needs no padding.

    The stage takes squares, for a pair of sides those of the longer.
    """
    asked = asked if isinstance(asked, int) else max(asked)
    divisibility = max(divisibility, 1)
    step = divisibility // math.gcd(divisibility, stride)
    return [
        side for side in dict.fromkeys((-(-asked // step) * step, asked // step * step)) if side
    ]


def _new_stage(old: DictConfig, channels: int) -> Any:
    """ResNet's last stage for maps of some channels, with a norm that learns from scratch."""
    widths: dict[str, Any] = {"bottleneck_channels": 512, "out_channels": 2048}
    widths |= {key: old[key] for key in widths if "bottleneck_channels" in old}
    return LazyCall(_ResNet.make_stage)(
        block_class=BottleneckBlock,
        num_blocks=3,
        stride_per_block=[2, 1, 1],
        in_channels=channels,
        norm="GN",
        **widths,
    )
