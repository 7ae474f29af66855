"""Where a weights file is from, by what it says of itself and by its tensors.

Networks of equal names and shapes are not always the same: those that were converted from Caffe2
see images in BGR and have the stride of a block in another convolution. A file says so by its
author's name, by Caffe2's names, by the statistics of its images, or by batch norms that are folded
into a scale and a shift.
"""

import difflib
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from detrex.checkpoint.reading.entries import wanted_table
from detrex.checkpoint.reading.state_dict import is_caffe2_checkpoint
from detrex.modeling.pixel_statistics import CAFFE, IMAGENET, PixelStatistics

logger = logging.getLogger(__name__)

_RESNET = re.compile(r"(^|\.)res[2-5]\.\d+\.conv1\.weight$")
_GROUPED = re.compile(r"(^|\.)(res|layer)\d\.0\.conv2\.weight$")
_CAFFE_AUTHORS = re.compile(r"detectron|caffe|msra|model zoo", re.IGNORECASE)
_LEAST_NORMS = 5
_VARIANCE_SLACK = 1e-3
_NORM_EPS = 1e-5
_MOST_CANDIDATES = 5
_MOST_SIBLINGS = 12
_NUMBER = re.compile(r"\d+")
_LEAST_FIT = 0.95
_LEAST_TENSORS = 10

# Networks that both libraries have, where their names are little alike.
_SIDES = {"t": "tiny", "s": "small", "b": "base", "l": "large", "h": "huge"}
_VITS = (("b", 16), ("b", 32), ("l", 16), ("l", 32), ("h", 14))
_REGNETS = {
    **{"400mf": "004", "800mf": "008", "1_6gf": "016", "3_2gf": "032"},
    **{"8gf": "080", "16gf": "160", "32gf": "320"},
}
_SMALL_REGNETS = tuple(f"regnet_{kind}_{size}" for size in list(_REGNETS)[:4] for kind in "xy")
_TO_TIMM = {
    **{f"vit_{side}_{patch}": f"vit_{_SIDES[side]}_patch{patch}_224" for side, patch in _VITS},
    **{f"swin_{side}": f"swin_{_SIDES[side]}_patch4_window7_224" for side in "tsb"},
    **{f"swin_v2_{side}": f"swinv2_{_SIDES[side]}_window8_256" for side in "tsb"},
    **{f"regnet_{kind}_{a}": f"regnet{kind}_{b}" for kind in "xy" for a, b in _REGNETS.items()},
    **{"maxvit_t": "maxvit_tiny_tf_224", "mnasnet1_0": "mnasnet_100"},
}
_WRAPPERS = {
    **{"timm": "TimmBackbone", "torchvision": "TorchvisionBackbone"},
    "Hugging Face": "HuggingFaceBackbone",
}
# What tensors are called in one library alone, in the order in which they are told.
_NAMINGS = {
    "Hugging Face": re.compile(
        r"(^|\.)(hf_model|embeddings|embedder|patch_embeddings?|stages\.\d+\.downsample_layers|normalization)\."
        r"|\.convolution\.weight$"
    ),
    "torchvision": re.compile(
        r"(^|\.)(feature_extractor\.|features\.\d|encoder\.layers\.encoder_layer_\d)"
    ),
    "timm": re.compile(r"(^|\.)(timm_model|patch_embed\.proj|stem\.(\d|conv)|stem_\d|conv_stem)\."),
}
_TWINS = {**_TO_TIMM, **{timm: torchvision for torchvision, timm in _TO_TIMM.items()}}


