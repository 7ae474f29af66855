"""Kernels that sample feature maps at learnt places, and the choice among them."""

from .kernels import (
    attend,
    deformable_attention_kernel,
    set_deformable_attention_kernel,
)

__all__ = [
    "attend",
    "deformable_attention_kernel",
    "set_deformable_attention_kernel",
]
