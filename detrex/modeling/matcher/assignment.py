"""The cheapest one-to-one assignment, and the checks that make it safe."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from detrex.errors import NonFiniteLossError

Indices = list[tuple[Tensor, Tensor]]

# Stands for a cost that overflowed although all inputs were finite: dear, but comparable.
_DEAREST = 1e30


def assign(
    cost: Tensor, num_targets: Sequence[int], inputs: Mapping[str, Tensor | Sequence[Tensor]]
) -> Indices:
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
    from scipy.optimize import linear_sum_assignment

    cost = cost.detach().float().cpu()
    if not cost.isfinite().all():
        _check_finite(inputs)
        cost = cost.nan_to_num(nan=_DEAREST, posinf=_DEAREST, neginf=-_DEAREST)
    indices: Indices = []
    for matrix, count in zip(cost, num_targets, strict=True):
        predictions, objects = linear_sum_assignment(matrix[:, :count].numpy())
        indices.append((torch.as_tensor(predictions), torch.as_tensor(objects)))
    return indices


def check_labels(labels: Tensor, num_classes: int) -> None:
    """Raise when a label is not a class of the detector.

    Args:
        labels: int64 labels of any shape.
        num_classes: number of logits per prediction.

    Raises:
        ValueError: with the range that was found.
    """
    if not labels.numel():
        return
    lowest, highest = torch.stack(labels.aminmax()).tolist()
    if lowest < 0 or highest >= num_classes:
        raise ValueError(
            f"Target labels run from {lowest} to {highest}, but the detector has {num_classes} "
            f"classes (0 to {num_classes - 1}); set num_classes to that of the data set."
        )


def _check_finite(inputs: Mapping[str, Tensor | Sequence[Tensor]]) -> None:
    for name, tensors in inputs.items():
        for tensor in [tensors] if isinstance(tensors, Tensor) else tensors:
            bad = int((~tensor.isfinite()).sum())
            if bad:
                raise NonFiniteLossError(
                    f"The matcher got {name} with {bad} of {tensor.numel()} numbers NaN or "
                    "infinite; lower the learning rate, clip gradients, or look for broken "
                    "annotations."
                )
