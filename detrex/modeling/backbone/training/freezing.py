"""Freezing the first stages of any network, keeping them frozen, and a table of what learns."""

from collections.abc import Iterable, Sequence
from typing import TypeVar

from torch import nn

from detrex.errors import BackboneError
from detrex.modeling.backbone.inspection.stages import MAX_FREEZE_AT, Stage

T = TypeVar("T", bound="KeepsFrozen")

# Names under which wrappers keep the module that they stand for.
_WRAPPED = ("_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")


class KeepsFrozen(nn.Module):
    """Module whose frozen parts stay in evaluation mode when the rest is set to training."""

    frozen_modules: tuple[str, ...] = ()
    """Names of the submodules that are frozen."""

    def freeze_modules(self, names: Iterable[str]) -> None:
        """Freeze submodules for good: their gradients stop, and they stay in evaluation mode.

        What was frozen before stays frozen.

        Args:
            names: paths of the submodules.
        """
        self.frozen_modules = tuple(dict.fromkeys((*self.frozen_modules, *names)))
        for name in self.frozen_modules:
            self.get_submodule(name).eval().requires_grad_(False)

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


_STEM = "stem"
_REST = "other"
MADE = "made levels"


def parameter_table(
    network: nn.Module, stages: Sequence[Stage], pyramid: nn.Module | None = None
) -> str:
    """Count the parameters of each stage that are frozen and that are trainable.

    Args:
        network: the network, frozen as it is.
        stages: its stages, as `find_stages` found them; names are the network's.
        pyramid: what computes levels of its maps; a row of its own.

    Returns:
        Lines of a table: level, frozen parameters, trainable parameters; the buffers of frozen
        norms are no parameters and are not counted. Levels without parameters are left out.
    """
    names = [_STEM, *(f"stage {stage}" for stage in range(1, len(stages)))]
    counts = {name: [0, 0] for name in [*names, _REST, MADE]}
    for parameter_name, parameter in network.named_parameters():
        held = (n for n, stage in zip(names, stages, strict=True) if stage.holds(parameter_name))
        counts[next(held, _REST)][int(parameter.requires_grad)] += parameter.numel()
    for parameter in pyramid.parameters() if pyramid is not None else ():
        counts[MADE][int(parameter.requires_grad)] += parameter.numel()
    rows = [(name, *count) for name, count in counts.items() if sum(count)]
    total = ("all", *(sum(column) for column in zip(*(row[1:] for row in rows), strict=True)))
    lines = [("level", "frozen", "trainable")]
    lines += [(name, f"{cold:,}", f"{warm:,}") for name, cold, warm in [*rows, total]]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])])
        for line in lines
    )