@dataclass(frozen=True)
class Origin:
    """What a weights file tells of the network that it is from.

    Attributes:
        name: who trained it, and on what images, to stand behind "was".
        statistics: those of its images; None where they are only likely.
        stride_kernel: side of the convolution that has the stride of a bottleneck block; None where
            it is unknown.
    """

    name: str
    statistics: PixelStatistics | None
    stride_kernel: int | None = None

    def differences(self, network: nn.Module) -> str:
        """Say what of a network is not as in the one that the weights are from.

        Args:
            network: the network that they are loaded into.

        Returns:
            Clauses with "; " between them, empty where nothing is known to differ.
        """
        found = []
        if self.statistics is None:
            found.append("give preprocess's values by hand where that holds")
        elif self.statistics != IMAGENET:
            found.append(
                f"preprocess says mean {_short(self.statistics.pixel_mean)}, std "
                f"{_short(self.statistics.pixel_std)}, {self.statistics.channel_order}"
            )
        return "; ".join([*found, *self._of_layers(network)])

    def differences_of_detector(self, model: nn.Module) -> str:
        """Say what of a detector, statistics of its images included, is not as the weights want.

        Args:
            model: a detector; its ``pixel_mean``, ``pixel_std`` and ``input_format`` are compared
                where it has them.

        Returns:
            As `differences`.
        """
        found = []
        mean, std = getattr(model, "pixel_mean", None), getattr(model, "pixel_std", None)
        if self.statistics is not None and isinstance(mean, Tensor) and isinstance(std, Tensor):
            wanted = self.statistics.with_channels(mean.numel())
            order = getattr(model, "input_format", None) or wanted.channel_order
            here = PixelStatistics(
                tuple(mean.flatten().tolist()), tuple(std.flatten().tolist()), order
            )
            if not here.is_close_to(wanted):
                found.append(
                    f"its images had mean {_short(wanted.pixel_mean)}, std "
                    f"{_short(wanted.pixel_std)}, {wanted.channel_order}, and the detector has "
                    f"{_short(here.pixel_mean)}, {_short(here.pixel_std)}, {here.channel_order}"
                )
        return "; ".join([*found, *self._of_layers(getattr(model, "backbone", model))])

    def _of_layers(self, network: nn.Module) -> list[str]:
        found = []
        here = _stride_kernel(network)
        if None not in (here, self.stride_kernel) and here != self.stride_kernel:
            found.append(
                f"the {self.stride_kernel}x{self.stride_kernel} convolution of its blocks has the "
                f"stride, and here the {here}x{here}, which changes features: use "
                f"detrex.modeling.backbone.ResNet with stride_in_1x1={self.stride_kernel == 1}"
            )
        others = {eps for eps in _norm_eps(network) if abs(eps - _NORM_EPS) > _NORM_EPS / 10}
        if others:
            found.append(f"its norms have eps {_NORM_EPS:g}, and here {min(others):g}")
        return found


