"""Weights for a network of timm or torchvision, wherever they are and whatever they are called.

::

    weights=... -> where (timm_weights, torchvision_weights, a path, an address, tensors)
                -> the file (detrex.checkpoint.download, .reading)
                -> the network (detrex.checkpoint.loading), with a report
                -> what its origin says of the images (origins)
"""

import functools
import json
import logging
import os
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from detrex.checkpoint.download import is_address
from detrex.checkpoint.loading import Translation, load_weights
from detrex.checkpoint.reading.entries import split_entry
from detrex.checkpoint.reading.folders import LOCAL_FOLDER, is_index
from detrex.checkpoint.reading.state_dict import local_path, read_checkpoint, tensors_of
from detrex.checkpoint.report import LoadReport
from detrex.errors import BackboneError, CheckpointError, DownloadError, did_you_mean
from detrex.modeling.backbone.preprocess import Preprocess

from .origins import Origin, find_origin, wrapper_for
from .source import WeightsSource

logger = logging.getLogger(__name__)

MIN_SHARE = 0.9
"""The share of a network's tensors that its weights must fill."""

WEIGHT_FILES = (".pth", ".pt", ".pth.tar", ".bin", ".ckpt", ".pkl", ".safetensors", ".npz")

_MOST_NAMES = 12
_GIVEN = "the given state dict"
_NO_KEYWORDS: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class WeightsUsed:
    """Which weights a network got.

    Attributes:
        source: the path or address that they came from.
        report: what became of every tensor.
        pretrained_cfg: timm's description of them, where they are timm's.
        member: torchvision's enum member, where they are torchvision's.
        origin: what the file itself tells of the network that it is from.
        in_channels: channels of the images that the network takes.
    """

    source: str
    report: LoadReport
    pretrained_cfg: Mapping[str, Any] | None = None
    member: Any = None
    origin: Origin | None = None
    in_channels: int = 3

    @property
    def preprocess(self) -> Preprocess | None:
        """Statistics and channel order of the images that they were trained on, None if unknown."""
        if self.pretrained_cfg is not None:
            return Preprocess.from_timm(self.pretrained_cfg, self.in_channels)
        if self.member is not None:
            return Preprocess.from_torchvision(self.member, self.in_channels)
        if self.origin is None or self.origin.preprocess is None:
            return None
        return self.origin.preprocess.with_channels(self.in_channels)


def load_network_weights(
    network: nn.Module,
    weights: Any,
    *,
    library: str,
    model_name: str,
    in_channels: int = 3,
    min_share: float = MIN_SHARE,
    keywords: Mapping[str, Any] = _NO_KEYWORDS,
) -> WeightsUsed:
    """Load weights into a network, or into the part of it that gives features.

    Args:
        network: the network, a feature network of timm, a graph of torchvision's, or a backbone
            that holds one; filled in place, and unchanged after an error. For one on the device
            ``meta`` the library's own weights are described and not fetched.
        weights: True for the library's default, a tag of timm's (``"a1_in1k"``), an enum member
            of torchvision's or its name (``"IMAGENET1K_V2"``), a path, an address (``https://``,
            ``hf-hub:``, ``local-dir:``, ``detectron2://``), a state dict, or a `WeightsSource`. An
            entry of a file is named behind it, as in ``"run.pth#teacher"``.
        library: ``"timm"`` or ``"torchvision"``, where the network is from, or ``"detectron2"``,
            which has no weights by name.
        model_name: its name there.
        in_channels: channels of the image; kernels for one or three are adapted.
        min_share: share of the network's tensors that must get a value, from 0 to 1.
        keywords: what a network of timm was built with.

    Returns:
        What was loaded.

    Raises:
        TypeError: ``weights`` is of no kind above.
        BackboneError: the library has no such weights.
        CheckpointError: the file is not there or damaged, too little of it fits, or nothing of it
            the kernel that sees the image.
        DownloadError: the file cannot be fetched.
    """
    place = find_weights(
        weights, library=library, model_name=model_name, network=network, keywords=keywords
    )
    is_described = place.pretrained_cfg is not None or place.member is not None
    if is_described and is_address(place.addresses[0]) and _is_on_meta(network):
        report = LoadReport(place.addresses[0], (), (), (), ())
        return WeightsUsed(
            report.source, report, place.pretrained_cfg, place.member, in_channels=in_channels
        )
    with torch.device("cpu"):  # what is read has values, whatever the network is built on
        source, content = _read_first(place)
        origin = find_origin(content, tensors_of(content, source))
        report = load_weights(
            network,
            content,
            name=source,
            min_share=min_share,
            in_channels=in_channels,
            translations=_translations(
                library, model_name, source, {"in_chans": in_channels, **keywords}
            ),
            hint=functools.partial(wrapper_for, library=library, model_name=model_name),
        )
    if origin is not None and (differs := origin.differences(network)):
        logger.warning("%s was %s: %s", source, origin.name, differs)
    return WeightsUsed(source, report, place.pretrained_cfg, place.member, origin, in_channels)


