"""NaN and infinite values in weights, which no training and no evaluation recovers from.

Two kinds of infinities are meant: those of an attention mask, which is 0 or minus infinity, and
those that the model itself was built with, such as the limits of an observer that has seen nothing.
"""

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from detrex.checkpoint.placement import is_sharded, local_part
from detrex.errors import CheckpointError

_MOST_NAMED = 3
_BUILT: Mapping[str, Tensor] = MappingProxyType({})


def require_finite(tensors: Any, source: str, built: Mapping[str, Tensor] = _BUILT) -> None:
    """Refuse weights with NaN or infinite values.

    Args:
        tensors: by name, in mappings and lists of any depth; integers, and what is no tensor, are
            left aside.
        source: how to call the file in the error.
        built: the tensors of the model, as it was built, whose infinities may stand in the file.

    Raises:
        CheckpointError: the first tensors by name, with counts.
    """
    pairs = list(_flat(tensors))
    _refuse(non_finite(pairs, built), len(pairs), source)


def require_real(tensors: Mapping[str, Tensor], source: str, built: Mapping[str, Tensor]) -> None:
    """Refuse integers, truth values and complex numbers where a model has real weights.

    Quantized weights are such, whose scales stand elsewhere.

    Args:
        tensors: by the model's names.
        source: how to call the file in the error.
        built: the tensors of the model.

    Raises:
        CheckpointError: the first of them, with its type.
    """
    for name, tensor in tensors.items():
        if built[name].is_floating_point() and not tensor.is_floating_point():
            raise CheckpointError(
                f"{source} holds numbers of the type {tensor.dtype} for {name!r}, where the model "
                f"has {built[name].dtype}: give weights that are neither quantized nor complex"
            )


def non_finite(
    tensors: Iterable[tuple[str, Any]], built: Mapping[str, Tensor] = _BUILT
) -> dict[str, str]:
    """Find the tensors with NaN or infinite values that are not meant.

    Args:
        tensors: names and tensors; what is no tensor is left aside, and of a sharded one this rank
            sees its part.
        built: as in `require_finite`.

    Returns:
        What each of them holds by its name, such as ``"3 NaN, 1 infinite of 12"``.
    """
    found = {}
    for name, tensor in tensors:
        if not isinstance(tensor, Tensor):
            continue
        own = None if is_sharded(built.get(name)) else built.get(name)
        if what := _describe(local_part(tensor.detach()), own):
            found[name] = what
    return found


def _refuse(found: Mapping[str, str], total: int, source: str) -> None:
    if not found:
        return
    shown = ", ".join(f"{name[-60:]!r} ({found[name]})" for name in list(found)[:_MOST_NAMED])
    rest = len(found) - _MOST_NAMED
    raise CheckpointError(
        f"{source} holds NaN or infinite values in {len(found)} of its {total} tensors, {shown}"
        f"{f' and {rest} more' if rest > 0 else ''}: take another copy of it, or an earlier "
        "checkpoint of the run that wrote it"
    )


def _flat(content: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """List all tensors in mappings and lists, by the path to each."""
    if isinstance(content, Tensor):
        yield name, content
    elif isinstance(content, (Mapping, list, tuple)):
        pairs = content.items() if isinstance(content, Mapping) else enumerate(content)
        for key, value in pairs:
            yield from _flat(value, f"{name}.{key}" if name else str(key))


def _describe(tensor: Tensor, built: Tensor | None) -> str:
    """Say what a tensor holds beside finite values; empty where that is nothing, or is meant."""
    if tensor.is_meta or not (tensor.is_floating_point() or tensor.is_complex()):
        return ""
    if tensor.layout is not torch.strided:
        tensor = tensor.coalesce().values() if tensor.is_sparse else tensor.values()
    values = _computable(tensor)
    # A sum is finite only where all are; the other way round it may have overflowed.
    if torch.isfinite(values.sum()):
        return ""
    finite = torch.isfinite(values)
    total, infinite = values.numel(), int((~finite).sum())
    nan = int(torch.isnan(values).sum())
    if not infinite or (not nan and (_is_mask(values, finite) or _is_as_built(values, built))):
        return ""
    counts = {"NaN": nan, "infinite": infinite - nan}
    return f"{', '.join(f'{n} {what}' for what, n in counts.items() if n)} of {total}"


def _computable(values: Tensor) -> Tensor:
    """Take types that have no arithmetic to the next larger one that has."""
    if values.is_complex():
        return torch.view_as_real(values.resolve_conj().to(torch.complex64, copy=False))
    return values.float() if values.itemsize == 1 else values


def _is_mask(values: Tensor, finite: Tensor) -> bool:
    return bool(finite.any()) and not values[finite].any() and not (values == torch.inf).any()


def _is_as_built(values: Tensor, built: Tensor | None) -> bool:
    if built is None or built.is_meta or built.shape != values.shape:
        return False
    infinite = values.isinf()
    built = built.detach().to(values.device, values.dtype)
    return torch.equal(values[infinite], built[infinite])
