"""What a wrapper promises holds under FPN, a simple feature pyramid and in a C4 detector too."""

import pytest
import torch
from detectron2.modeling import FPN
from detectron2.modeling import SimpleFeaturePyramid as D2Pyramid
from detectron2.structures import ImageList
from torch import nn
from torch.testing import assert_close

from detrex.detectors import backbone_parts
from detrex.modeling.backbone import SimpleFeaturePyramid, TimmBackbone

LEVELS = ["res2", "res3", "res4", "res5"]
FEW = LEVELS[1:3]


class Detector(nn.Module):
    """Pads images as detectron2's detectors do, and gives its levels."""

    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone

    def forward(self, images):
        padded = ImageList.from_tensors(
            images,
            self.backbone.size_divisibility,
            padding_constraints=self.backbone.padding_constraints,
        )
        return padded.tensor.shape[-2:], self.backbone(padded.tensor)


def fpn(network):
    return Detector(FPN(network, list(network.output_shape()), 8))


def pyramid(network, cls=SimpleFeaturePyramid, **kwargs):
    return Detector(cls(network, "res4", 8, (2.0, 1.0, 0.5), **kwargs))


NETWORKS = {
    "fpn": lambda **k: fpn(TimmBackbone("test_resnet", out_features=LEVELS, **k)),
    "pyramid": lambda **k: pyramid(TimmBackbone("test_vit", out_features=["res4"], **k)),
    "c4": lambda **k: Detector(TimmBackbone("test_resnet", out_features=["res4"], **k)),
}


@pytest.mark.parametrize("build", NETWORKS.values(), ids=NETWORKS)
def test_freeze_at__holds_in_a_detector_that_trains(build, caplog):
    with caplog.at_level("INFO"):
        detector = build(freeze_at=2).eval().train()
    assert "frozen" in caplog.text
    assert "trainable" in caplog.text
    network = [*backbone_parts(detector).values()][-1]
    inside = [network.get_submodule(name) for name in network.frozen_modules]
    assert inside
    frozen = {id(p) for module in inside for p in module.parameters()}
    assert not any(module.training for module in inside)
    assert not any(p.requires_grad for module in inside for p in module.parameters())
    others = [p for p in detector.parameters() if id(p) not in frozen]
    assert sum(p.requires_grad for p in others) > len(others) / 2
    assert detector.training
    assert detector.backbone.training


@pytest.mark.parametrize("build", NETWORKS.values(), ids=NETWORKS)
def test_grad_checkpointing__leaves_the_gradients_of_a_detector(build):
    images = [torch.randn(3, 61, 70, generator=torch.Generator().manual_seed(i)) for i in (1, 2)]
    gradients = []
    for grad_checkpointing in (False, True):
        torch.manual_seed(0)
        detector = build(grad_checkpointing=grad_checkpointing).train()
        _, levels = detector(images)
        sum(level.square().mean() for level in levels.values()).backward()
        named = detector.named_parameters()
        gradients.append({name: p.grad for name, p in named if p.grad is not None})
    plain, checkpointed = gradients
    assert plain.keys() == checkpointed.keys()
    assert len(plain) > 5
    for name, gradient in plain.items():
        assert_close(checkpointed[name], gradient, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize(
    ("detector", "padded"),
    [
        (lambda: fpn(TimmBackbone("test_resnet", out_features=LEVELS)), (64, 96)),
        (lambda: fpn(TimmBackbone("test_resnet", out_features=FEW)), (64, 80)),
        # Patches of 14 pixels: the network pads inside, FPN's multiples are those of its levels.
        (
            lambda: fpn(TimmBackbone("vit_small_patch14_dinov2", depth=1, out_features=LEVELS)),
            (64, 96),
        ),
        (lambda: pyramid(TimmBackbone("test_vit", out_features=["res4"])), (64, 96)),
        (
            lambda: pyramid(TimmBackbone("test_vit", out_features=["res4"]), square_pad=128),
            (128, 128),
        ),
        (
            lambda: pyramid(
                TimmBackbone("test_vit", out_features=["res4"]), D2Pyramid, square_pad=128
            ),
            (128, 128),
        ),
        (lambda: Detector(TimmBackbone("test_resnet", out_features=["res4"])), (61, 70)),
        (lambda: Detector(TimmBackbone("test_vit", out_features=["res4"])), (64, 80)),
    ],
)
def test_padding__levels_cover_images_of_any_size(detector, padded):
    built = detector().eval()
    images = [torch.randn(3, 61, 70), torch.randn(3, 40, 66)]
    with torch.no_grad():
        size, levels = built(images)
    assert tuple(size) == padded
    for name, spec in built.backbone.output_shape().items():
        cells = tuple(-(-side // spec.stride) for side in size)
        assert levels[name].shape == (2, spec.channels, *cells), name
