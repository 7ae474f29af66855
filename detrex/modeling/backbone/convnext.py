"""ConvNeXt (arXiv:2201.03545) with the names of its official weights."""

import itertools
import math
from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import nn
from torchvision.ops import StochasticDepth

from detrex.layers import LayerNorm

from .arguments import check_switches
from .staged import (
    NUM_STAGES,
    StagedBackbone,
    check_integer,
    check_number,
    check_stages,
    drop_path_rates,
    init_weights,
)
from .training.activation_checkpointing import checkpoint_blocks

__all__ = ["Block", "ConvNeXt"]


class Block(nn.Module):
    """Depthwise 7x7 convolution and a two-layer perceptron, with a residual connection.

    Args:
        dim: channels.
        drop_path: probability of leaving the block out in training.
        layer_scale_init_value: what the scale of each channel starts from; 0 or less for none.
    """

    def __init__(
        self, dim: int, drop_path: float = 0.0, layer_scale_init_value: float = 1e-6
    ) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, kernel_size=7, padding=3, groups=dim)
        self.norm = LayerNorm(dim)
        self.pwconv1 = nn.Linear(dim, 4 * dim)
        self.pwconv2 = nn.Linear(4 * dim, dim)
        scale = torch.full((dim,), float(layer_scale_init_value))
        self.gamma = nn.Parameter(scale) if layer_scale_init_value > 0 else None
        self.drop_path = StochasticDepth(drop_path, "row")

    def forward(self, x: Float[torch.Tensor, "n c h w"]) -> Float[torch.Tensor, "n c h w"]:
        """Map ``(N, dim, H, W)`` to the same shape."""
        out = self.norm(self.dwconv(x).permute(0, 2, 3, 1))
        out = self.pwconv2(F.gelu(self.pwconv1(out)))
        if self.gamma is not None:
            out = self.gamma * out
        return x + self.drop_path(out.permute(0, 3, 1, 2))


class ConvNeXt(StagedBackbone):
    """ConvNeXt, with a norm of its own for each feature map that is put out.

    Outputs are ``p0`` (stride 4), ``p1`` (8), ``p2`` (16) and ``p3`` (32), for images of any size:
    zeros are added at the right and at the bottom, and each map has ``ceil(side / stride)`` cells.

    Unlike in the original, frozen stages stay in evaluation mode, so that they drop no path;
    `size_divisibility` is published; borders are not cut off; and convolutions start from the
    paper's truncated normal distribution, as linear layers do. Stages that no output needs are
    there, for the names of checkpoints, and are not run.

    Args:
        in_chans: channels of the image.
        depths: number of blocks of each stage.
        dims: channels of each stage.
        drop_path_rate: probability of leaving out the last block in training, from 0 to 1; it
            rises linearly from 0 at the first.
        layer_scale_init_value: what the scales of a block's output start from; 0 or less for none.
        out_indices: stages whose feature maps are put out, 0 to 3.
        frozen_stages: number of stages to freeze, with the convolutions before them: -1 or 0 for
            none, to 4. The norms of the outputs are not frozen.
        out_features: in the place of `out_indices`, outputs by detectron2's names, such as
            ``("res3", "res4", "res5")``.
        grad_checkpointing: compute the activations of blocks again in the backward pass.

    Raises:
        TypeError: `depths`, `dims` or `out_indices` is no sequence of integers.
        BackboneError: a value is out of its range.
    """

    def __init__(
        self,
        in_chans: int = 3,
        depths: Sequence[int] = (3, 3, 9, 3),
        dims: Sequence[int] = (96, 192, 384, 768),
        drop_path_rate: float = 0.0,
        layer_scale_init_value: float = 1e-6,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        frozen_stages: int = -1,
        *,
        out_features: Sequence[str] | None = None,
        grad_checkpointing: bool = False,
    ) -> None:
        check_integer("ConvNeXt", "in_chans", in_chans, 1)
        check_integer("ConvNeXt", "frozen_stages", frozen_stages, -1, NUM_STAGES)
        check_number("ConvNeXt", "drop_path_rate", drop_path_rate, 0, 1)
        check_number("ConvNeXt", "layer_scale_init_value", layer_scale_init_value, -math.inf)
        check_switches(grad_checkpointing=grad_checkpointing)
        depths = check_stages("ConvNeXt", "depths", depths)
        dims = check_stages("ConvNeXt", "dims", dims)
        super().__init__(dims, 4, out_indices, in_chans, out_features)
        self.downsample_layers = nn.ModuleList(
            [
                nn.Sequential(
                    nn.Conv2d(in_chans, dims[0], 4, 4), LayerNorm(dims[0], channel_last=False)
                )
            ]
        )
        for dim, next_dim in itertools.pairwise(dims):
            self.downsample_layers.append(
                nn.Sequential(LayerNorm(dim, channel_last=False), nn.Conv2d(dim, next_dim, 2, 2))
            )
        rates = drop_path_rates(drop_path_rate, depths)
        self.stages = nn.ModuleList(
            nn.Sequential(*(Block(dim, rate, layer_scale_init_value) for rate in stage))
            for dim, stage in zip(dims, rates, strict=True)
        )
        for stage in self.out_indices:
            self.add_module(f"norm{stage}", LayerNorm(dims[stage], channel_last=False))
        self.apply(partial(init_weights, kinds=(nn.Conv2d, nn.Linear)))
        kinds = ("downsample_layers", "stages")
        self.freeze_modules(f"{kind}.{stage}" for stage in range(frozen_stages) for kind in kinds)
        if grad_checkpointing:
            checkpoint_blocks(self)

    def forward(
        self, x: Float[torch.Tensor, "n c h w"]
    ) -> dict[str, Float[torch.Tensor, "n _ _ _"]]:
        """Map images ``(N, in_chans, H, W)`` to ``{name: (N, C, H / stride, W / stride)}``."""
        height, width = x.shape[-2:]
        last = self.out_indices[-1]
        # The same whatever is put out, so that a map does not depend on the others.
        x = F.pad(x, (0, -width % self.strides[-1], 0, -height % self.strides[-1]))
        outputs = {}
        for stage in range(last + 1):
            x = self.stages[stage](self.downsample_layers[stage](x))
            if stage in self.out_indices:
                rows, columns = (-(-side // self.strides[stage]) for side in (height, width))
                inside = x[..., :rows, :columns]
                outputs[self.output_names[stage]] = self.get_submodule(f"norm{stage}")(inside)
        return self._with_idle(
            outputs, [*self.downsample_layers[last + 1 :], *self.stages[last + 1 :]]
        )
