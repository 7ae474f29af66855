"""InternImage (arXiv:2211.05778): a transformer's blocks around deformable convolutions v3."""

import logging
import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from detrex.errors import BackboneError, did_you_mean
from detrex.layers.dcn_v3 import (
    ACTIVATIONS,
    NORMS,
    DCNv3,
    Permute,
    build_act_layer,
    build_norm_layer,
)

from .arguments import check_switches
from .staged import (
    NUM_STAGES,
    StagedBackbone,
    check_integer,
    check_integers,
    check_number,
    check_stages,
    drop_path_rates,
    init_weights,
)
from .training.activation_checkpointing import checkpoint_blocks

__all__ = ["InternImage"]

_CHOICES = {
    "core_op": ("DCNv3", "DCNv3_pytorch"),
    "drop_path_type": ("linear", "uniform"),
    "act_layer": tuple(ACTIVATIONS),
    "norm_layer": NORMS,
}
_NORM_SWITCHES = ("post_norm", "level2_post_norm", "res_post_norm")
_SWITCHES = (*_NORM_SWITCHES, "center_feature_scale", "with_cp")

logger = logging.getLogger(__name__)


class Block(nn.Module):
    """A deformable convolution and a perceptron, each added to its input.

    Args:
        channels: channels of the (N, H, W, C) map.
        groups: groups of the convolution.
        drop_path: probability of leaving out a branch in training.
        mlp_ratio: hidden width of the perceptron, in `channels`.
        drop: dropout in the perceptron.
        act_layer: name of the activation.
        post_norm: norms after the branches instead of before them.
        layer_scale: what the scales of the branches' outputs start from; None for none.
        res_post_norm: norms after the branches, besides those before them.
        **conv: further keywords of `DCNv3`.
    """

    def __init__(
        self,
        channels: int,
        groups: int,
        drop_path: float,
        mlp_ratio: float,
        drop: float,
        act_layer: str,
        post_norm: bool,
        layer_scale: float | None,
        res_post_norm: bool,
        **conv: Any,
    ) -> None:
        super().__init__()
        self.norm1 = build_norm_layer(channels, "LN")
        self.dcn = DCNv3(channels=channels, group=groups, act_layer=act_layer, **conv)
        self.drop_path = StochasticDepth(drop_path, "row")
        self.norm2 = build_norm_layer(channels, "LN")
        hidden = int(channels * mlp_ratio)
        self.mlp = nn.Sequential(
            OrderedDict(
                fc1=nn.Linear(channels, hidden),
                act=build_act_layer(act_layer),
                drop1=nn.Dropout(drop),
                fc2=nn.Linear(hidden, channels),
                drop2=nn.Dropout(drop),
            )
        )
        self.post_norm = post_norm
        self.layer_scale = layer_scale is not None
        if layer_scale is not None:
            self.gamma1 = nn.Parameter(torch.full((channels,), float(layer_scale)))
            self.gamma2 = nn.Parameter(torch.full((channels,), float(layer_scale)))
        self.res_post_norm = res_post_norm and not (post_norm or self.layer_scale)
        if res_post_norm:
            self.res_post_norm1 = build_norm_layer(channels, "LN")
            self.res_post_norm2 = build_norm_layer(channels, "LN")

    def forward(self, x: Float[Tensor, "n h w c"]) -> Float[Tensor, "n h w c"]:
        """Map (N, H, W, C) to the same shape."""
        for index, branch in (("1", self.dcn), ("2", self.mlp)):
            norm = getattr(self, f"norm{index}")
            y = norm(branch(x)) if self.post_norm else branch(norm(x))
            if self.layer_scale:
                y = getattr(self, f"gamma{index}") * y
            if self.res_post_norm:
                y = getattr(self, f"res_post_norm{index}")(y)
            x = x + self.drop_path(y)
        return x