def find_origin(content: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Origin | None:
    """Find where a file of a residual network is from.

    Args:
        content: all that the file holds.
        tensors: its tensors by name.

    Returns:
        The origin, None where nothing tells it.
    """
    author = str(content.get("__author__", ""))
    in_detectron2s_names = any(_RESNET.search(name) for name in tensors)
    table = wanted_table(content, "a dictionary")
    is_pickle = any(isinstance(value, np.ndarray) for value in table.values())
    own = _statistics(tensors)
    if is_caffe2_checkpoint(content):
        found = _caffe("trained with Caffe2", tensors)
    elif in_detectron2s_names and "torchvision" in author.lower():
        found = Origin("trained by torchvision, on images in RGB", IMAGENET, 3)
    elif in_detectron2s_names and (_CAFFE_AUTHORS.search(author) or is_pickle):
        found = _caffe("trained by detectron2's model zoo", tensors)
    elif _is_folded(tensors):
        caffe = _caffe("converted from Caffe2, as its folded norms tell, then probably", tensors)
        found = replace(caffe, statistics=None)
    else:
        return None if own is None else Origin("trained with statistics of its own", own)
    return found if own is None else replace(found, statistics=own)


def wrapper_for(tensors: Mapping[str, Tensor], *, library: str, model_name: str) -> str:
    """Say which wrapper a file fits that does not fit the one that it was given to.

    Args:
        tensors: the file's tensors by name.
        library: whose network it does not fit: ``"timm"``, ``"torchvision"``, ``"Hugging Face"``,
            or another.
        model_name: the network's name there.

    Returns:
        What to do: a network of a similar name that fits, that of the library at hand where both
        timm and torchvision have one, else the library that calls tensors so, where it is another.
        Empty where neither is found.
    """
    if len(tensors) < _LEAST_TENSORS:
        return ""
    naming = next((o for o, name in _NAMINGS.items() if any(map(name.search, tensors))), "")
    others = () if naming == "Hugging Face" else ("timm", "torchvision")
    for other in sorted(others, key=lambda name: name != library):
        fits: dict[str, float] = {}
        for name in _similar_names(model_name.partition(".")[0], other):
            fits[name] = _fit(other, name, tensors)
            if fits[name] == 1:
                break
        best = max(fits, key=lambda name: fits[name], default="")
        if best and fits[best] >= _LEAST_FIT:
            return f"its names are those of {other}'s {best!r}, so use {_WRAPPERS[other]}({best!r})"
    if naming in ("", library):
        return ""
    return f"its names are those of {naming}'s networks, so use {_WRAPPERS[naming]} for it"


def _caffe(who: str, tensors: Mapping[str, Tensor]) -> Origin:
    """Caffe2's ResNets have the stride in the 1x1 and no std; its ResNeXts neither."""
    kernels = [value for name, value in tensors.items() if _GROUPED.search(name)]
    is_grouped = any(value.ndim == 4 and value.shape[0] != value.shape[1] for value in kernels)
    if not is_grouped:
        return Origin(f"{who}, on images in BGR", CAFFE, 1)
    std = tuple(reversed(IMAGENET.pixel_std))
    return Origin(f"{who}, on images in BGR", replace(CAFFE, pixel_std=std), 3)


def _statistics(tensors: Mapping[str, Tensor]) -> PixelStatistics | None:
    """Read the statistics that a detector keeps among its tensors."""
    mean, std = tensors.get("pixel_mean"), tensors.get("pixel_std")
    if mean is None or std is None or mean.numel() != std.numel() or float(mean.max()) <= 1:
        return None
    means, stds = ([float(v) for v in values.flatten()] for values in (mean, std))
    if min(stds) <= 0:
        return None
    return PixelStatistics(tuple(means), tuple(stds), "BGR" if means[0] < means[-1] else "RGB")


def _is_folded(tensors: Mapping[str, Tensor]) -> bool:
    """Whether all batch norms are a scale and a shift, and not merely new."""
    ends = ("running_mean", "running_var", "weight")
    norms = [name.removesuffix(ends[0]) for name in tensors if name.endswith(f".{ends[0]}")]
    if len(norms) < _LEAST_NORMS or any(n + end not in tensors for n in norms for end in ends):
        return False
    means, variances, scales = (
        torch.cat([tensors[norm + end].flatten().float() for norm in norms]) for end in ends
    )
    is_identity = not means.any() and float((variances - 1).abs().max()) < _VARIANCE_SLACK
    return is_identity and bool(((scales != 1) & (scales != 0)).any())


def _stride_kernel(network: nn.Module) -> int | None:
    """Side of the convolution that has the stride of a network's bottleneck blocks."""
    for block in network.modules():
        first, second = getattr(block, "conv1", None), getattr(block, "conv2", None)
        if not isinstance(first, nn.Conv2d) or not isinstance(second, nn.Conv2d):
            continue
        if (first.kernel_size, second.kernel_size) == ((1, 1), (3, 3)):
            if first.stride != (1, 1):
                return 1
            if second.stride != (1, 1):
                return 3
    return None


def _norm_eps(network: nn.Module) -> Iterator[float]:
    for module in network.modules():
        if "running_var" in module._buffers and isinstance(
            eps := getattr(module, "eps", None), float
        ):
            yield eps


def _similar_names(model_name: str, library: str) -> list[str]:
    if library == "timm":
        try:
            import timm
        except ImportError:
            return []
        known = timm.list_models()
    else:
        import torchvision

        known = torchvision.models.list_models(module=torchvision.models)
    spelt = {name.replace("_", ""): name for name in known}
    near = difflib.get_close_matches(model_name.replace("_", ""), spelt, _MOST_CANDIDATES, 0.5)
    start = model_name[:3]
    if library == "timm":
        others = _NUMBER.sub("", model_name)
        family = [name for name in known if _NUMBER.sub("", name) == others][:_MOST_SIBLINGS]
    else:
        family = [name for name in known if name.startswith(start)]
    twin = [name for name in known if name == _TWINS.get(model_name)]
    return list(dict.fromkeys([*twin, *(spelt[name] for name in near), *family]))


def _fit(library: str, name: str, tensors: Mapping[str, Tensor]) -> float:
    """The share of a classifier's names and shapes that a file has, and that are all of it."""
    # torchvision's RegNets compute with values when they are built, which the device `meta` lacks.
    device = "cpu" if library == "torchvision" and name in _SMALL_REGNETS else "meta"
    try:
        with torch.device(device):
            state = _built(library, name).state_dict()
    except Exception as error:  # whatever the other library says of a candidate
        logger.debug("%s's %s cannot be built (%s)", library, name, error)
        return 0.0
    equal = sum(n in tensors and tensors[n].shape == value.shape for n, value in state.items())
    return equal / max(len(state), len(tensors))


def _built(library: str, name: str) -> nn.Module:
    if library == "timm":
        import timm

        return timm.create_model(name)
    import torchvision

    return torchvision.models.get_model(name)


def _short(values: tuple[float, ...]) -> str:
    return "(" + ", ".join(f"{value:g}" for value in values[:4]) + ")"
