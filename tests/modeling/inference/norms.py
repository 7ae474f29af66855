"""Statistics and affine parameters under which a norm that is folded wrongly shows."""

import torch
from torch import nn


def draw_statistics(module: nn.Module, seed: int = 0) -> nn.Module:
    """Give every batch norm, live or frozen, statistics far from zero and one."""
    generator = torch.Generator().manual_seed(seed)
    for norm in module.modules():
        if getattr(norm, "running_mean", None) is None:
            continue
        norm.running_mean.data.normal_(0, 0.3, generator=generator)
        norm.running_var.data.uniform_(0.5, 1.5, generator=generator)
        if norm.weight is not None:
            norm.weight.data.uniform_(0.5, 1.5, generator=generator)
            norm.bias.data.normal_(0, 0.3, generator=generator)
    return module
