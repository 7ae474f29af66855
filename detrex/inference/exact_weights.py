"""All tensors of a detector in a safetensors file, and back, equal to the last bit.

Each has its own number type in the file and gets it back, as have the buffers that are no weights,
where a detector built anew has others: a detector in half precision has its statistics so, too.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from detrex.checkpoint.finite import require_finite
from detrex.checkpoint.placement import whole_tensor
from detrex.checkpoint.reading.file_formats import is_safetensors, read_file
from detrex.checkpoint.report import examples
from detrex.errors import CheckpointError, first_line
from detrex.files import foreign_kind


def write_exactly(model: nn.Module, like: nn.Module, file: Path) -> None:
    """Write a detector's tensors.

    Tensors that share memory are written one by one, so that any program finds every name.

    Args:
        model: the detector.
        like: the same detector built anew; of the buffers that are not in a state dict those are
            written in which it differs.
        file: a safetensors file to write.

    Raises:
        CheckpointError: a tensor has no data, or is of a kind that the format lacks.
    """
    from safetensors.torch import save_file

    tensors: dict[str, Tensor] = {}
    for name, value in model.state_dict().items():
        if not isinstance(value, Tensor):
            raise CheckpointError(
                f"the detector keeps a {type(value).__name__} under {name!r} in its state dict, "
                "and safetensors holds tensors alone: keep it in a buffer"
            )
        tensors[name] = _plain(name, value)
    fresh = dict(like.named_buffers(remove_duplicate=False))
    for name, value in model.named_buffers(remove_duplicate=False):
        if name in fresh and name not in tensors and not _same(value, fresh[name]):
            tensors[name] = _plain(name, value)
    seen: set[int] = set()
    for name, value in tensors.items():
        place = value.untyped_storage().data_ptr()
        tensors[name] = value.clone() if place in seen else value
        seen.add(place)
    try:
        save_file(tensors, file, metadata={"format": "pt"})
    except OSError:
        raise
    except Exception as error:  # of Rust, by classes of its own
        kinds = ", ".join(sorted({str(value.dtype) for value in tensors.values()}))
        raise CheckpointError(
            f"the detector's tensors ({kinds}) cannot be written as safetensors: "
            f"{first_line(error)}"
        ) from error


def read_exactly(file: Path) -> dict[str, Tensor]:
    """Read what `write_exactly` wrote.

    Args:
        file: a safetensors file; a file of another kind is not read, whatever its name.

    Raises:
        CheckpointError: it is none, or damaged.
    """
    try:
        with file.open("rb") as stream:
            head = stream.read(64)
            size = file.stat().st_size
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read ({error.strerror})") from error
    if not is_safetensors(head, size):
        kind = foreign_kind(head) or "it begins otherwise, or is cut off"
        raise CheckpointError(
            f"{file} is no whole safetensors file ({kind}), and no other kind is read in its place:"
            " take another copy"
        )
    tensors: dict[str, Tensor] = read_file(file)
    return tensors


def fill_exactly(model: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Give a detector the tensors that `read_exactly` read.

    Args:
        model: built of the same config, on any device; filled in place.
        tensors: by name.
        source: how to call their file.

    Raises:
        CheckpointError: they are not those of this detector, to the last name and shape, or not
            finite.
    """
    own = {
        name: value
        for name, value in model.state_dict(keep_vars=True).items()
        if isinstance(value, Tensor)
    }
    buffers = dict(model.named_buffers(remove_duplicate=False))
    missing = [name for name in own if name not in tensors]
    strange = [name for name in tensors if name not in own and name not in buffers]
    shapes = [n for n, v in own.items() if n in tensors and v.shape != tensors[n].shape]
    for names, what in (
        (missing, "has no value for"),
        (strange, "has values for what is not there,"),
        (shapes, "has other shapes for"),
    ):
        if names:
            raise CheckpointError(
                f"{source} is not of the {type(model).__name__} that its config describes: it "
                f"{what} {examples(names)}: take weights and config of one detector"
            )
    require_finite(tensors, source, own)
    with torch.no_grad():
        for name, value in tensors.items():
            target = own.get(name, buffers.get(name))
            assert target is not None
            if target.dtype == value.dtype and target.shape == value.shape:
                target.copy_(value)
            else:
                target.data = value.to(target.device)


def unequal_tensors(model: nn.Module, other: nn.Module) -> list[str]:
    """List the names under which two detectors hold other bits, numbers of other types, or none.

    Args:
        model: a detector.
        other: another; what only one of them has made for itself beside its state dict, such as a
            table for a size of image, does not count.
    """
    first, second = _all_tensors(model), _all_tensors(other)
    state = {*model.state_dict(), *other.state_dict()}
    names = [*first, *(name for name in second if name not in first)]
    return [
        name
        for name in names
        if (
            not _same(first[name], second[name])
            if name in first and name in second
            else name in state
        )
    ]


def _all_tensors(model: nn.Module) -> dict[str, Tensor]:
    state = {n: v for n, v in model.state_dict().items() if isinstance(v, Tensor)}
    return state | dict(model.named_buffers(remove_duplicate=False))


def _plain(name: str, value: Tensor) -> Tensor:
    if value.is_meta or value.layout is not torch.strided or value.is_quantized:
        what = "has no data (device meta)" if value.is_meta else "is sparse or quantized"
        raise CheckpointError(
            f"the detector's {name!r} {what}, which no safetensors file can hold: save the "
            "detector that was trained"
        )
    return whole_tensor(value.detach()).cpu().contiguous()


def _same(first: Tensor, second: Tensor) -> bool:
    """Compare bit by bit, NaN with NaN too."""
    if first.dtype != second.dtype or first.shape != second.shape:
        return False
    pair = (t.detach().cpu().contiguous().view(-1).view(torch.uint8) for t in (first, second))
    return torch.equal(*pair)
