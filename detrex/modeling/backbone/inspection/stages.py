"""The stages of any network: what ``freeze_at`` counts.

The order in which a network's modules run, and the strides of what they give, tell its stages
apart; no list of names is needed. ``freeze_at`` counts as it does for detectron2's ResNet: 1 is the
stem, 2 the stem and the stage of stride 4, 3 that of stride 8 as well, and so on. A network that
keeps one stride throughout, such as a plain vision transformer, has as its stem the patch
embedding, and as its four stages the quarters of its blocks.
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from .call_order import Call, record_calls
from .meta_run import MetaRun

MAX_FREEZE_AT = 5


@dataclass(frozen=True)
class Stage:
    """What to freeze of a network.

    Attributes:
        modules: names of modules that are frozen with everything inside.
        parameters: names of single parameters, such as position embeddings.
    """

    modules: tuple[str, ...] = ()
    parameters: tuple[str, ...] = ()

    def holds(self, parameter: str) -> bool:
        """Whether a parameter, given by its name, is frozen by the plan."""
        inside = any(parameter.startswith(f"{module}.") for module in self.modules)
        return inside or parameter in self.parameters

    def freeze(self, network: nn.Module) -> tuple[str, ...]:
        """Stop the gradients of what is frozen, and set it to evaluation mode.

        Args:
            network: a network with the names of the one that the plan was made for; parts that it
                does not have are passed over.

        Returns:
            Names of the frozen modules that the network has.
        """
        modules, parameters = dict(network.named_modules()), dict(network.named_parameters())
        present = tuple(name for name in self.modules if name in modules)
        for name in present:
            modules[name].eval().requires_grad_(False)
        for name in self.parameters:
            if name in parameters:
                parameters[name].requires_grad_(False)
        return present


def find_stages(meta_run: MetaRun) -> list[Stage]:
    """Find the stages of a network by one run of it.

    Args:
        meta_run: a twin of the network and an image that it takes.

    Returns:
        What is frozen by a ``freeze_at`` of 1 to 5; each holds those before it.
    """
    calls = record_calls(meta_run)
    plans = []
    for freeze_at in range(1, MAX_FREEZE_AT + 1):
        modules: list[str] = []
        parameters: list[str] = []
        end = _end_of_stage(meta_run.twin, calls, freeze_at)
        _collect(meta_run.twin, "", calls, end, modules, parameters)
        plans.append(Stage(tuple(modules), tuple(parameters)))
    return plans


def _end_of_stage(twin: nn.Module, calls: dict[str, Call], freeze_at: int) -> int:
    """Time at which the last module of the frozen stages has been left."""
    units = [(name, call) for name, call in _units(twin, "", calls) if call.level is not None]
    units.sort(key=lambda unit: unit[1].entered)
    modules = dict(twin.named_modules())
    holding = [call for name, call in units if any(True for _ in modules[name].parameters())]
    if freeze_at == MAX_FREEZE_AT:
        return max((call.left for _, call in units), default=calls[""].entered)
    if len({call.level for call in holding}) <= 1:
        return _end_of_quarter(twin, calls, freeze_at)
    # Up to the first coarser unit: a network of parallel branches returns to fine maps later.
    within = list(itertools.takewhile(lambda call: (call.level or 0) <= freeze_at, holding))
    return within[-1].left if within else _end_of_patch_stem(modules, units)


def _units(module: nn.Module, name: str, calls: dict[str, Call]) -> Iterator[tuple[str, Call]]:
    """The outermost modules that keep one stride: stages, or blocks where stages are none."""
    children = dict(module.named_children())
    for child_name, child in children.items():
        path = f"{name}.{child_name}" if name else child_name
        if not name and len(children) == 1:  # a wrapper of timm around the network proper
            yield from _units(child, path, calls)
            return
        call = calls.get(path)
        is_open = call is None or call.is_record or _is_chain(child)
        inner = list(_units(child, path, calls)) if is_open else []
        if call is None or len({c.level for _, c in inner} | {call.level}) > 1:
            yield from inner
        else:
            yield path, call


def _is_chain(module: nn.Module) -> bool:
    return isinstance(module, nn.Sequential | nn.ModuleList)


def _end_of_patch_stem(modules: dict[str, nn.Module], units: list[tuple[str, Call]]) -> int:
    """End of a stem that goes to the first stage's stride at once: its convolution and its norm."""
    end = units[0][1].left
    for name, call in units[1:]:
        if next(modules[name].children(), None) is not None:
            break
        end = call.left
    return end


def _end_of_quarter(twin: nn.Module, calls: dict[str, Call], freeze_at: int) -> int:
    """End of the patch embedding, or of a quarter of the blocks, of a network of one stride."""
    chains = [
        [calls[path] for child in chain._modules if (path := f"{name}.{child}") in calls]
        for name, chain in twin.named_modules()
        if _is_chain(chain) and name
    ]
    blocks = max(chains, key=len, default=[])
    if not blocks:
        return calls[""].left
    if freeze_at == 1:
        return blocks[0].entered
    return blocks[math.ceil(len(blocks) * (freeze_at - 1) / 4) - 1].left


def _collect(
    module: nn.Module,
    name: str,
    calls: dict[str, Call],
    end: int,
    modules: list[str],
    parameters: list[str],
) -> None:
    """Gather modules that were left by `end`, and parameters of those that were only entered."""
    call = calls.get(name)
    if call is not None and call.left <= end:
        modules.append(name)
        return
    # A network may be run through another method than its forward, as timm's plain ones are.
    entered = call.entered if call is not None else _first_entered(name, calls)
    if entered is not None and entered < end:
        own = module.named_parameters(prefix=name, recurse=False)
        parameters.extend(parameter for parameter, _ in own)
    for child_name, child in module.named_children():
        path = f"{name}.{child_name}" if name else child_name
        _collect(child, path, calls, end, modules, parameters)


def _first_entered(name: str, calls: dict[str, Call]) -> int | None:
    """Time of the first call of anything inside a module, None where nothing was called."""
    return min(
        (c.entered for path, c in calls.items() if path.startswith(f"{name}.")), default=None
    )
