"""What of a network no chosen map depends on: blocks beyond the last one, poolers, mask tokens."""

from collections.abc import Iterable, Iterator

import torch
from torch import nn

from detrex.modeling.backbone.features.network_spec import NetworkSpec
from detrex.modeling.backbone.inspection.meta_run import (
    meta_twin,
    run_on_meta,
    unused_parameters,
)


def find_unused_parts(network: nn.Module, spec: NetworkSpec) -> tuple[str, ...]:
    """Find the modules and parameters that can be left out, by runs on the ``meta`` device.

    Args:
        network: gives the chosen maps; it is not changed.
        spec: the images that it takes.

    Returns:
        Their names, without any of which the network gives the same maps, in the order in which
        they are to be left out. What a forward cannot do without is not among them.
    """
    run = run_on_meta(network, [spec.example_size], spec.in_channels)
    unused = set(unused_parameters(run.twin, run.outputs))
    shapes = [output.shape for output in run.outputs]
    used = {name for name, p in run.twin.named_parameters() if p.requires_grad} - unused

    def is_equal(names: Iterable[str]) -> bool:
        twin = meta_twin(network).eval()
        leave_out(twin, names)
        try:
            with torch.enable_grad():
                outputs = twin(run.image)
        except Exception:  # a forward may miss a part in its own way
            return False
        rest = {name for name, p in twin.named_parameters() if p.requires_grad}
        without = rest - set(unused_parameters(twin, outputs))
        return [output.shape for output in outputs] == shapes and without == used

    # The last blocks first: a chain is cut from its end.
    candidates = list(_outermost(run.twin, unused))[::-1]
    if not candidates or is_equal(candidates):
        return tuple(candidates)
    kept: list[str] = []
    for name in candidates:
        if is_equal([*kept, name]):
            kept.append(name)
    return tuple(kept)


def leave_out(network: nn.Module, names: Iterable[str]) -> None:
    """Leave parts out of a network, in place.

    Args:
        network: changed.
        names: as of `find_unused_parts`; of a chain only its last member is left out, and any other
            module becomes one that does nothing.
    """
    for name in names:
        path, _, last = name.rpartition(".")
        parent = network.get_submodule(path)
        if isinstance(parent, nn.ModuleList):
            if int(last) == len(parent) - 1:
                del parent[int(last)]
        elif isinstance(parent, nn.ModuleDict | nn.Sequential):
            del parent._modules[last]
        else:
            is_module = isinstance(getattr(parent, last), nn.Module)
            setattr(parent, last, nn.Identity() if is_module else None)


def _outermost(module: nn.Module, unused: set[str], path: str = "") -> Iterator[str]:
    """Modules of which every parameter is unused, and single ones of the others."""
    for name, _ in module.named_parameters(recurse=False):
        if f"{path}{name}" in unused:
            yield f"{path}{name}"
    for name, child in module.named_children():
        inner = [f"{path}{name}.{own}" for own, _ in child.named_parameters()]
        if inner and unused.issuperset(inner):
            yield f"{path}{name}"
        else:
            yield from _outermost(child, unused, f"{path}{name}.")
