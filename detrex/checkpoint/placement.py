"""Tensors of which each rank holds a part, as FSDP leaves them, beside whole ones.

A sharded tensor is a ``DTensor`` of PyTorch's. Files hold whole tensors; what is loaded into a
sharded one is cut as that is.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


def is_sharded(value: object) -> bool:
    """Tell a tensor of which this rank holds a part."""
    return hasattr(value, "full_tensor")  # to import its class takes a while


def local_part(tensor: Tensor) -> Tensor:
    """Give this rank's part of a sharded tensor, in the same memory; any other as it is."""
    gives: Any = tensor
    return gives.to_local() if is_sharded(tensor) else tensor


@torch.no_grad()
def whole_tensor(tensor: Tensor) -> Tensor:
    """Gather a sharded tensor, which all ranks must call; any other is given as it is."""
    gives: Any = tensor
    return gives.full_tensor() if is_sharded(tensor) else tensor


def placed_like(value: Tensor, like: Tensor) -> Tensor:
    """Cut a whole tensor as another one of its shape is; all ranks must call it with equal values.

    Args:
        value: a whole tensor on any device, or a sharded one.
        like: decides; where it is whole, and where the shapes differ, `value` is given as it is.
    """
    if not is_sharded(like) or is_sharded(value) or value.shape != like.shape:
        return value
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(like, DTensor)
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)


def load_values(module: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Load tensors by name into a module, whose own may be sharded.

    Args:
        module: changed in place; what `values` lack stays as it is.
        values: whole tensors, or tensors that are sharded as the module's are.
    """
    own = module.state_dict(keep_vars=True)
    placed = {name: placed_like(value, own[name]) for name, value in values.items()}
    module.load_state_dict(placed, strict=False)
