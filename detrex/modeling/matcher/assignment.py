"""The cheapest one-to-one assignment, and the checks that make it safe."""

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from detrex.errors import NonFiniteLossError

Indices = list[tuple[Tensor, Tensor]]
Inputs = Mapping[str, Tensor | Sequence[Tensor]]

# Stands for a cost that overflowed although all inputs were finite: dear, but comparable.
_DEAREST = 1e30


@dataclass(frozen=True)
class Problem:
    """What is to be matched: the predictions of a layer and the objects of a batch.

    Attributes:
        cost: (B, Q, T) costs on any device; columns from an image's number of objects on are
            padding.
        labels: the (T,) labels of each image's objects.
        num_classes: number of logits per prediction.
        inputs: the tensors that the cost was computed from, by name, for the error message.
    """

    cost: Float[Tensor, "b q t"]
    labels: Sequence[Int[Tensor, " _"]]
    num_classes: int
    inputs: Inputs


def solve(problems: Sequence[Problem]) -> list[Indices]:
    """Solve problems whose costs and labels come to the CPU all together, in one transfer.

    Args:
        problems: of the layers of a step, for example.

    Returns:
        For each problem what `assign` gives.

    Raises:
        NonFiniteLossError: when an input is NaN or infinite, naming it.
        ValueError: when a label is not a class.
    """
    named = {
        id(tensor): tensor for problem in problems for tensor in (problem.cost, *problem.labels)
    }
    flat = torch.cat([tensor.detach().flatten().float() for tensor in named.values()]).cpu().numpy()
    ends = np.cumsum([tensor.numel() for tensor in named.values()])
    parts = dict(zip(named, np.split(flat, ends[:-1]), strict=True))
    solutions = []
    for problem in problems:
        cost = parts[id(problem.cost)].reshape(problem.cost.shape)
        labels = [parts[id(of_image)] for of_image in problem.labels]
        check_labels(np.concatenate(labels), problem.num_classes)
        solutions.append(_assign(cost, [len(of_image) for of_image in labels], problem.inputs))
    return solutions


def match_together(
    matcher: Callable[..., Indices], calls: Sequence[tuple[Any, ...]]
) -> list[Indices]:
    """Match several layers, by ``matcher.match_layers`` where there is one, else one by one.

    Args:
        matcher: gives matches for each of `calls`. A ``match_layers`` that it inherits from a class
            whose ``forward`` it replaces is left alone.
        calls: positional arguments of the matcher, one tuple per layer.

    Returns:
        For each layer a pair of index tensors per image.
    """
    together = getattr(matcher, "match_layers", None)
    if together and _depth(matcher, "match_layers") <= _depth(matcher, "forward"):
        return together(calls)
    return [matcher(*call) for call in calls]


def _depth(thing: Any, method: str) -> float:
    """How far up its method is defined: 0 for the object itself; infinity for nowhere."""
    owners = enumerate([thing, *type(thing).__mro__])
    return next((i for i, owner in owners if method in getattr(owner, "__dict__", ())), math.inf)


def alike(keys: Iterable[Hashable]) -> list[list[int]]:
    """Group the numbers of those layers that can be computed in one tensor.

    Args:
        keys: of each layer, equal for those that go together.
    """
    groups: dict[Hashable, list[int]] = {}
    for i, key in enumerate(keys):
        groups.setdefault(key, []).append(i)
    return list(groups.values())


def class_indices(labels: Tensor, num_classes: int) -> Tensor:
    """Clamp labels to the classes there are, so that costs can be computed before `solve` checks.

    Args:
        labels: int64 labels of any shape and device.
        num_classes: number of logits per prediction.
    """
    return labels.clamp(0, num_classes - 1)


def assign(cost: Float[Tensor, "b q t"], num_targets: Sequence[int], inputs: Inputs) -> Indices:
    """Solve one assignment problem per image (Hungarian method, by scipy).

    Args:
        cost: (B, Q, T) costs; columns from an image's number of objects on are padding.
        num_targets: number of objects of each image.
        inputs: the tensors that the cost was computed from, by name, for the error message.

    Returns:
        For each image the indices of predictions and of the objects they answer for, int64 on the
        CPU, min(Q, objects) each.

    Raises:
        NonFiniteLossError: when an input is NaN or infinite, naming it.
    """
    return _assign(cost.detach().float().cpu().numpy(), num_targets, inputs)


def _assign(cost: np.ndarray, num_targets: Sequence[int], inputs: Inputs) -> Indices:
    from scipy.optimize import linear_sum_assignment

    if not np.isfinite(cost).all():
        _check_finite(inputs)
        cost = np.nan_to_num(cost, nan=_DEAREST, posinf=_DEAREST, neginf=-_DEAREST)
    indices: Indices = []
    for matrix, count in zip(cost, num_targets, strict=True):
        predictions, objects = linear_sum_assignment(matrix[:, :count])
        indices.append((torch.as_tensor(predictions), torch.as_tensor(objects)))
    return indices


def check_labels(labels: Tensor | np.ndarray, num_classes: int) -> None:
    """Raise when a label is not a class of the detector.

    Args:
        labels: whole numbers of any shape, on the CPU.
        num_classes: number of logits per prediction.

    Raises:
        ValueError: with the range that was found.
    """
    numbers = np.asarray(labels)
    if not numbers.size:
        return
    lowest, highest = int(numbers.min()), int(numbers.max())
    if lowest < 0 or highest >= num_classes:
        raise ValueError(
            f"Target labels run from {lowest} to {highest}, but the detector has {num_classes} "
            f"classes (0 to {num_classes - 1}); set num_classes to that of the data set."
        )


def _check_finite(inputs: Inputs) -> None:
    for name, tensors in inputs.items():
        for tensor in [tensors] if isinstance(tensors, Tensor) else tensors:
            bad = int((~tensor.isfinite()).sum())
            if bad:
                raise NonFiniteLossError(
                    f"The matcher got {name} with {bad} of {tensor.numel()} numbers NaN or "
                    "infinite; lower the learning rate, clip gradients, or look for broken "
                    "annotations."
                )
