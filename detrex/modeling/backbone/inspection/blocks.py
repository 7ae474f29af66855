"""The repeated blocks of a network, found in its tree of modules."""

import re
from collections import Counter
from typing import Any

from torch import nn


def block_names(network: nn.Module) -> list[str]:
    """Find the repeated blocks of a network in its tree of modules.

    Args:
        network: any module, or an extractor of torchvision.

    Returns:
        Names of modules, none inside another, in the order of the tree.
    """
    chains = [module for module in network.modules() if _is_chain(module)]
    members = [
        [(_kind(member, chain), member) for member in chain.children() if _is_composite(member)]
        for chain in chains
    ]
    counts = Counter(kind for row in members for kind, _ in row)
    repeated = {kind for kind, count in counts.items() if count > 1}
    found = {id(member) for row in members for kind, member in row if kind in repeated}
    inner = {
        key: any(id(m) in found for m in module.modules() if m is not module)
        for module in network.modules()
        if (key := id(module)) in found
    }
    return [name for name, m in network.named_modules() if inner.get(id(m)) is False]


def _is_chain(module: nn.Module) -> bool:
    if isinstance(module, nn.Sequential | nn.ModuleList | nn.ModuleDict):
        return True
    # An extractor's containers have lost their classes, and kept the names of their members.
    names = list(module._modules)
    stems = {re.sub(r"\d+$", "", name) for name in names}
    return type(module) is nn.Module and len(stems) == 1 and names[0][-1].isdigit()


def _is_composite(module: nn.Module) -> bool:
    """Whether a module has parameters and is more than a row of others."""
    children = list(module._modules)
    plain_row = all(name.isdigit() for name in children)
    return not plain_row and any(True for _ in module.parameters())


def _kind(member: nn.Module, chain: nn.Module) -> Any:
    """What members of a chain have in common: in an extractor, no more than the chain."""
    return id(chain) if type(member) is nn.Module else type(member)
