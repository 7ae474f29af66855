"""Freezing the first stages of any network, and keeping them frozen.

The order in which a network's modules run, and the strides of what they give, tell its stages
apart; no list of names is needed. ``freeze_at`` counts as it does for detectron2's ResNet: 1 is the
stem, 2 the stem and the stage of stride 4, 3 that of stride 8 as well, and so on. A network that
keeps one stride throughout, such as a plain vision transformer, has as its stem the patch
embedding, and as its four stages the quarters of its blocks.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import nn

from detrex.errors import BackboneError
from detrex.modeling.backbone.features.feature_info import map_layout, map_size
from detrex.modeling.backbone.inspection.meta_run import Look

MAX_FREEZE_AT = 5

T = TypeVar("T", bound="KeepsFrozen")

# Names under which wrappers keep the module that they stand for.
_WRAPPED = ("_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")


class KeepsFrozen(nn.Module):
    """Module whose frozen parts stay in evaluation mode when the rest is set to training."""

    frozen_modules: tuple[str, ...] = ()
    """Names of the submodules that are frozen, set by the class that inherits."""

    def train(self: T, mode: bool = True) -> T:
        """Set training mode, except for the frozen parts.

        Args:
            mode: True for training, False for evaluation.

        Returns:
            The module itself.
        """
        super().train(mode)
        for name in self.frozen_modules:
            submodule_within(self, name).eval()
        return self


def submodule_within(module: nn.Module, name: str) -> nn.Module:
    """Find a submodule by the name that it had before modules were wrapped.

    Args:
        module: where the name begins.
        name: path of the submodule; what ``torch.compile``, DistributedDataParallel, FSDP and
            checkpoint wrappers put in between is passed through.

    Returns:
        The submodule.

    Raises:
        BackboneError: there is none of that name.
    """
    found = module
    for part in name.split("."):
        while part not in found._modules:
            inner = next((found._modules[w] for w in _WRAPPED if found._modules.get(w)), None)
            if inner is None:
                raise BackboneError(
                    f"{name!r} is frozen, but {type(module).__name__} has no such module any more: "
                    "build the backbone with another freeze_at, or leave its modules in place."
                )
            found = inner
        found = found._modules[part]  # type: ignore[assignment]
    return found


@dataclass(frozen=True)
class FreezePlan:
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

    def apply(self, network: nn.Module) -> tuple[str, ...]:
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


@dataclass(frozen=True)
class _Call:
    """The first call of a module: when it began and ended, and log2 of the stride of its output."""

    entered: int
    left: int
    level: int | None


def check_freeze_at(freeze_at: int) -> None:
    """Check a number of stages.

    Args:
        freeze_at: number of stages, the stem being the first: -1 or 0 (nothing) to 5 (everything).

    Raises:
        BackboneError: it is none of these.
    """
    if type(freeze_at) is not int or not -1 <= freeze_at <= MAX_FREEZE_AT:
        raise BackboneError(
            f"freeze_at must be an integer from 0 (nothing) to {MAX_FREEZE_AT} (all stages), got "
            f"{freeze_at!r}: 1 freezes the stem, 2 the stem and the first stage."
        )


def plan_stages(look: Look) -> list[FreezePlan]:
    """Find the stages of a network by one run of it.

    Args:
        look: a twin of the network and an image that it takes.

    Returns:
        What is frozen by a ``freeze_at`` of 1 to 5; each holds those before it.
    """
    calls = record_calls(look)
    plans = []
    for freeze_at in range(1, MAX_FREEZE_AT + 1):
        modules: list[str] = []
        parameters: list[str] = []
        end = _end_of_stage(look.twin, calls, freeze_at)
        _collect(look.twin, "", calls, end, modules, parameters)
        plans.append(FreezePlan(tuple(modules), tuple(parameters)))
    return plans


def plan_freezing(stages: Sequence[FreezePlan], freeze_at: int) -> FreezePlan:
    """Choose what the first `freeze_at` stages of a network are.

    Args:
        stages: as from `plan_stages`.
        freeze_at: number of stages as in `check_freeze_at`.

    Returns:
        The names to freeze.
    """
    return stages[freeze_at - 1] if freeze_at > 0 else FreezePlan()


def record_calls(look: Look) -> dict[str, _Call]:
    """Run the twin once and write down the first call of each module.

    Args:
        look: a twin of the network and an image that it takes.

    Returns:
        Names of modules, the root being ``""``, to their calls.
    """
    entered: dict[str, int] = {}
    calls: dict[str, _Call] = {}
    clock = iter(range(2**31))

    def watch(name: str, module: nn.Module) -> list[Any]:
        def before(*_: Any) -> None:
            entered.setdefault(name, next(clock))

        def after(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if name not in calls:
                level = _level(output, look.image_size)
                calls[name] = _Call(entered[name], next(clock), level)

        return [module.register_forward_pre_hook(before), module.register_forward_hook(after)]

    handles = [h for name, module in look.twin.named_modules() if name for h in watch(name, module)]
    with torch.no_grad():
        look.twin(look.image)
    for handle in handles:
        handle.remove()
    calls[""] = _Call(-1, next(clock), None)
    return calls


def _level(output: Any, image_size: tuple[int, int]) -> int | None:
    """Log2 of the stride of a module's output, None where it is no feature of the image."""
    while isinstance(output, tuple | list) and output:
        output = output[0]
    if not isinstance(output, torch.Tensor) or output.dim() not in (3, 4):
        return None
    if output.dim() == 3:
        pixels = output.shape[1]
    else:
        pixels = math.prod(map_size(output.shape, map_layout(output.shape, image_size)))
    return round(math.log2(image_size[0] * image_size[1] / pixels) / 2) if pixels else None


def _end_of_stage(twin: nn.Module, calls: dict[str, _Call], freeze_at: int) -> int:
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


def _units(module: nn.Module, name: str, calls: dict[str, _Call]) -> Iterator[tuple[str, _Call]]:
    """The outermost modules that keep one stride: stages, or blocks where stages are none."""
    children = dict(module.named_children())
    for child_name, child in children.items():
        path = f"{name}.{child_name}" if name else child_name
        if not name and len(children) == 1:  # a wrapper of timm around the network proper
            yield from _units(child, path, calls)
            return
        call = calls.get(path)
        inner = list(_units(child, path, calls)) if call is None or _is_chain(child) else []
        if call is None or len({c.level for _, c in inner} | {call.level}) > 1:
            yield from inner
        else:
            yield path, call


def _is_chain(module: nn.Module) -> bool:
    return isinstance(module, nn.Sequential | nn.ModuleList)


def _end_of_patch_stem(modules: dict[str, nn.Module], units: list[tuple[str, _Call]]) -> int:
    """End of a stem that goes to the first stage's stride at once: its convolution and its norm."""
    end = units[0][1].left
    for name, call in units[1:]:
        if next(modules[name].children(), None) is not None:
            break
        end = call.left
    return end


def _end_of_quarter(twin: nn.Module, calls: dict[str, _Call], freeze_at: int) -> int:
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
    calls: dict[str, _Call],
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


def _first_entered(name: str, calls: dict[str, _Call]) -> int | None:
    """Time of the first call of anything inside a module, None where nothing was called."""
    return min(
        (c.entered for path, c in calls.items() if path.startswith(f"{name}.")), default=None
    )
