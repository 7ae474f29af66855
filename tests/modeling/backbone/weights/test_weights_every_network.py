"""``weights=`` gives the features of the library's own builder that is fed the same tensors.

Every classifier of torchvision with weights, and the smallest network of each of timm's families. A
few run always, all by ``pytest -m slow --log-cli-level=INFO``, which shows the differences.
"""

import contextlib
import logging

import pytest
import timm
import torch
import torchvision
from torchvision.models.feature_extraction import create_feature_extractor

from detrex.catalog.table import packaged_file, read_catalog
from detrex.checkpoint.download import cached_path
from detrex.modeling.backbone import TimmBackbone, TorchvisionBackbone

logger = logging.getLogger(__name__)

TOLERANCE = 1e-4
TORCHVISION = [
    name
    for name in torchvision.models.list_models(module=torchvision.models)
    if len(torchvision.models.get_model_weights(name))
]
OFTEN_TORCHVISION = ["googlenet", "shufflenet_v2_x0_5", "densenet121", "mnasnet0_5"]
OFTEN_TIMM = ["test_vit", "test_efficientnet", "test_convnext", "test_nfnet"]
# Sides of images for networks that do not take any.
SIDES = {"maxvit_t": 224, "inception_v3": 96, "alexnet": 96}


def smallest_of_each_timm_family():
    families = {}
    entries = [e for e in read_catalog(packaged_file()).entries if e.library == "timm"]
    for entry in sorted(entries, key=lambda e: (e.params, e.name)):
        if not entry.reason and timm.is_model(entry.name):  # an older timm lacks some
            families.setdefault(timm.model_entrypoint(entry.name).__module__, entry.name)
    return sorted(families.values())


def randomised(network):
    """Give every tensor values by which a wrong eps, order or statistic shows."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if not value.is_floating_point():
                continue
            if name.endswith("running_var"):
                value.uniform_(1e-3, 1, generator=generator)
            elif name.endswith("running_mean"):
                value.normal_(0, 0.1, generator=generator)
            elif value.numel():
                spread = 0.1 * value.std() if value.numel() > 1 else 0.1
                value.add_(torch.randn(value.shape, generator=generator) * spread)
    return network.eval()


def largest_difference(got, expected):
    """Largest difference, as a share of the largest value of its map."""
    return max(
        float((a - b).abs().max() / b.abs().max().clamp_min(1e-9))
        for a, b in zip(got, expected, strict=True)
    )


def compare_torchvision(name, folder, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(folder))
    member = torchvision.models.get_model_weights(name).DEFAULT
    url = f"https://weights.invalid/{name}.pth"
    monkeypatch.setattr(member.value, "url", url)
    quick = {"init_weights": True} if name in ("googlenet", "inception_v3") else {}
    source = torchvision.models.get_model(name, **quick)
    if hasattr(source, "image_size"):
        sizes = {"image_size": member.meta["min_size"][0]}
        source = torchvision.models.get_model(name, **sizes)
    state = randomised(source).state_dict()
    for file in (cached_path(url), folder / "hub/checkpoints" / f"{name}.pth"):
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.save(state, file)
    backbone = TorchvisionBackbone(name, out_strides=(16,), weights=member).eval()
    theirs = torchvision.models.get_model(name, weights=member).eval()
    nodes = {str(feature.source): feature.name for feature in backbone._maps}
    side = getattr(theirs, "image_size", SIDES.get(name, 64))
    image = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(1)) * 4 - 2
    with torch.no_grad():
        expected = create_feature_extractor(theirs, nodes)(image)
        if not all(torch.isfinite(feature).all() for feature in expected.values()):
            # Random weights of many blocks grow beyond what float32 holds.
            image, theirs, backbone = image.double(), theirs.double(), backbone.double()
            expected = create_feature_extractor(theirs, nodes)(image)
        got = backbone.feature_extractor(image)
    assert got.keys() == expected.keys()
    return largest_difference(got.values(), expected.values())


def compare_timm(name, folder):
    torch.manual_seed(0)
    torch.save(randomised(timm.create_model(name)).state_dict(), folder / "w.pth")
    backbone = TimmBackbone(name, weights=folder / "w.pth").eval()
    theirs = timm.create_model(
        name,
        features_only=True,
        pretrained=True,
        pretrained_cfg_overlay={"file": str(folder / "w.pth")},
        out_indices=sorted(int(feature.source) for feature in backbone._maps),
    ).eval()
    side = timm.get_pretrained_cfg(name).input_size[-1]
    with contextlib.suppress(RuntimeError, AssertionError):
        small = torch.zeros(1, 3, 64, 64)
        with torch.no_grad():
            theirs(small), backbone.timm_model(small)
        side = 64
    image = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return largest_difference(backbone.timm_model(image), theirs(image))


@pytest.mark.parametrize("name", OFTEN_TORCHVISION)
def test_weights__of_torchvision(name, tmp_path, monkeypatch):
    assert compare_torchvision(name, tmp_path, monkeypatch) <= TOLERANCE


@pytest.mark.parametrize("name", OFTEN_TIMM)
def test_weights__of_timm(name, tmp_path):
    assert compare_timm(name, tmp_path) <= TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("name", TORCHVISION)
def test_weights__of_every_torchvision_network(name, tmp_path, monkeypatch):
    difference = compare_torchvision(name, tmp_path, monkeypatch)
    logger.info("torchvision %s: %.1e", name, difference)
    assert difference <= TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("name", smallest_of_each_timm_family())
def test_weights__of_every_timm_family(name, tmp_path):
    difference = compare_timm(name, tmp_path)
    logger.info("timm %s: %.1e", name, difference)
    assert difference <= TOLERANCE
