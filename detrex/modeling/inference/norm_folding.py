"""A batch norm with fixed statistics as a part of the convolution before it."""

import functools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

STATISTICS = ("running_mean", "running_var", "weight", "bias")
"""Attributes of a batch norm, in all libraries; the last two may be None."""


@dataclass(frozen=True)
class NormAfterConv:
    """A convolution and the norm that all of its outputs go into.

    Attributes:
        conv: name of the convolution in the network that was run.
        norm: name of the norm.
    """

    conv: str
    norm: str


def has_fixed_statistics(module: nn.Module) -> bool:
    """Tell a norm that is a scale and a shift in its present mode, and then drops and activates.

    Args:
        module: any module.

    Returns:
        True for frozen batch norms in either mode and for batch norms in evaluation mode, of
        torch, detectron2, torchvision, timm and this package; False for norms without running
        statistics, for those in training mode, and for classes with a forward of their own.
    """
    if type(module).forward in _frozen_forwards():
        return True
    return (
        type(module).forward in _live_forwards()
        and isinstance(module, _BatchNorm)
        and not module.training
        and module.running_mean is not None
        and module.running_var is not None
    )


def norm_scale_and_shift(
    norm: nn.Module, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor]:
    """Give the scale and the shift that a norm with fixed statistics is.

    Args:
        norm: see `has_fixed_statistics`.
        dtype: number format to compute in.

    Returns:
        Two tensors ``(C,)`` in that format without gradient.
    """
    mean, variance, weight, bias = (
        None if value is None else value.detach().to(dtype)
        for value in (getattr(norm, name) for name in STATISTICS)
    )
    assert mean is not None
    assert variance is not None
    scale = (variance + norm.eps).rsqrt()
    scale = scale if weight is None else scale * weight
    shift = -mean * scale
    return scale, shift if bias is None else shift + bias


def layers_after_norm(norm: nn.Module) -> nn.Module:
    """Give what a norm does after its scale and shift: its drop layer and its activation.

    Args:
        norm: see `has_fixed_statistics`.

    Returns:
        The norm's own layers; an `nn.Identity` where it has none.
    """
    fused = [getattr(norm, name, None) for name in ("drop", "act")]
    layers = [m for m in fused if m is not None and not isinstance(m, nn.Identity)]
    return nn.Sequential(*layers) if len(layers) > 1 else (layers or [nn.Identity()])[0]


@torch.no_grad()
def folded_weights(conv: nn.Module, norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Give the weight and the bias of the convolution that also does a norm's scale and shift.

    Args:
        conv: a convolution of one to three dimensions, transposed or not.
        norm: the norm that follows; see `has_fixed_statistics`.

    Returns:
        New tensors in the shape and number format of the convolution's weight, rounded once.
    """
    assert isinstance(conv, _ConvNd)
    scale, shift = norm_scale_and_shift(norm)
    weight = conv.weight.double()
    if isinstance(conv, _ConvTransposeNd):  # (in, out / groups, ...)
        per_group = scale.view(conv.groups, 1, -1, *[1] * (weight.dim() - 2))
        folded = (weight.unflatten(0, (conv.groups, -1)) * per_group).flatten(0, 1)
    else:
        folded = weight * scale.view(-1, *[1] * (weight.dim() - 1))
    bias = shift if conv.bias is None else shift + conv.bias.double() * scale
    return folded.to(conv.weight.dtype), bias.to(conv.weight.dtype)


def fold_norms(network: nn.Module, pairs: list[NormAfterConv]) -> None:
    """Put norms into the convolutions before them.

    Args:
        network: changed in place: the convolutions get new parameters without gradient, and the
            norms are replaced by their activations, by `nn.Identity` where they have none.
        pairs: what `find_foldable_norms` found in it, or in its twin.
    """
    replaced: dict[int, nn.Module] = {}
    for pair in pairs:
        conv, norm = network.get_submodule(pair.conv), network.get_submodule(pair.norm)
        weight, bias = folded_weights(conv, norm)
        conv.weight = nn.Parameter(weight, requires_grad=False)
        conv.bias = nn.Parameter(bias, requires_grad=False)
        replaced[id(norm)] = layers_after_norm(norm)
    for module in list(network.modules()):
        for name, child in module._modules.items():
            if id(child) in replaced:
                module._modules[name] = replaced[id(child)].train(module.training)


@functools.cache
def _live_forwards() -> frozenset[Any]:
    """Forwards of batch norms that do no more in evaluation mode than the fused layers say."""
    from detectron2.layers import NaiveSyncBatchNorm
    from timm.layers import BatchNormAct2d, SyncBatchNormAct

    classes = (_BatchNorm, nn.SyncBatchNorm, NaiveSyncBatchNorm, BatchNormAct2d, SyncBatchNormAct)
    return frozenset(norm.forward for norm in classes)


@functools.cache
def _frozen_forwards() -> frozenset[Any]:
    import torchvision
    from detectron2.layers import FrozenBatchNorm2d
    from timm.layers import norm_act

    from detrex.modeling.backbone.training.frozen_norm import FrozenBatchNormAct

    classes: tuple[Any, ...] = (FrozenBatchNorm2d, torchvision.ops.FrozenBatchNorm2d)
    classes += (FrozenBatchNormAct, norm_act.FrozenBatchNorm2d, norm_act.FrozenBatchNormAct2d)
    return frozenset(norm.forward for norm in classes)
