"""Both passes of every detector, and of wrapped backbones, as on a GPU: what crosses its bus."""

from collections import Counter

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.utils.events import EventStorage

from detrex.config import get_config
from detrex.config.building import build_on_meta
from detrex.engine.fake_card import FakeCard, backward
from detrex.modeling.backbone import SimpleFeaturePyramid, TimmBackbone, TorchvisionBackbone
from tests.configs import test_all_configs as dinos
from tests.configs import test_detectron2_detectors as others
from tests.reference.versions import since

pytestmark = since("torch", 2, 7, reason="torch 2.6 asks for a driver before it fakes a card")

POSTPROCESS = "detrex/modeling/dino/postprocess.py"
MATCHER = "detrex/modeling/matcher/assignment.py"
INPUTS = "detrex/modeling/dino/inputs.py"
DENOISING = "detrex/layers/denoising.py"
CRITERION = "detrex/modeling/criterion/stack.py"

ATTENTION = "detrex/layers/multi_scale_deform_attn.py"

QUICK = (
    *("dino_r50_4scale", "mask_rcnn_convnext"),
    *("resnet", "vit", "pyramid_of_vit", "torchvision_resnet"),
)
FEW_LAYERS = ["model.transformer.encoder.num_layers=1", "model.transformer.decoder.num_layers=2"]


def _by_speed(names):
    quick = {name for name in names for part in QUICK if name == part or f"/{part}" in name}
    return [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in names]


def _both_passes(call, inputs):
    """Build without memory, and run on the card: what it read back and what was sent to it."""
    seen = {}
    for training in (False, True):
        model = build_on_meta(call).train(training)
        with FakeCard() as card, torch.set_grad_enabled(training), EventStorage():
            outputs = card.take(model)(inputs)
            if training:
                backward(sum(outputs.values()))
        seen[training] = card
    assert [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None] == []
    return seen[False], seen[True]


def _files(transfers):
    return [transfer.place.partition(":")[0] for transfer in transfers]


@pytest.mark.parametrize("name", _by_speed(dinos.SMALL_BACKBONE))
def test_dino__reads_back_once(name):
    overrides = [*dinos.SMALL_DETECTOR, *dinos.SMALL_BACKBONE[name]]
    _check_dino(dinos.load(name, overrides).model)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in dinos.DINOS if "photographs" not in name])
def test_dino__of_full_width_reads_back_once(name):
    _check_dino(dinos.load(name, FEW_LAYERS).model)


def _check_dino(model):
    evaluation, training = _both_passes(model, dinos.batch())
    assert _files(evaluation.read_backs) == [POSTPROCESS]
    assert _files(training.read_backs) == [MATCHER]
    assert _sent(evaluation) == {INPUTS: 2}  # the two images
    # Images, labels and boxes of each; places of denoising queries and of matches, once.
    assert _sent(training) == {INPUTS: 3 * 2, DENOISING: 2, CRITERION: 2}


def _sent(card):
    """Count what this package sent by file; levels' sizes left out, which a real card keeps."""
    return Counter(
        file for file in _files(card.uploads) if file.startswith("detrex/") and file != ATTENTION
    )


@pytest.mark.parametrize("name", _by_speed(others.SMALL))
def test_detectron2s_detectors__read_back_in_their_own_code(name):
    """Sampling, matching and suppression of boxes wait for the card, as detectron2 wrote them."""
    for card in _both_passes(others.small(name).model, others.batch()):
        asked = _files([*card.read_backs, *card.uploads])
        assert {file.split("/")[0] for file in asked if not file.startswith("backward of")} <= {
            *("detectron2", "fvcore", "torchvision"),
        }


def _timm(name, **kwargs):
    return L(TimmBackbone)(model_name=name, out_strides=(8, 16, 32), **kwargs)


def _torchvision(name):
    return L(TorchvisionBackbone)(model_name=name, out_strides=(8, 16, 32))


def _pyramid():
    return L(SimpleFeaturePyramid)(
        net=L(TimmBackbone)(model_name="test_vit", out_indices=[-1]),
        in_feature="p-1",
        out_channels=16,
        scale_factors=[2.0, 1.0, 0.5],
    )


WRAPPERS = {
    "resnet": _timm("test_resnet"),
    "convnext": _timm("test_convnext"),
    "efficientnet": _timm("test_efficientnet"),
    "swin": _timm("swin_tiny_patch4_window7_224"),
    "vit": _timm("test_vit"),
    "vit_of_patch_14": _timm("vit_small_patch14_dinov2"),
    "rotary_vit": _timm("vit_small_patch16_dinov3"),
    "one_size": _timm("levit_128s"),
    "pyramid_of_vit": _pyramid(),
    "torchvision_resnet": _torchvision("resnet18"),
    "torchvision_swin": _torchvision("swin_t"),
    "torchvision_vit": _torchvision("vit_b_32"),
}


@pytest.mark.parametrize("name", _by_speed(WRAPPERS))
def test_wrapper__nothing_crosses_the_bus(name):
    for training in (False, True):
        model = build_on_meta(WRAPPERS[name]).train(training)
        with FakeCard() as card, torch.set_grad_enabled(training):
            maps = card.take(model)(torch.zeros(2, 3, 96, 128, device=card.device))
            if training:
                backward(sum(level.sum() for level in maps.values()))
        assert {level.device.type for level in maps.values()} == {"cuda"}
        assert card.read_backs == []
        # DINOv3's rotary tables are timm's
        assert [file for file in _files(card.uploads) if not file.startswith("timm/")] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", WRAPPERS)
def test_wrapper__in_a_detector(name):
    model = get_config("dino/models/dino_r50.py").model
    model.backbone = WRAPPERS[name]
    for part in (model.transformer.encoder, model.transformer.decoder):
        part.num_layers = 1
    _check_dino(model)
