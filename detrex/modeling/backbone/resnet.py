"""ResNet (arXiv:1512.03385), with ResNeXt (1611.05431), DC5 and deformable (1703.06211) stages.

Stem, blocks and network are detectron2's own. What differs here: stages by depth alone, for all
five depths; a deformable block without compiled operators; a ``linear`` output with a shape; frozen
norms as a part of the convolutions in training.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from detectron2.layers import CNNBlockBase, ShapeSpec
from detectron2.modeling.backbone import resnet as d2
from detectron2.modeling.backbone.resnet import BasicBlock, BasicStem, BottleneckBlock
from torch import nn

from detrex.errors import BackboneError, did_you_mean
from detrex.modeling.pixel_statistics import IMAGENET, PixelStatistics

from .deform_bottleneck import DeformBottleneckBlock
from .training.folded_norm import fold_norms_in_training
from .training.freezing import KeepsFrozen

__all__ = [
    "BasicBlock",
    "BasicStem",
    "BottleneckBlock",
    "DeformBottleneckBlock",
    "ResNet",
    "ResNetBlockBase",
    "make_stage",
]

ResNetBlockBase = CNNBlockBase

_BLOCKS_PER_STAGE = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}


class ResNet(KeepsFrozen, d2.ResNet):
    """Residual network (arXiv:1512.03385), detectron2's own.

    Outputs come from the shallowest to the deepest: ``stem`` (stride 4), ``res2`` (4), ``res3``
    (8), ``res4`` (16), ``res5`` (32, or 16 when dilated), ``linear`` (no stride). Stages after the
    last one that is asked for are not built.

    Args:
        stem: first layers, such as `BasicStem`.
        stages: blocks of each stage, from `make_stage` or `ResNet.make_default_stages`.
        num_classes: number of classes of a ``linear`` classifier; None builds none.
        out_features: names of the outputs; None gives the last one.
        freeze_at: number of stages to freeze, 1 being the stem; 0 or less freezes nothing.
        weights: a file, an address, such as ``"detectron2://ImageNetPretrained/..."``, or a state
            dict, with names of detectron2, torchvision or timm.

    Attributes:
        preprocess: ImageNet's statistics in RGB, the convention of torchvision's weights, or those
            of Caffe2's where `weights` are such, as those of detectron2's zoo are. The network
            cannot know which weights it gets later: for detectron2's MSRA weights as
            ``train.init_checkpoint``, write the values of
            `detrex.modeling.pixel_statistics.CAFFE` into the detector's config.

    Raises:
        BackboneError: `out_features` names an output that there is not.
        CheckpointError: `weights` are not there, or too little of them fits.
        DownloadError: `weights` cannot be fetched.
    """

    preprocess: PixelStatistics
    stage_names: tuple[str, ...]
    _out_features: list[str]
    _out_feature_channels: dict[str, int]
    _out_feature_strides: dict[str, int]

    def __init__(
        self,
        stem: nn.Module,
        stages: Sequence[Sequence[CNNBlockBase]],
        num_classes: int | None = None,
        out_features: Sequence[str] | None = None,
        freeze_at: int = 0,
        *,
        weights: str | Path | Mapping[str, Any] | None = None,
    ) -> None:
        names = ["stem", *(f"res{i}" for i in range(2, len(stages) + 2))]
        names += ["linear"] if num_classes is not None else []
        wanted = [names[-1]] if out_features is None else _check_outputs(out_features, names)
        stages = list(stages)
        depth = max(names.index(name) for name in wanted)
        if depth or num_classes is None:
            stages = stages[:depth]
        # detectron2 drops every stage when only "linear" or "stem" is asked for: it gets no names.
        last = None if stages or num_classes is not None else ["stem"]
        super().__init__(stem, stages, num_classes, out_features=last, freeze_at=freeze_at)
        fold_norms_in_training(self)
        self._out_features = [name for name in names if name in wanted]
        if num_classes is not None:
            self._out_feature_channels["linear"] = num_classes
        channels = getattr(stem, "in_channels", 3)
        self.preprocess = IMAGENET.with_channels(channels)
        if weights is not None:
            self._load(weights, channels)

    def _load(self, weights: Any, in_channels: int) -> None:
        from .weights.origins import wrapper_for
        from .weights.pretrained import load_pretrained
        from .weights.source import find_source

        source = dataclasses.replace(
            find_source(weights, "detectron2's 'ResNet'"),
            hint=functools.partial(wrapper_for, library="detectron2", model_name="ResNet"),
        )
        loaded = load_pretrained(self, source, in_channels)
        self.preprocess = loaded.statistics or self.preprocess

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and stride of each output, in order; ``linear`` has no stride."""
        channels, strides = self._out_feature_channels, self._out_feature_strides
        return {
            name: ShapeSpec(channels=channels[name], stride=strides.get(name))
            for name in self._out_features
        }

    def freeze(self, freeze_at: int = 0) -> "ResNet":
        """Freeze the first stages for good, their batch norms included.

        Args:
            freeze_at: 1 freezes the stem, 2 the stem and ``res2``, and so on.

        Returns:
            The network itself.
        """
        super().freeze(freeze_at)
        self.freeze_modules(("stem", *self.stage_names)[: max(freeze_at, 0)])
        return self

    @staticmethod
    def make_default_stages(
        depth: int, block_class: type[CNNBlockBase] | None = None, **kwargs: Any
    ) -> list[list[CNNBlockBase]]:
        """Build the four stages of a standard depth.

        Args:
            depth: 18, 34, 50, 101 or 152.
            block_class: class of the blocks; default `BasicBlock` below 50, else `BottleneckBlock`.
            **kwargs: passed to every block, such as ``norm``. `BasicBlock` has no 1x1 convolution
                to stride, so ``stride_in_1x1`` does nothing there; ``num_groups`` and ``dilation``
                must be 1.

        Returns:
            Blocks of each stage.

        Raises:
            BackboneError: an unknown depth, or a keyword that basic blocks cannot follow.
        """
        _check_depth(depth)
        if (block_class or (BasicBlock if depth < 50 else BottleneckBlock)) is BasicBlock:
            kwargs.pop("stride_in_1x1", None)
            for name in ("num_groups", "dilation"):
                _check_basic(depth, name, kwargs.pop(name, 1), 1)
        return d2.ResNet.make_default_stages(depth, block_class, **kwargs)


