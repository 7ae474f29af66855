"""Weights for a network, wherever they are and whatever they are called.

::

    source.py              where they are, by what a user asks for
    detrex.checkpoint      the file read, its names and shapes brought together with the network's
    origins.py             what their origin says of the images
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from detrex.checkpoint.bare_networks import NETWORK_SHARE
from detrex.checkpoint.download import is_address, shown
from detrex.checkpoint.loading import load_weights
from detrex.checkpoint.reading.state_dict import read_checkpoint, tensors_of
from detrex.checkpoint.report import LoadReport
from detrex.errors import DownloadError
from detrex.modeling.backbone.inspection.meta_run import is_on_meta
from detrex.modeling.pixel_statistics import PixelStatistics

from .origins import Origin, find_origin
from .source import WeightsSource

logger = logging.getLogger(__name__)

_GIVEN = "the given state dict"


@dataclass(frozen=True)
class LoadedWeights:
    """Which weights a network got.

    Attributes:
        source: the path or address that they came from.
        report: what became of every tensor.
        info: what their library says of them; see `WeightsSource`.
        origin: what the file itself tells of the network that it is from.
        statistics: those of the images that they were trained on, None where nothing tells them.
    """

    source: str
    report: LoadReport
    info: Any = None
    origin: Origin | None = None
    statistics: PixelStatistics | None = None


def load_pretrained(
    network: nn.Module,
    source: WeightsSource,
    in_channels: int = 3,
    min_share: float = NETWORK_SHARE,
) -> LoadedWeights:
    """Load weights into a network, or into the part of it that gives features.

    Args:
        network: the network, a part of it, or a backbone that holds one; filled in place, and
            unchanged after an error. For one on the device ``meta`` the library's own weights are
            described and not fetched.
        source: where the weights are.
        in_channels: channels of the image; kernels for one or three are adapted.
        min_share: share of the network's tensors that must get a value, from 0 to 1.

    Returns:
        What was loaded.

    Raises:
        CheckpointError: the file is not there or damaged, too little of it fits, or nothing of it
            the kernel that sees the image.
        DownloadError: the file cannot be fetched.
    """
    statistics = source.statistics
    if statistics is not None:
        statistics = statistics.with_channels(in_channels)
        if source.addresses and is_address(source.addresses[0]) and is_on_meta(network):
            report = LoadReport(shown(source.addresses[0]), (), (), (), ())
            return LoadedWeights(report.source, report, source.info, statistics=statistics)
    with torch.device("cpu"):  # what is read has values, whatever the network is built on
        address, content = _read_first(source)
        name = shown(address)
        origin = find_origin(content, tensors_of(content, name))
        report = load_weights(
            network,
            content,
            name=name,
            min_share=min_share,
            in_channels=in_channels,
            translations=source.translations(address),
            hint=source.hint,
        )
    if origin is not None:
        if differs := origin.differences(network):
            logger.warning("%s was %s: %s", name, origin.name, differs)
        if statistics is None and origin.statistics is not None:
            statistics = origin.statistics.with_channels(in_channels)
    return LoadedWeights(name, report, source.info, origin, statistics)


def _read_first(source: WeightsSource) -> tuple[str, Mapping[str, Any]]:
    """Read the first of several addresses that can be fetched."""
    if source.content is not None:
        return _GIVEN, source.content
    for address in source.addresses[:-1]:
        try:
            return address, read_checkpoint(address)
        except DownloadError as error:
            logger.warning("%s; trying the next address of the same weights", error)
    return source.addresses[-1], read_checkpoint(source.addresses[-1])
