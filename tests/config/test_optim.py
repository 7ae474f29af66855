"""Learning-rate factors go by the parameter's name."""

import pytest

from detrex.config.optim import backbone_lr_factor


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("backbone.res2.0.conv1.weight", 0.1),
        ("class_embed.0.weight", 1.0),
        ("module.backbone.x", 0.1),
    ],
)
def test_backbone_lr_factor__slows_the_backbone(name, expected):
    assert backbone_lr_factor(name) == expected


def test_backbone_lr_factor__factor():
    assert backbone_lr_factor("backbone.x", factor=0.3) == 0.3
