"""Operators of PyTorch from the two passes of a kernel.

A compiler takes an operator as it is, with symbols for the sizes, and does not step into the Python
behind it. The gradient can be taken once.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload

_LIBRARY = torch.library.Library("detrex", "FRAGMENT")
_INPUTS = "Tensor value, Tensor locations, Tensor weights, SymInt[] sizes"


def make_operators(
    name: str, forward: Callable[..., Tensor], backward: Callable[..., tuple[Tensor, ...]]
) -> Callable[[Tensor, Tensor, Tensor, Sequence[int]], Tensor]:
    """Make ``torch.ops.detrex.NAME`` and ``NAME_backward``.

    Args:
        name: the operator's name.
        forward: takes (N, S, H, D) values, (N, Q, H, L, P, 2) locations, (N, Q, H, L, P) weights,
            and height and width of each level one after another; gives (N, Q, H * D) sums of the
            dtype of the values.
        backward: takes the gradient of the sums and the same; gives the gradients of values,
            locations and weights.

    Returns:
        The operator, with shapes for fake tensors and a formula for autograd.
    """
    _define(name, f"({_INPUTS}) -> Tensor", forward, _shape_of_sums)
    gradients = f"(Tensor grad, {_INPUTS}) -> (Tensor, Tensor, Tensor)"
    derive = _define(f"{name}_backward", gradients, backward, _shapes_of_gradients)

    def differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return *derive(grad, *ctx.saved_tensors, ctx.sizes), None

    _differentiate(f"{name}_backward", _refuse)
    _differentiate(name, differentiate)
    operator: OpOverload = getattr(torch.ops.detrex, name).default
    return operator


def _define(name: str, schema: str, run: Callable[..., Any], shapes: Any) -> OpOverload:
    """Do what `torch.library.custom_op` does, which takes 0.1 s to import."""
    _LIBRARY.define(name + schema, tags=(torch.Tag.pt2_compliant_tag,))
    for key, function in {"CUDA": run, "CPU": run, "Meta": shapes}.items():
        _LIBRARY.impl(name, function, key)
    operator: OpOverload = getattr(torch.ops.detrex, name).default
    return operator


def _differentiate(name: str, derive: Callable[..., Any]) -> None:
    torch.library.register_autograd(
        f"detrex::{name}", derive, setup_context=_keep_inputs, lib=_LIBRARY
    )


def _keep_inputs(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.sizes = inputs
    ctx.save_for_backward(*tensors)


def _refuse(ctx: Any, *grads: Tensor) -> None:
    raise RuntimeError(
        "The gradient of deformable attention can be taken once; this is the second time."
    )


def _shape_of_sums(
    value: Tensor, locations: Tensor, weights: Tensor, sizes: Sequence[int]
) -> Tensor:
    N, _, H, D = value.shape
    return value.new_empty(N, locations.shape[1], H * D)


def _shapes_of_gradients(
    grad: Tensor, value: Tensor, locations: Tensor, weights: Tensor, sizes: Sequence[int]
) -> tuple[Tensor, Tensor, Tensor]:
    return (
        value.new_empty(value.shape),
        locations.new_empty(locations.shape),
        weights.new_empty(weights.shape),
    )