class Level(nn.Module):
    """The blocks of one resolution, and what leads to the next.

    Args:
        blocks: the blocks.
        channels: channels of the (N, H, W, C) map.
        norm: put a norm after the last block.
        post_norm_block_ids: blocks that are followed by a norm of their own.
        downsample: layer that halves the resolution for the next level, or None.
    """

    def __init__(
        self,
        blocks: Sequence[Block],
        channels: int,
        norm: bool,
        post_norm_block_ids: Sequence[int],
        downsample: nn.Module | None,
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.norm = build_norm_layer(channels, "LN") if norm else None
        self.post_norm_block_ids = post_norm_block_ids
        self.post_norms = nn.ModuleList(
            build_norm_layer(channels, "LN") for _ in post_norm_block_ids
        )
        self.downsample = downsample

    def forward(self, x: Float[Tensor, "n h w c"]) -> Float[Tensor, "n h w c"]:
        """Map (N, H, W, C) to the same shape; `downsample` is left to the caller."""
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in self.post_norm_block_ids:
                x = self.post_norms[self.post_norm_block_ids.index(index)](x)
        return x if self.norm is None else self.norm(x)


class InternImage(StagedBackbone):
    """InternImage, whose levels are stages of blocks with deformable convolutions.

    Outputs are ``p0`` (stride 4, `channels`), ``p1`` (8, twice as many), ``p2`` (16) and ``p3``
    (32), of ``ceil(side / stride)`` cells for images of any size.

    Unlike in the original, unknown keywords are an error, `size_divisibility` is published, and
    stages can be frozen. Levels that no output needs are there, for the names of checkpoints, and
    are not run.

    Args:
        core_op: ``"DCNv3"`` or ``"DCNv3_pytorch"``, which are one here.
        channels: channels of ``p0``.
        depths: number of blocks of each level.
        groups: groups of the convolutions of each level; they divide its channels.
        mlp_ratio: hidden width of the perceptrons, in channels of the level.
        drop_rate: dropout after the stem and in the perceptrons.
        drop_path_rate: probability of leaving out a branch of the last block in training.
        drop_path_type: ``"linear"`` (rising from 0 at the first block) or ``"uniform"``.
        act_layer: ``"GELU"``, ``"ReLU"`` or ``"SiLU"``.
        norm_layer: ``"LN"`` or ``"BN"``: norms of the stem, between levels, and inside the
            convolutions; all others are layer norms.
        layer_scale: what the scales of the branches' outputs start from; None for none.
        offset_scale: factor of the convolutions' extent and offsets.
        post_norm: norms after the branches instead of before them.
        with_cp: compute the activations of blocks again in the backward pass.
        dw_kernel_size: odd kernel of the convolutions that offsets come from; None for 3.
        level2_post_norm: put norms after some blocks of level 2.
        level2_post_norm_block_ids: the indices of these blocks.
        res_post_norm: norms after the branches, besides those before them. Where `layer_scale` or
            `post_norm` is given too, they are there and are not run, as in the original.
        center_feature_scale: mix the projected input of each convolution into its output.
        out_indices: levels whose feature maps are put out, 0 to 3.
        init_cfg: of no influence, as in the original.
        in_chans: channels of the image.
        frozen_stages: number of levels to freeze, with the layers before them: -1 or 0 for none,
            to 4.
        out_features: in the place of `out_indices`, outputs by detectron2's names, such as
            ``("res3", "res4", "res5")``.
        **kwargs: no keyword more is known; the error names near ones.

    Raises:
        TypeError: an unknown keyword, or a value of another type.
        BackboneError: a value is out of its range.
    """

    def __init__(
        self,
        core_op: str = "DCNv3",
        channels: int = 64,
        depths: Sequence[int] = (3, 4, 18, 5),
        groups: Sequence[int] = (3, 6, 12, 24),
        mlp_ratio: float = 4.0,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.2,
        drop_path_type: str = "linear",
        act_layer: str = "GELU",
        norm_layer: str = "LN",
        layer_scale: float | None = None,
        offset_scale: float = 1.0,
        post_norm: bool = False,
        with_cp: bool = False,
        dw_kernel_size: int | None = None,
        level2_post_norm: bool = False,
        level2_post_norm_block_ids: Sequence[int] | None = None,
        res_post_norm: bool = False,
        center_feature_scale: bool = False,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        init_cfg: Any = None,
        *,
        in_chans: int = 3,
        frozen_stages: int = -1,
        out_features: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        _check_names(locals())
        _check_numbers(locals())
        depths = check_stages("InternImage", "depths", depths)
        widths = [channels * 2**level for level in range(NUM_STAGES)]
        groups = _check_groups(groups, widths)
        norm_ids = level2_post_norm_block_ids if level2_post_norm else None
        norm_ids = _check_block_ids(norm_ids or (), depths[2])
        super().__init__(widths, 4, out_indices, in_chans, out_features)
        block = partial(
            Block,
            mlp_ratio=mlp_ratio,
            drop=drop_rate,
            act_layer=act_layer,
            post_norm=post_norm,
            layer_scale=layer_scale,
            res_post_norm=res_post_norm,
            offset_scale=offset_scale,
            norm_layer=norm_layer,
            dw_kernel_size=dw_kernel_size,
            center_feature_scale=center_feature_scale,
        )
        rates = drop_path_rates(drop_path_rate, depths)
        if drop_path_type == "uniform":
            rates = [[drop_path_rate] * depth for depth in depths]
        self.patch_embed = _stem(in_chans, channels, act_layer, norm_layer)
        self.pos_drop = nn.Dropout(drop_rate)
        self.levels = nn.ModuleList(
            Level(
                [block(channels=width, groups=groups[index], drop_path=r) for r in rates[index]],
                width,
                norm=not post_norm or center_feature_scale,
                post_norm_block_ids=norm_ids if index == 2 else (),
                downsample=_downsample(width, norm_layer) if index < NUM_STAGES - 1 else None,
            )
            for index, width in enumerate(widths)
        )
        self.apply(_init_weights)
        self.freeze_modules(self._first_modules(frozen_stages))
        if with_cp:
            checkpoint_blocks(self)
        if res_post_norm and (post_norm or layer_scale is not None):
            logger.warning(
                "InternImage does not run the norms of res_post_norm, since layer_scale or "
                "post_norm is given too: leave one of them out"
            )

    def _first_modules(self, count: int) -> list[str]:
        """Names of the stem and of the modules of the first levels."""
        names = ["patch_embed", "pos_drop"] if count > 0 else []
        for index, level in enumerate(self.levels[: max(count, 0)]):
            children = [name for name, _ in level.named_children() if name != "downsample"]
            names += [f"levels.{index}.{name}" for name in children]
            names += [f"levels.{index}.downsample"] if index + 1 < count else []
        return names

    def forward(self, x: Float[Tensor, "n c h w"]) -> dict[str, Float[Tensor, "n _ _ _"]]:
        """Map images ``(N, in_chans, H, W)`` to ``{name: (N, C, H / stride, W / stride)}``."""
        x = self.pos_drop(self.patch_embed(x))
        last = self.out_indices[-1]
        outputs = {}
        for index, level in enumerate(self.levels[: last + 1]):
            x = level(x)
            if index in self.out_indices:
                outputs[self.output_names[index]] = x.permute(0, 3, 1, 2)
            if index < last:
                x = self.get_submodule(f"levels.{index}.downsample")(x)
        return self._with_idle(outputs, self._idle_modules(last))

    def _idle_modules(self, last: int) -> list[nn.Module]:
        """What is not run: levels after the last output, and norms that others stand in for."""
        idle: list[nn.Module] = list(self.levels[last + 1 :])
        if idle:
            idle.append(self.get_submodule(f"levels.{last}.downsample"))
        for block in self.levels[: last + 1].modules():
            if isinstance(block, Block) and not block.res_post_norm:
                norms = dict(block.named_children())
                idle += [norms[name] for name in norms if name.startswith("res_post_norm")]
        return idle


def _stem(in_chans: int, channels: int, act_layer: str, norm_layer: str) -> nn.Module:
    half = channels // 2
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(in_chans, half, 3, 2, 1),
            norm1=build_norm_layer(half, norm_layer, "channels_first", "channels_first"),
            act=build_act_layer(act_layer),
            conv2=nn.Conv2d(half, channels, 3, 2, 1),
            norm2=build_norm_layer(channels, norm_layer, "channels_first", "channels_last"),
        )
    )


