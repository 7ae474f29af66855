"""Where weights are: found by what a user asks for, before anything is fetched."""

import json
import os
import reprlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from detrex.checkpoint.download import is_address
from detrex.checkpoint.loading import Translation
from detrex.checkpoint.reading.entries import split_entry
from detrex.checkpoint.reading.folders import LOCAL_FOLDER, is_index
from detrex.errors import BackboneError, CheckpointError, did_you_mean
from detrex.modeling.pixel_statistics import PixelStatistics

WEIGHT_FILES = (".pth", ".pt", ".pth.tar", ".bin", ".ckpt", ".pkl", ".safetensors", ".npz")

_MOST_NAMES = 12


@dataclass(frozen=True)
class WeightsSource:
    """Where weights are, and what is known of them before they are read.

    Attributes:
        addresses: paths or addresses of the same weights, to try in this order.
        content: the weights themselves, where they are given as they are.
        info: what a library says of them: timm's description, or torchvision's enum member.
        statistics: those of the images that they were trained on, where `info` tells them.
        translations: gives further ways to rename the tensors of the address that was read.
        hint: says which network tensors are of that do not fit.
    """

    addresses: tuple[str, ...] = ()
    content: Mapping[str, Any] | None = None
    info: Any = None
    statistics: PixelStatistics | None = None
    translations: Callable[[str], Mapping[str, Translation]] = field(
        default=lambda source: {}, compare=False
    )
    hint: Callable[[Mapping[str, Tensor]], str] | None = field(default=None, compare=False)


def find_source(
    weights: Any,
    who: str,
    names: Sequence[str] = (),
    of_library: Callable[[], WeightsSource | None] = lambda: None,
) -> WeightsSource:
    """Find where weights are; nothing is fetched.

    Args:
        weights: True for the library's default, one of `names`, a path, an address (``https://``,
            ``hf-hub:``, ``local-dir:``, ``detectron2://``), a state dict, or a `WeightsSource`. An
            entry of a file is named behind it, as in ``"run.pth#teacher"``.
        who: name of the network, for messages.
        names: of the weights that its library has for it.
        of_library: gives those that `weights` means of the library, None where it means none.

    Returns:
        Paths or addresses, and what the library says of them.

    Raises:
        TypeError: ``weights`` is of no kind known.
        BackboneError: the library has no such weights.
    """
    if isinstance(weights, WeightsSource):
        return weights
    if isinstance(weights, Mapping):
        return WeightsSource(content=weights)
    if (source := of_library()) is not None:
        return source
    if not isinstance(weights, str | Path):
        got = " ".join(reprlib.repr(weights).split())
        cure = ": give its state_dict()" if isinstance(weights, nn.Module) else ""
        raise TypeError(
            "weights must be True, a name, a path, an address or a state dict, got "
            f"{got} of type {type(weights).__name__}{cure}."
        )
    if isinstance(weights, Path) or _is_of_a_file(split_entry(weights)[0]):
        described = _described_in(str(weights))
        statistics = None if described is None else PixelStatistics.from_unit_range(described)
        return WeightsSource((str(weights),), info=described, statistics=statistics)
    raise BackboneError(
        f"{who} has the weights {_listed(names)}, got {reprlib.repr(weights)}: use one of these, "
        f"True for the default, a file ending in {', '.join(WEIGHT_FILES)}, or an address."
        f"{did_you_mean(weights, names)}"
    )


def _is_of_a_file(source: str) -> bool:
    """Whether a text is a path or an address, and not a name that nobody knows."""
    known = is_address(source) or source.startswith(LOCAL_FOLDER) or is_index(Path(source))
    return known or source.endswith(WEIGHT_FILES) or os.sep in source or os.path.exists(source)


def _described_in(folder: str) -> Mapping[str, Any] | None:
    """Read how timm describes the weights in a folder, in its ``config.json``."""
    file = Path(os.path.expanduser(folder.removeprefix(LOCAL_FOLDER))) / "config.json"
    try:
        is_there = os.path.isfile(file)  # False too for a name that no file can have
        content = json.loads(file.read_text(encoding="utf-8")) if is_there else None
    except ValueError as error:
        raise CheckpointError(f"{file} is no JSON ({error}): correct or remove it") from error
    described = content.get("pretrained_cfg", content) if isinstance(content, dict) else None
    has_statistics = isinstance(described, dict) and described.keys() & {"mean", "std"}
    return described if has_statistics else None


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_MOST_NAMES])
    more = len(names) - _MOST_NAMES
    return (f"{shown} and {more} more" if more > 0 else shown) or "(none)"
