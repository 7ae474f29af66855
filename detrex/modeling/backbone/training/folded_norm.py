"""Frozen norms as a part of the convolution before them, in training.

``norm(conv(x))`` is ``conv(x)`` with other weights, ``w * scale`` and the bias ``shift``, made anew
in each call: two passes over the outputs less each way, the same numbers up to rounding, and the
same parameters with the same gradients. The weights so made are not kept for the backward pass,
which makes them again. Modules, their names and their tensors stay as they are.
"""

import contextlib
import functools
import logging
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.layers import Conv2d
from jaxtyping import Float
from torch import Tensor, nn

from detrex.modeling.backbone.inspection.meta_run import meta_twin
from detrex.modeling.inference.norm_finder import find_foldable_norms
from detrex.modeling.inference.norm_folding import (
    STATISTICS,
    has_fixed_statistics,
    layers_after_norm,
    norm_scale_and_shift,
)

logger = logging.getLogger(__name__)


class ConvWithNorm(Conv2d):
    """detectron2's convolution with norm and activation inside, a frozen norm folded in training.

    In evaluation, under ``torch.compile`` and ``torch.func``, with other norms and where somebody
    listens to the norm, it is detectron2's.
    """

    def forward(self, x: Float[Tensor, "n _ _ _"]) -> Float[Tensor, "n _ _ _"]:
        """Convolve, normalise and activate ``(N, C, H, W)``."""
        if self.norm is None or not folds(self, self.norm):
            return super().forward(x)
        x = layers_after_norm(self.norm)(conv_with_norm(self, self.norm, x))
        return x if self.activation is None else self.activation(x)


def fold_norms_in_training(network: nn.Module) -> None:
    """Let a network's convolutions of detectron2's kind fold their frozen norms.

    Args:
        network: its convolutions change their class, and nothing else changes.
    """
    for module in network.modules():
        if type(module) is Conv2d and module.norm is not None:
            module.__class__ = ConvWithNorm


class NormFolding:
    """Folds the frozen norms of any network, for the length of each call in training.

    Which norm takes all that which convolution gives is found by a run of a copy on the ``meta``
    device at the first call, and again where a module was exchanged or changed its mode. Threads
    may not train one network at the same time: the modules' forwards are exchanged during a call.
    """

    def __init__(self) -> None:
        self._state: tuple[Any, ...] = ()
        self._pairs: list[tuple[str, str]] = []

    @contextlib.contextmanager
    def during(self, network: nn.Module, images: Tensor) -> Iterator[None]:
        """Fold norms inside a ``with`` block, in which the network is called.

        Args:
            network: in training mode, or nothing is folded. A network that computes activations
                again in the backward pass, which comes after the block, is left alone.
            images: what it is called with.
        """
        if not network.training or images.is_meta or not torch.is_grad_enabled():
            yield
            return
        changed = []
        try:
            for conv, norm in self._modules(network, images):
                conv.forward = functools.partial(conv_with_norm, conv, norm)  # type: ignore[method-assign]
                norm.forward = layers_after_norm(norm).__call__
                changed += [conv, norm]
            yield
        finally:
            for module in changed:
                del module.forward

    def _modules(self, network: nn.Module, images: Tensor) -> list[tuple[nn.Conv2d, nn.Module]]:
        state = tuple(
            (id(m), m.training, getattr(m, "grad_checkpointing", False), "forward" in vars(m))
            for m in network.modules()
        )
        if state != self._state:
            self._state, self._pairs = state, _pairs_of(network, images)
        modules = [map(network.get_submodule, pair) for pair in self._pairs]
        return [
            (conv, norm)
            for conv, norm in modules
            if isinstance(conv, nn.Conv2d) and not _is_heard(conv) and folds(conv, norm)
        ]


def _pairs_of(network: nn.Module, images: Tensor) -> list[tuple[str, str]]:
    """Names of convolutions and of the norms that can be folded into them."""
    if any("forward" in vars(m) for m in network.modules()) or not any(
        has_fixed_statistics(m) for m in network.modules()
    ):
        return []
    image = torch.empty_like(images, device="meta")
    try:
        with torch.random.fork_rng(devices=[]):
            twin = meta_twin(network)
            # A network that computes activations again keeps something else in their place.
            with torch.autograd.graph.disable_saved_tensors_hooks("computes activations again"):
                twin(image)
            pairs = find_foldable_norms(twin, lambda twin: twin(image))
    except Exception as error:  # any forward may fail without values
        logger.debug("no norms of %s are folded: %s", type(network).__name__, error)
        return []
    named = [(network.get_submodule(pair.conv), pair.conv, pair.norm) for pair in pairs]
    return [(conv, norm) for module, conv, norm in named if _is_plain(module)]


def _is_plain(conv: nn.Module) -> bool:
    own = (type(conv).forward, getattr(type(conv), "_conv_forward", None))
    return own == (nn.Conv2d.forward, nn.Conv2d._conv_forward)


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
        and not torch._C._are_functorch_transforms_active()
        and has_fixed_statistics(norm)
        and not any(value.requires_grad for value in _tensors_of(norm))
        and not _is_heard(norm)
    )


def _is_heard(module: nn.Module) -> bool:
    forward = module._forward_hooks or module._forward_pre_hooks
    return bool(forward or module._backward_hooks or module._backward_pre_hooks)


def _tensors_of(norm: nn.Module) -> list[Tensor]:
    return [value for name in STATISTICS if (value := getattr(norm, name)) is not None]


def conv_with_norm(
    conv: nn.Conv2d, norm: nn.Module, x: Float[Tensor, "n _ _ _"]
) -> Float[Tensor, "n _ _ _"]:
    """Convolve and normalise in one.

    Args:
        conv: a convolution whose outputs all go into the norm.
        norm: see `folds`.
        x: ``(N, C, H, W)`` in the number format of the weight, or under autocast any.

    Returns:
        What ``norm(conv(x))`` gives, before the norm's own activation.
    """
    kind = x.device.type
    # There is no autocast of the meta device, and to ask for it is an error.
    if kind != "meta" and torch.is_autocast_enabled(kind) and x.dtype is not torch.float64:
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
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, weight, scale, _, *ctx.geometry = inputs
        ctx.save_for_backward(x, weight, scale)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
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