def _downsample(channels: int, norm_layer: str) -> nn.Module:
    return nn.Sequential(
        OrderedDict(
            permute=Permute(0, 3, 1, 2),
            conv=nn.Conv2d(channels, 2 * channels, 3, 2, 1, bias=False),
            norm=build_norm_layer(2 * channels, norm_layer, "channels_first", "channels_last"),
        )
    )


def _init_weights(module: nn.Module) -> None:
    init_weights(module)
    if isinstance(module, DCNv3):  # after its layers
        module.reset_parameters()


def _check_names(given: Mapping[str, Any]) -> None:
    """Check arguments that are names or switches, and that there is no unknown one."""
    known = [n for n in InternImage.__init__.__annotations__ if n not in ("kwargs", "return")]
    for name in given["kwargs"]:
        hint = did_you_mean(name, known) or f" It takes {', '.join(known)}."
        raise TypeError(f"InternImage takes no keyword {name[:80]!r}.{hint}")
    for name, choices in _CHOICES.items():
        if given[name] not in choices:
            raise BackboneError(
                f"InternImage takes {' or '.join(map(repr, choices))} as {name}, got "
                f"{given[name]!r:.80}.{did_you_mean(given[name], choices)}"
            )
    check_switches(**{name: given[name] for name in _SWITCHES})