def find_weights(
    weights: Any,
    *,
    library: str,
    model_name: str,
    network: nn.Module | None = None,
    keywords: Mapping[str, Any] = _NO_KEYWORDS,
) -> WeightsSource:
    """Find where weights are; nothing is fetched.

    Args:
        weights: as in `load_network_weights`.
        library: ``"timm"`` or ``"torchvision"``, where the network is from.
        model_name: its name there.
        network: the network, which timm's from the Hugging Face hub describe themselves by.
        keywords: what a network of timm was built with; they may describe its weights.

    Returns:
        Paths or addresses, and what the library says of them.

    Raises:
        TypeError: ``weights`` is of no kind known.
        BackboneError: the library has no such weights.
    """
    if isinstance(weights, WeightsSource):
        return weights
    if isinstance(weights, Mapping):
        return WeightsSource((), content=weights)
    place, names = _find_in_library(weights, library, model_name, network, keywords)
    if place is not None:
        return place
    if not isinstance(weights, str | Path):
        got = " ".join(reprlib.repr(weights).split())
        cure = ": give its state_dict()" if isinstance(weights, nn.Module) else ""
        raise TypeError(
            "weights must be True, a name, a path, an address or a state dict, got "
            f"{got} of type {type(weights).__name__}{cure}."
        )
    if isinstance(weights, Path) or _is_of_a_file(split_entry(weights)[0]):
        return WeightsSource((str(weights),), pretrained_cfg=_described_in(str(weights)))
    raise BackboneError(
        f"{library}'s {model_name!r} has the weights {_listed(names)}, got "
        f"{reprlib.repr(weights)}: use one of these, True for the default, a file ending in "
        f"{', '.join(WEIGHT_FILES)}, or an address.{did_you_mean(weights, names)}"
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


def _find_in_library(
    weights: Any,
    library: str,
    model_name: str,
    network: nn.Module | None,
    keywords: Mapping[str, Any],
) -> tuple[WeightsSource | None, list[str]]:
    """Find the library's own weights; else list the names of those that it has."""
    if library == "timm":
        from detrex.modeling.backbone.timm_backbone import weights as timm

        names = timm.tags(model_name)
        if weights is True:
            return timm.default_place(model_name, network, keywords), names
        tag = str(weights).removeprefix(f"{model_name.partition('.')[0]}.")
        if tag in names:
            return timm.tagged_place(model_name, tag, keywords), names
        is_place = isinstance(weights, str | Path)
        return timm.published_place(str(weights), model_name) if is_place else None, names
    if library == "detectron2":
        return None, []
    from detrex.modeling.backbone.torchvision_backbone import weights as torchvision

    return torchvision.find(weights, model_name), torchvision.names(model_name)


def _is_on_meta(network: nn.Module) -> bool:
    return any(parameter.is_meta for parameter in network.parameters())


def _read_first(place: WeightsSource) -> tuple[str, Mapping[str, Any]]:
    """Read the first of several addresses that can be fetched."""
    if place.content is not None:
        return _GIVEN, place.content
    for address in place.addresses[:-1]:
        try:
            return address, read_checkpoint(address)
        except DownloadError as error:
            logger.warning("%s; trying the next address of the same weights", error)
    return place.addresses[-1], read_checkpoint(place.addresses[-1])


def _translations(
    library: str, model_name: str, source: str, keywords: Mapping[str, Any]
) -> Mapping[str, Translation]:
    if library != "timm":
        return {}
    from detrex.modeling.backbone.timm_backbone.weights import load_by_timm

    archive = str(local_path(source)) if source.endswith(".npz") else None
    return {
        "timm's own loading": functools.partial(load_by_timm, model_name, keywords, file=archive)
    }