def make_stage(
    depth: int = 50,
    norm: Any = "FrozenBN",
    num_groups: int = 1,
    width_per_group: int = 64,
    in_channels: int = 64,
    out_channels: int = 256,
    stride_in_1x1: bool = False,
    res5_dilation: int = 1,
    deform_on_per_stage: Sequence[bool] = (False, False, False, False),
    deform_modulated: bool = False,
    deform_num_groups: int = 1,
) -> list[list[CNNBlockBase]]:
    """Build the four stages of a ResNet by its depth.

    Not to be confused with `ResNet.make_stage`, which builds one stage from a block class.

    Args:
        depth: 18, 34, 50, 101 or 152.
        norm: norm after each convolution, as for detectron2's ``get_norm``.
        num_groups: groups of the 3x3 convolutions; 32 for ResNeXt.
        width_per_group: channels of each group in the first stage.
        in_channels: channels of the stem.
        out_channels: channels of the first stage, doubled in each later one; depths 18 and 34
            have 64.
        stride_in_1x1: put strides into the 1x1 convolutions, as the first Caffe models do.
        res5_dilation: 2 keeps the last stage at stride 16 by dilation (DC5).
        deform_on_per_stage: for each stage, whether its 3x3 convolutions are deformable.
        deform_modulated: learn a weight for each sampled point as well (arXiv:1811.11168).
        deform_num_groups: groups of channels with offsets of their own.

    Returns:
        Blocks of each stage.

    Raises:
        BackboneError: an unknown depth, or an option that does not exist at this depth.
    """
    _check_depth(depth)
    deform = list(deform_on_per_stage)
    if res5_dilation not in (1, 2) or len(deform) != 4:
        raise BackboneError(
            "make_stage expects res5_dilation 1 or 2 and four values in deform_on_per_stage, got "
            f"{res5_dilation!r} and {deform!r}."
        )
    basic = depth < 50
    if basic:
        _check_basic(depth, "out_channels", out_channels, 64)
        _check_basic(depth, "res5_dilation", res5_dilation, 1)
        _check_basic(depth, "num_groups", num_groups, 1)
        _check_basic(depth, "deform_on_per_stage", any(deform), False)
    stages = []
    for index, num_blocks in enumerate(_BLOCKS_PER_STAGE[depth]):
        dilation = res5_dilation if index == 3 else 1
        options: dict[str, Any] = {"block_class": BasicBlock}
        if not basic:
            options = {
                "block_class": BottleneckBlock,
                "bottleneck_channels": num_groups * width_per_group * 2**index,
                "stride_in_1x1": stride_in_1x1,
                "dilation": dilation,
                "num_groups": num_groups,
            }
        if deform[index]:
            options |= {
                "block_class": DeformBottleneckBlock,
                "deform_modulated": deform_modulated,
                "deform_num_groups": deform_num_groups,
            }
        first_stride = 1 if index == 0 or dilation == 2 else 2
        stages.append(
            ResNet.make_stage(
                num_blocks=num_blocks,
                stride_per_block=[first_stride] + [1] * (num_blocks - 1),
                in_channels=in_channels if index == 0 else out_channels * 2 ** (index - 1),
                out_channels=out_channels * 2**index,
                norm=norm,
                **options,
            )
        )
    return stages


def _check_outputs(out_features: Sequence[str], names: list[str]) -> list[str]:
    wanted = [out_features] if isinstance(out_features, str) else list(out_features)
    unknown = [name for name in wanted if name not in names]
    if unknown or not wanted:
        hint = did_you_mean(unknown[0], names) if unknown else ""
        raise BackboneError(
            f"ResNet has the outputs {', '.join(names)}, got out_features={wanted}.{hint}"
        )
    return wanted


def _check_depth(depth: int) -> None:
    if depth not in _BLOCKS_PER_STAGE:
        depths = ", ".join(map(str, _BLOCKS_PER_STAGE))
        raise BackboneError(f"ResNet has the standard depths {depths}, got {depth!r}.")


def _check_basic(depth: int, name: str, value: Any, expected: Any) -> None:
    if value != expected:
        raise BackboneError(
            f"ResNet-{depth} is made of basic blocks, for which {name} must be {expected!r}, got "
            f"{value!r}: set it so, or use a depth of 50 or more."
        )
