"""Which average follows which weight, found once and used in every step.

To walk through the names of a model takes longer than to average its weights. What a step needs is
kept, and with it the contents of all modules: tensors, buffers and modules that have been exchanged
since are seen by comparing these, object by object.
"""

from collections.abc import Iterable, Mapping
from operator import is_
from typing import Any

import torch
from torch import Tensor, nn

from detrex.checkpoint.placement import local_part
from detrex.errors import CheckpointError


class EMAPairs:
    """The averages of a model beside its weights.

    Args:
        averages: by name.
        model: the model whose weights they follow.
        weights: its parameters and buffers by name, each of them once.

    Raises:
        CheckpointError: a weight has no average, or one of another shape.
    """

    def __init__(
        self,
        averages: Mapping[str, Tensor],
        model: nn.Module,
        weights: Iterable[tuple[str, Tensor]],
    ) -> None:
        self._names, self._averages = list(averages), list(averages.values())
        self._modules = list(model.modules())
        self._contents = _contents_of(self._modules)
        self._moving: list[tuple[Tensor, Tensor]] = []
        self._copied: list[tuple[Tensor, Tensor]] = []
        for name, weight in weights:
            average = averages.get(name)
            if average is None or local_part(average).shape != local_part(weight).shape:
                raise CheckpointError(
                    f"the moving average has {'no' if average is None else 'another shape of'} "
                    f"{name!r}, which the model has: start it anew by EMAUpdater.init_state(model)"
                )
            moves = weight.is_floating_point() or weight.is_complex()
            (self._moving if moves else self._copied).append((average, weight))

    def are_those_of(self, averages: Mapping[str, Tensor], model: nn.Module) -> bool:
        """Tell whether state and model still hold the tensors that were found.

        Args:
            averages: by name.
            model: the model.
        """
        return (
            self._modules[0] is model
            and self._names == list(averages)
            and _are_same(self._averages, list(averages.values()))
            and _are_same(self._contents, _contents_of(self._modules))
        )

    @torch.no_grad()
    def step(self, decay: float) -> None:
        """Move the averages towards the weights; of sharded tensors each rank moves its own part.

        Args:
            decay: the share of the old average that is kept; whole numbers are copied.
        """
        if self._moving:
            # In this form an average that equals its weight stays so to the last bit, as the
            # statistics of frozen norms must.
            torch._foreach_lerp_(*_columns(self._moving), 1.0 - decay)
        if self._copied:
            torch._foreach_copy_(*_columns(self._copied))


def _columns(pairs: Iterable[tuple[Tensor, Tensor]]) -> tuple[list[Tensor], list[Tensor]]:
    averages, weights = [], []
    for average, weight in pairs:
        average, weight = local_part(average), local_part(weight)
        if weight.dtype is not average.dtype or weight.device != average.device:
            weight = weight.to(average.device, average.dtype)
        averages.append(average)
        weights.append(weight)
    return averages, weights


def _contents_of(modules: Iterable[nn.Module]) -> list[Any]:
    """Everything that modules hold: their parameters, their buffers and the modules inside."""
    contents: list[Any] = []
    for module in modules:
        contents += module._parameters.values()
        contents += module._buffers.values()
        contents += module._modules.values()
    return contents


def _are_same(first: list[Any], second: list[Any]) -> bool:
    return len(first) == len(second) and all(map(is_, first, second))
