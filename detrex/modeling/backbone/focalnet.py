"""FocalNet (arXiv:2203.11926) with the names of its official weights.

Inside, feature maps are channels last: ``(N, H, W, C)``.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import nn
from torchvision.ops import StochasticDepth

from detrex.errors import BackboneError

from .arguments import check_switches
from .staged import (
    NUM_STAGES,
    StagedBackbone,
    check_builder,
    check_integer,
    check_number,
    check_stages,
    drop_path_rates,
    init_weights,
)
from .training.activation_checkpointing import checkpoint_blocks

__all__ = ["FocalModulation", "FocalModulationBlock", "FocalNet", "PatchEmbed"]

NormLayer = Callable[[int], nn.Module]

_LAYER_SCALE = 1e-4


class Mlp(nn.Module):
    """Two linear layers with a GELU between them.

    Args:
        in_features: channels of input and output.
        hidden_features: channels between the layers.
        drop: dropout probability after each layer.
    """

    def __init__(self, in_features: int, hidden_features: int, drop: float = 0.0) -> None:
        super().__init__()
        self.fc1 = nn.Linear(in_features, hidden_features)
        self.fc2 = nn.Linear(hidden_features, in_features)
        self.drop = nn.Dropout(drop)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(..., in_features)`` to the same shape."""
        return self.drop(self.fc2(self.drop(F.gelu(self.fc1(x)))))


class FocalModulation(nn.Module):
    """Modulate each cell by its surroundings, gathered from near to far (section 3.2).

    Args:
        dim: channels.
        proj_drop: dropout probability of the output.
        focal_level: number of depthwise convolutions, each over the result of the one before.
        focal_window: side of the first kernel, odd.
        focal_factor: what the side grows by from level to level, even.
        use_postln_in_modulation: normalise before the output projection.
        normalize_modulator: divide the sum over the levels by their number.
    """

    def __init__(
        self,
        dim: int,
        proj_drop: float = 0.0,
        focal_level: int = 2,
        focal_window: int = 7,
        focal_factor: int = 2,
        use_postln_in_modulation: bool = False,
        normalize_modulator: bool = False,
    ) -> None:
        super().__init__()
        self.normalize_modulator = normalize_modulator
        self.f = nn.Linear(dim, 2 * dim + focal_level + 1)
        self.h = nn.Conv2d(dim, dim, kernel_size=1)
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)
        sides = [focal_window + focal_factor * level for level in range(focal_level)]
        self.focal_layers = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(dim, dim, side, padding=side // 2, groups=dim, bias=False), nn.GELU()
            )
            for side in sides
        )
        self.ln = nn.LayerNorm(dim) if use_postln_in_modulation else None

    def forward(self, x: Float[torch.Tensor, "n h w c"]) -> Float[torch.Tensor, "n h w c"]:
        """Map ``(N, H, W, dim)`` to the same shape."""
        dim, levels = x.shape[-1], len(self.focal_layers) + 1
        query, context, gates = self.f(x).permute(0, 3, 1, 2).split((dim, dim, levels), dim=1)
        contexts = []
        for layer in self.focal_layers:
            context = layer(context)
            contexts.append(context)
        contexts.append(F.gelu(context.mean((2, 3), keepdim=True)))
        pairs = zip(contexts, gates.split(1, dim=1), strict=True)
        modulator = sum(context * gate for context, gate in pairs)
        if self.normalize_modulator:
            modulator = modulator / levels
        out = (query * self.h(modulator)).permute(0, 2, 3, 1)
        if self.ln is not None:
            out = self.ln(out)
        return self.proj_drop(self.proj(out))


class FocalModulationBlock(nn.Module):
    """Focal modulation and a two-layer perceptron, each with a residual connection.

    Args:
        dim: channels.
        mlp_ratio: width of the perceptron in terms of `dim`.
        drop: dropout probability.
        drop_path: probability of leaving out either part in training.
        norm_layer: gives a norm for a number of channels.
        use_postln: normalise after each part instead of before.
        use_layerscale: scale the channels of each part, from 1e-4 on.
        **modulation: keywords of `FocalModulation`.
    """

    gamma_1: nn.Parameter | None
    gamma_2: nn.Parameter | None

    def __init__(
        self,
        dim: int,
        mlp_ratio: float = 4.0,
        drop: float = 0.0,
        drop_path: float = 0.0,
        norm_layer: NormLayer = nn.LayerNorm,
        use_postln: bool = False,
        use_layerscale: bool = False,
        **modulation: Any,
    ) -> None:
        super().__init__()
        self.use_postln = use_postln
        self.norm1 = norm_layer(dim)
        self.modulation = FocalModulation(dim, drop, **modulation)
        self.norm2 = norm_layer(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), drop)
        self.drop_path = StochasticDepth(drop_path, "row")
        for name in ("gamma_1", "gamma_2"):
            scale = nn.Parameter(torch.full((dim,), _LAYER_SCALE)) if use_layerscale else None
            self.register_parameter(name, scale)

    def forward(self, x: Float[torch.Tensor, "n h w c"]) -> Float[torch.Tensor, "n h w c"]:
        """Map ``(N, H, W, dim)`` to the same shape."""
        x = x + self._branch(x, self.modulation, self.norm1, self.gamma_1)
        return x + self._branch(x, self.mlp, self.norm2, self.gamma_2)

    def _branch(
        self, x: torch.Tensor, part: nn.Module, norm: nn.Module, gamma: torch.Tensor | None
    ) -> torch.Tensor:
        out = norm(part(x)) if self.use_postln else part(norm(x))
        return self.drop_path(out if gamma is None else gamma * out)


