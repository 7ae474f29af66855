"""Frozen norms as a part of the convolution before them, in training.

``norm(conv(x))`` is ``conv(x)`` with other weights, ``w * scale`` and the bias ``shift``, made anew
in each call: two passes over the outputs less each way, the same numbers up to rounding, and the
same parameters with the same gradients. The weights so made are not kept for the backward pass,
which makes them again. Modules, their names and their tensors stay as they are.
"""

from typing import Any

import torch
import torch.nn.functional as F
from detectron2.layers import Conv2d
from torch import Tensor, nn

from detrex.modeling.inference.norm_folding import (
    STATISTICS,
    has_fixed_statistics,
    norm_scale_and_shift,
)


class ConvWithNorm(Conv2d):
    """detectron2's convolution with norm and activation inside, a frozen norm folded in training.

    In evaluation, under ``torch.compile``, with other norms and where somebody listens to the norm,
    it is detectron2's.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Convolve, normalise and activate ``(N, C, H, W)``."""
        if self.norm is None or not folds(self, self.norm):
            return super().forward(x)
        x = conv_with_norm(self, self.norm, x)
        return x if self.activation is None else self.activation(x)


def fold_norms_in_training(network: nn.Module) -> None:
    """Let a network's convolutions of detectron2's kind fold their frozen norms.

    Args:
        network: its convolutions change their class, and nothing else changes.
    """
    for module in network.modules():
        if type(module) is Conv2d and module.norm is not None:
            module.__class__ = ConvWithNorm


def folds(conv: nn.Module, norm: nn.Module) -> bool:
    """Whether a norm is folded: frozen, without a gradient of its own, and nobody listens to it.

    Args:
        conv: the convolution, in training mode.
        norm: the norm that takes all of its outputs.
    """
    return (
        conv.training
        and conv.padding_mode == "zeros"
        and not isinstance(conv.padding, str)
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
        and has_fixed_statistics(norm)
        and not any(value.requires_grad for value in _tensors_of(norm))
        and not (norm._forward_hooks or norm._forward_pre_hooks)
        and not (norm._backward_hooks or norm._backward_pre_hooks)
    )


def _tensors_of(norm: nn.Module) -> list[Tensor]:
    return [value for name in STATISTICS if (value := getattr(norm, name)) is not None]


def conv_with_norm(conv: nn.Conv2d, norm: nn.Module, x: Tensor) -> Tensor:
    """Convolve and normalise in one.

    Args:
        conv: a convolution whose outputs all go into the norm.
        norm: see `folds`.
        x: ``(N, C, H, W)`` in the number format of the weight, or under autocast any.

    Returns:
        What ``norm(conv(x))`` gives, before the norm's own activation.
    """
    kind = x.device.type
    if torch.is_autocast_enabled(kind) and x.dtype is not torch.float64:
        x = x.to(torch.get_autocast_dtype(kind))
    scale, shift = norm_scale_and_shift(norm, torch.promote_types(conv.weight.dtype, torch.float32))
    if conv.bias is not None:
        shift = shift + conv.bias * scale
    geometry = (conv.stride, conv.padding, conv.dilation, conv.groups)
    return _Folded.apply(x, conv.weight, scale, shift, *geometry)


class _Folded(torch.autograd.Function):
    """A convolution whose weight is scaled by output channel, forward and backward."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, scale: Tensor, shift: Tensor, *geometry: Any) -> Tensor:
        return F.conv2d(x, _scaled(weight, scale, x), shift.to(x.dtype), *geometry)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        x, weight, scale, _, *ctx.geometry = inputs
        ctx.save_for_backward(x, weight, scale)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple:
        x, weight, scale = ctx.saved_tensors
        stride, padding, dilation, groups = ctx.geometry
        of_x, of_weight, of_shift = torch.ops.aten.convolution_backward(
            grad,
            x,
            _scaled(weight, scale, x),
            [len(scale)],
            stride,
            padding,
            dilation,
            False,
            [0, 0],
            groups,
            [ctx.needs_input_grad[i] for i in (0, 1, 3)],
        )
        if of_weight is not None:
            of_weight = _scaled(of_weight, scale, weight)
        return of_x, of_weight, None, of_shift, None, None, None, None


def _scaled(weight: Tensor, scale: Tensor, like: Tensor) -> Tensor:
    return (weight * scale.view(-1, 1, 1, 1)).to(like.dtype)
