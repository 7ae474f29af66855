"""The backbones that the study compares, and the detector that each of them gets."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detectron2.config import LazyCall
from omegaconf import DictConfig

from detrex.catalog.describe import find_entry
from detrex.config import get_config, swap_backbone
from detrex.data.demo.photographs import fetch_mobilenet_v2_weights
from detrex.errors import ConfigError

RANDOM = "random"
IMAGENET = "ImageNet"
NARROW_RESNET = "detrex_resnet_narrow"
_WIDTHS = (32, 64, 128, 256)


@dataclass(frozen=True)
class Candidate:
    """A backbone of the study.

    Attributes:
        name: in the catalog, or `NARROW_RESNET` for this package's own ResNet of 32 to 256
            channels.
        kind: one of `KINDS`; empty where nobody has said.
        weights: what training starts from, `RANDOM` or `IMAGENET`.
    """

    name: str
    kind: str = ""
    weights: str = RANDOM

    @property
    def title(self) -> str:
        """The name, with its weights where these are not random."""
        return self.name if self.weights == RANDOM else f"{self.name}, {self.weights}"


KINDS = ("convolutions", "mobile convolutions", "convolutions and attention", "attention")
CANDIDATES = (
    Candidate("resnet18", KINDS[0]),
    Candidate(NARROW_RESNET, KINDS[0]),
    Candidate("regnety_002", KINDS[0]),
    Candidate("hrnet_w18_small", KINDS[0]),
    Candidate("convnext_atto", KINDS[0]),
    Candidate("repvgg_a0", KINDS[0]),
    Candidate("mobilenet_v2", KINDS[1]),
    Candidate("mobilenetv3_large_100", KINDS[1]),
    Candidate("tf_efficientnet_lite0", KINDS[1]),
    Candidate("ghostnet_100", KINDS[1]),
    Candidate("shufflenet_v2_x1_0", KINDS[1]),
    Candidate("mobilevit_xxs", KINDS[2]),
    Candidate("efficientvit_b0", KINDS[2]),
    Candidate("tiny_vit_5m_224", KINDS[3]),
    Candidate("pvt_v2_b0", KINDS[3]),
    Candidate("vit_tiny_patch16_224", KINDS[3]),
    Candidate("mobilenet_v2", KINDS[1], IMAGENET),
)


def find_candidates(names: Sequence[str] = ()) -> list[Candidate]:
    """Choose what to compare.

    Args:
        names: architectures of the catalog; none for all of `CANDIDATES`.

    Returns:
        The candidates of these names, in their order; one that is not among `CANDIDATES` starts
        from random weights.

    Raises:
        BackboneError: the catalog has no such architecture; near names are suggested.
    """
    if not names:
        return list(CANDIDATES)
    chosen: list[Candidate] = []
    for name in dict.fromkeys(names):
        known = [candidate for candidate in CANDIDATES if candidate.name == name]
        chosen += known or [Candidate(find_entry(name).name)]
    return chosen


def study_config(candidate: Candidate, folder: Path) -> DictConfig:
    """Configure the study's detector over a backbone.

    Args:
        candidate: the backbone.
        folder: where the shapes lie, as `detrex.data.demo.shapes` writes them.

    Returns:
        ``retinanet/demo_shapes.py`` with that backbone; images are normalised alike for all that
        start from random weights.

    Raises:
        ConfigError: the detector cannot be had over this backbone.
        DownloadError: its weights are not here and cannot be fetched.
    """
    cfg = copy.deepcopy(get_config("retinanet/demo_shapes.py"))
    alike = {key: cfg.model[key] for key in ("pixel_mean", "pixel_std")}
    swap_backbone(cfg.model, _backbone(candidate))
    if candidate.weights == RANDOM:
        cfg.model.update(alike)
    cfg.dataloader.folder = str(folder)
    cfg.train.device = "cpu"
    return cfg


def _backbone(candidate: Candidate) -> Any:
    # Behind a function: torchvision and timm take seconds to import.
    from detrex.modeling import backbone

    if candidate.name == NARROW_RESNET:
        return _narrow_resnet()
    wrapper = getattr(backbone, find_entry(candidate.name).wrapper)
    call = LazyCall(wrapper)(model_name=candidate.name, out_strides=(8, 16, 32))
    if candidate.weights != RANDOM:
        if candidate.name not in _WEIGHTS:
            raise ConfigError(
                f"there are no weights of {candidate.name} for the study, only of "
                f"{', '.join(_WEIGHTS)}: start from random ones."
            )
        call.weights = str(_WEIGHTS[candidate.name]())
    return call


_WEIGHTS = {"mobilenet_v2": fetch_mobilenet_v2_weights}


def _narrow_resnet() -> Any:
    from detrex.modeling.backbone import BasicBlock, BasicStem, ResNet

    stages = [
        LazyCall(ResNet.make_stage)(
            block_class=BasicBlock,
            num_blocks=2,
            in_channels=_WIDTHS[max(place - 1, 0)],
            out_channels=width,
            stride_per_block=[1 if place == 0 else 2, 1],
            norm="BN",
        )
        for place, width in enumerate(_WIDTHS)
    ]
    stem = LazyCall(BasicStem)(in_channels=3, out_channels=_WIDTHS[0], norm="BN")
    return LazyCall(ResNet)(stem=stem, stages=stages, out_features=["res3", "res4", "res5"])