class PatchEmbed(nn.Module):
    """Cut a feature map into patches and embed each; zeros fill the last ones.

    Args:
        patch_size: side of a patch, which is the stride.
        in_chans: channels of the input.
        embed_dim: channels of the output.
        norm_layer: gives a norm for a number of channels, None for none.
        use_conv_embed: overlapping patches, of 7 x 7 in the stem and of 3 x 3 behind it.
        is_stem: whether the input is the image; with `use_conv_embed` the stride is then 4, else 2.
    """

    def __init__(
        self,
        patch_size: int = 4,
        in_chans: int = 3,
        embed_dim: int = 96,
        norm_layer: NormLayer | None = None,
        use_conv_embed: bool = False,
        is_stem: bool = False,
    ) -> None:
        super().__init__()
        side, self.stride, padding = patch_size, patch_size, 0
        if use_conv_embed:
            side, self.stride, padding = (7, 4, 2) if is_stem else (3, 2, 1)
        self.proj = nn.Conv2d(in_chans, embed_dim, side, self.stride, padding)
        self.norm = norm_layer(embed_dim) if norm_layer is not None else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(N, in_chans, H, W)`` to ``(N, H / stride, W / stride, embed_dim)``, rounded up."""
        height, width = x.shape[-2:]
        x = F.pad(x, (0, -width % self.stride, 0, -height % self.stride))
        return self.norm(self.proj(x).permute(0, 2, 3, 1))


class BasicLayer(nn.Module):
    """A stage: blocks, and the patch embedding that leads to the next one.

    Args:
        blocks: the blocks.
        downsample: the patch embedding, None for the last stage.
    """

    def __init__(self, blocks: Iterable[nn.Module], downsample: nn.Module | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample

    def forward(self, x: Float[torch.Tensor, "n h w c"]) -> Float[torch.Tensor, "n h w c"]:
        """Map ``(N, H, W, C)`` to the same shape; `downsample` is left to the network."""
        for block in self.blocks:
            x = block(x)
        return x


class FocalNet(StagedBackbone):
    """FocalNet, with a norm of its own for each feature map that is put out.

    Outputs are ``p0`` (stride 4), ``p1`` (8), ``p2`` (16) and ``p3`` (32) for a `patch_size` of 4,
    for images of any size: zeros fill the last patches, and each map has ``ceil(side / stride)``
    cells.

    Unlike in the original, frozen parts stay in evaluation mode, so that they drop nothing;
    `size_divisibility` is published; and so is the stride of another `patch_size` than 4. Stages
    that no output needs are there, for the names of checkpoints, and are not run.

    Args:
        pretrain_img_size: accepted for configs of the original; no influence.
        patch_size: side of the patches of the image, which is the first stride; without influence
            under `use_conv_embed`.
        in_chans: channels of the image.
        embed_dim: channels of the first stage, doubled in each later one.
        depths: number of blocks of each stage.
        mlp_ratio: width of the perceptrons in terms of a stage's channels.
        drop_rate: dropout probability behind the stem, in perceptrons and of modulations.
        drop_path_rate: probability of leaving out the last block's parts in training, from 0 to 1;
            it rises linearly from 0 at the first.
        norm_layer: gives a norm for a number of channels.
        patch_norm: normalise behind the stem.
        out_indices: stages whose feature maps are put out, 0 to 3.
        frozen_stages: -1 freezes nothing, 0 and 1 the stem, and n from 2 to 5 the stem and n - 1
            stages (for ConvNeXt it is n stages). The norms of the outputs are not frozen.
        focal_levels: number of depthwise convolutions of a modulation, for each stage.
        focal_windows: side of the first of them, odd, for each stage; 2 more from level to level.
        use_conv_embed: overlapping patches, see `PatchEmbed`.
        use_postln: normalise after the parts of a block instead of before.
        use_postln_in_modulation: normalise before the output projection of a modulation, too.
        use_layerscale: scale the channels of each part of a block, from 1e-4 on.
        normalize_modulator: divide the sum over the levels by their number.
        use_checkpoint: compute the activations of blocks again in the backward pass.
        out_features: in the place of `out_indices`, outputs by detectron2's names, such as
            ``("res3", "res4", "res5")``.

    Raises:
        TypeError: a keyword of one integer per stage, or `out_indices`, is no sequence of integers.
        BackboneError: a value is out of its range.
    """

    def __init__(
        self,
        pretrain_img_size: int = 1600,
        patch_size: int = 4,
        in_chans: int = 3,
        embed_dim: int = 96,
        depths: Sequence[int] = (2, 2, 6, 2),
        mlp_ratio: float = 4.0,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.3,
        norm_layer: NormLayer = nn.LayerNorm,
        patch_norm: bool = True,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        frozen_stages: int = -1,
        focal_levels: Sequence[int] = (3, 3, 3, 3),
        focal_windows: Sequence[int] = (3, 3, 3, 3),
        use_conv_embed: bool = False,
        use_postln: bool = False,
        use_postln_in_modulation: bool = False,
        use_layerscale: bool = False,
        normalize_modulator: bool = False,
        use_checkpoint: bool = False,
        *,
        out_features: Sequence[str] | None = None,
    ) -> None:
        sizes = {"patch_size": patch_size, "in_chans": in_chans, "embed_dim": embed_dim}
        for name, size in sizes.items():
            check_integer("FocalNet", name, size, 1)
        check_integer("FocalNet", "frozen_stages", frozen_stages, -1, NUM_STAGES + 1)
        check_number("FocalNet", "drop_rate", drop_rate, 0, 1)
        check_number("FocalNet", "drop_path_rate", drop_path_rate, 0, 1)
        check_number("FocalNet", "mlp_ratio", mlp_ratio, 1 / embed_dim)
        rates = drop_path_rates(drop_path_rate, check_stages("FocalNet", "depths", depths))
        modulations = _modulations(
            focal_levels, focal_windows, use_postln_in_modulation, normalize_modulator
        )
        check_switches(
            patch_norm=patch_norm,
            use_conv_embed=use_conv_embed,
            use_postln=use_postln,
            use_layerscale=use_layerscale,
            use_checkpoint=use_checkpoint,
        )
        check_builder("FocalNet", "norm_layer", norm_layer)
        dims = [embed_dim * 2**stage for stage in range(NUM_STAGES)]
        stride = 4 if use_conv_embed else patch_size
        super().__init__(dims, stride, out_indices, in_chans, out_features)
        stem_norm = norm_layer if patch_norm else None
        self.patch_embed = PatchEmbed(
            patch_size, in_chans, embed_dim, stem_norm, use_conv_embed, is_stem=True
        )
        self.pos_drop = nn.Dropout(drop_rate)
        self.layers = nn.ModuleList()
        for dim, stage_rates, modulation in zip(dims, rates, modulations, strict=True):
            options = (norm_layer, use_postln, use_layerscale)
            blocks = [
                FocalModulationBlock(dim, mlp_ratio, drop_rate, rate, *options, **modulation)
                for rate in stage_rates
            ]
            downsample = (
                PatchEmbed(2, dim, 2 * dim, norm_layer, use_conv_embed) if dim < dims[-1] else None
            )
            self.layers.append(BasicLayer(blocks, downsample))
        for stage in self.out_indices:
            self.add_module(f"norm{stage}", norm_layer(dims[stage]))
        self.apply(init_weights)
        if frozen_stages >= 0:
            layers = (f"layers.{stage}" for stage in range(frozen_stages - 1))
            self.freeze_modules(["patch_embed", "pos_drop", *layers])
        if use_checkpoint:
            checkpoint_blocks(self)

    def forward(
        self, x: Float[torch.Tensor, "n c h w"]
    ) -> dict[str, Float[torch.Tensor, "n _ _ _"]]:
        """Map images ``(N, in_chans, H, W)`` to ``{name: (N, C, H / stride, W / stride)}``."""
        x = self.pos_drop(self.patch_embed(x))
        last = self.out_indices[-1]
        outputs = {}
        for stage, layer in enumerate(self.layers[: last + 1]):
            x = layer(x)
            if stage in self.out_indices:
                norm = self.get_submodule(f"norm{stage}")
                outputs[self.output_names[stage]] = norm(x).permute(0, 3, 1, 2)
            if stage < last:
                x = layer.get_submodule("downsample")(x.permute(0, 3, 1, 2))
        idle = [self.layers[last].downsample, *self.layers[last + 1 :]]
        return self._with_idle(outputs, [module for module in idle if module is not None])


def _modulations(
    focal_levels: Sequence[int], focal_windows: Sequence[int], use_postln: bool, normalize: bool
) -> list[dict[str, Any]]:
    """Keywords of `FocalModulation` for each stage."""
    check_switches(use_postln_in_modulation=use_postln, normalize_modulator=normalize)
    levels = check_stages("FocalNet", "focal_levels", focal_levels, low=0)
    windows = check_stages("FocalNet", "focal_windows", focal_windows)
    if any(side % 2 == 0 for side in windows):
        raise BackboneError(
            f"FocalNet takes odd sides as focal_windows, got {windows}: an even kernel has no cell "
            "in its centre."
        )
    both = {"use_postln_in_modulation": use_postln, "normalize_modulator": normalize}
    return [
        {"focal_level": level, "focal_window": window, **both}
        for level, window in zip(levels, windows, strict=True)
    ]