def _check_numbers(given: Mapping[str, Any]) -> None:
    """Check arguments that are one number."""
    for name, low, high in (("channels", 2, None), ("in_chans", 1, None), ("frozen_stages", -1, 4)):
        check_integer("InternImage", name, given[name], low, high)
    for name in ("drop_rate", "drop_path_rate"):
        check_number("InternImage", name, given[name], 0, 1)
    check_number("InternImage", "mlp_ratio", given["mlp_ratio"], 1 / given["channels"])
    check_number("InternImage", "offset_scale", given["offset_scale"], -math.inf)
    if given["layer_scale"] is not None:
        check_number("InternImage", "layer_scale", given["layer_scale"], -math.inf)
    kernel = given["dw_kernel_size"]
    if kernel is not None and check_integer("InternImage", "dw_kernel_size", kernel, 1) % 2 == 0:
        raise BackboneError(
            f"InternImage takes an odd dw_kernel_size, got {kernel}, which changes the size of the "
            "map."
        )


def _check_groups(groups: Sequence[int], widths: Sequence[int]) -> list[int]:
    groups = check_stages("InternImage", "groups", groups)
    if any(width % group for width, group in zip(widths, groups, strict=True)):
        raise BackboneError(
            f"InternImage's levels have {', '.join(map(str, widths))} channels, which groups must "
            f"divide, got {groups}."
        )
    return groups


def _check_block_ids(block_ids: Sequence[int], depth: int) -> list[int]:
    ids = check_integers("InternImage", "level2_post_norm_block_ids", block_ids)
    if len(set(ids)) < len(ids) or any(not 0 <= index < depth for index in ids):
        raise BackboneError(
            f"InternImage's level 2 has the blocks 0 to {depth - 1}, got "
            f"level2_post_norm_block_ids={ids!s:.80}: name each at most once."
        )
    return ids
