"""Weights for a network of timm or torchvision, wherever they are and whatever they are called.

::

    weights=... -> where (timm_weights, torchvision_weights, a path, an address)
                -> the file (detrex.checkpoint.download, .reading)
                -> the network (detrex.checkpoint.matching), with a report
"""

import functools
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from detrex.checkpoint.download import is_address
from detrex.checkpoint.matching import Translation, load_weights
from detrex.checkpoint.reading import is_caffe2_checkpoint, read_checkpoint
from detrex.checkpoint.report import LoadReport
from detrex.errors import BackboneError, DownloadError, did_you_mean

from .preprocess import CAFFE, Preprocess

logger = logging.getLogger(__name__)

MIN_SHARE = 0.9
"""The share of a network's tensors that its weights must fill."""

WEIGHT_FILES = (".pth", ".pt", ".pth.tar", ".bin", ".ckpt", ".pkl", ".safetensors")


@dataclass(frozen=True)
class Place:
    """Where weights are, and what their library says of them.

    Attributes:
        addresses: paths or addresses of the same weights, to try in this order.
        pretrained_cfg: timm's description of them, where they are timm's.
        member: torchvision's enum member, where they are torchvision's.
    """

    addresses: tuple[str, ...]
    pretrained_cfg: Mapping[str, Any] | None = None
    member: Any = None


@dataclass(frozen=True)
class WeightsUsed:
    """Which weights a network got.

    Attributes:
        source: the path or address that they came from.
        report: what became of every tensor.
        pretrained_cfg: timm's description of them, where they are timm's.
        member: torchvision's enum member, where they are torchvision's.
        is_caffe2: they were trained with Caffe2, so on images in BGR of 0 to 255 less the mean.
        in_channels: channels of the images that the network takes.
    """

    source: str
    report: LoadReport
    pretrained_cfg: Mapping[str, Any] | None = None
    member: Any = None
    is_caffe2: bool = False
    in_channels: int = 3

    @property
    def preprocess(self) -> Preprocess | None:
        """Statistics and channel order of the images that they were trained on, None if unknown."""
        if self.pretrained_cfg is not None:
            return Preprocess.from_timm(self.pretrained_cfg, self.in_channels)
        if self.member is not None:
            return Preprocess.from_torchvision(self.member, self.in_channels)
        return CAFFE.with_channels(self.in_channels) if self.is_caffe2 else None


def load_network_weights(
    network: nn.Module,
    weights: Any,
    *,
    library: str,
    model_name: str,
    in_channels: int = 3,
    min_share: float = MIN_SHARE,
) -> WeightsUsed:
    """Load weights into a network, or into the part of it that gives features.

    Args:
        network: the network, a feature network of timm, or a graph of torchvision's; filled in
            place, and unchanged after an error.
        weights: True for the library's default, a tag of timm's (``"a1_in1k"``), an enum member
            of torchvision's or its name (``"IMAGENET1K_V2"``), a path, or an address
            (``https://``, ``hf-hub:``, ``detectron2://``).
        library: ``"timm"`` or ``"torchvision"``, where the network is from.
        model_name: its name there.
        in_channels: channels of the image; kernels for three are adapted.
        min_share: share of the network's tensors that must get a value, from 0 to 1.

    Returns:
        What was loaded.

    Raises:
        TypeError: ``weights`` is of no kind above.
        BackboneError: the library has no such weights.
        CheckpointError: the file is not there or damaged, or too little of it fits.
        DownloadError: the file cannot be fetched.
    """
    place = find_weights(weights, library=library, model_name=model_name, network=network)
    source, content = _read_first(place.addresses)
    report = load_weights(
        network,
        content,
        name=source,
        min_share=min_share,
        in_channels=in_channels,
        translations=_translations(library, model_name),
    )
    is_caffe2 = is_caffe2_checkpoint(content)
    if is_caffe2:
        logger.warning(
            "%s was trained with Caffe2, on images in BGR; of its ResNets the first convolution of "
            "a block has the stride, while %s's %r has it where that library puts it",
            source,
            library,
            model_name,
        )
    return WeightsUsed(source, report, place.pretrained_cfg, place.member, is_caffe2, in_channels)


def find_weights(
    weights: Any,
    *,
    library: str,
    model_name: str,
    network: nn.Module | None = None,
) -> Place:
    """Find where weights are; nothing is fetched.

    Args:
        weights: as in `load_network_weights`.
        library: ``"timm"`` or ``"torchvision"``, where the network is from.
        model_name: its name there.
        network: the network, which timm's from the Hugging Face hub describe themselves by.

    Returns:
        Paths or addresses, and what the library says of them.

    Raises:
        TypeError: ``weights`` is of no kind known.
        BackboneError: the library has no such weights.
    """
    if isinstance(weights, Path) or (isinstance(weights, str) and is_address(weights)):
        return Place((str(weights),))
    place, names = _find_in_library(weights, library, model_name, network)
    if place is not None:
        return place
    if not isinstance(weights, str):
        raise TypeError(
            f"weights must be True, a name, a path or an address, got {weights!r} of type "
            f"{type(weights).__name__}."
        )
    if weights.endswith(WEIGHT_FILES) or os.sep in weights or Path(weights).is_file():
        return Place((weights,))
    raise BackboneError(
        f"{library}'s {model_name!r} has the weights {', '.join(names) or '(none)'}, got "
        f"{weights!r}: use one of these, True for the default, a file ending in "
        f"{', '.join(WEIGHT_FILES)}, or an address.{did_you_mean(weights, names)}"
    )


def _find_in_library(
    weights: Any, library: str, model_name: str, network: nn.Module | None
) -> tuple[Place | None, list[str]]:
    """Find the library's own weights; else list the names of those that it has."""
    if library == "timm":
        from . import timm_weights as timm

        names = timm.tags(model_name)
        if weights is True:
            return timm.default_place(model_name, network), names
        tag = str(weights).removeprefix(f"{model_name.partition('.')[0]}.")
        return (timm.tagged_place(model_name, tag) if tag in names else None), names
    from . import torchvision_weights as torchvision

    return torchvision.find(weights, model_name), torchvision.names(model_name)


def _read_first(addresses: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """Read the first of several addresses that can be fetched."""
    for address in addresses[:-1]:
        try:
            return address, read_checkpoint(address)
        except DownloadError as error:
            logger.warning("%s; trying the next address of the same weights", error)
    return addresses[-1], read_checkpoint(addresses[-1])


def _translations(library: str, model_name: str) -> Mapping[str, Translation]:
    if library != "timm":
        return {}
    from .timm_weights import translate

    return {"timm's own translation": functools.partial(translate, model_name)}
