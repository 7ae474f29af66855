"""Weights that fit only when they are resampled, adapted or renamed by somebody else."""

import pytest
import timm
import torch
import torchvision
from torch import nn

from detrex.checkpoint import load_weights
from detrex.errors import CheckpointError


def torchvision_resnet():
    block = torchvision.models.resnet.BasicBlock
    return torchvision.models.resnet.ResNet(block, [1, 1, 1, 1])


def test_load_weights__deeper_network_of_the_same_family_is_warned_of(caplog):
    block = torchvision.models.resnet.BasicBlock
    deep = torchvision.models.resnet.ResNet(block, [1, 2, 3, 2])
    report = load_weights(torchvision_resnet(), deep.state_dict())
    assert report.share == 1
    assert report.cut_short == ("layer2.", "layer3.", "layer4.")
    assert (
        "is of a deeper network: of 'layer2.', 'layer3.', 'layer4.' only the first" in caplog.text
    )


def test_load_weights__part_of_a_network_is_not_cut_short():
    deep = timm.create_model("vit_tiny_patch16_224", depth=3)
    model = timm.create_model("vit_tiny_patch16_224", depth=3, features_only=True, out_indices=(1,))
    report = load_weights(model, deep.state_dict())
    assert report.share == 1
    assert report.cut_short == ()


def test_load_weights__kernel_of_other_images():
    source, model = torchvision_resnet(), torchvision_resnet()
    model.conv1 = nn.Conv2d(4, 64, 7, bias=False)
    assert load_weights(model, source.state_dict()).mismatched == ("conv1.weight",)
    report = load_weights(model, source.state_dict(), in_channels=4)
    assert report.share == 1
    assert report.adapted == ("conv1.weight",)
    expected = source.conv1.weight[:, [0, 1, 2, 0]] * 0.75
    torch.testing.assert_close(model.conv1.weight, expected, rtol=1e-6, atol=1e-7)


def test_load_weights__position_embedding_of_another_size():
    source = timm.create_model("vit_tiny_patch16_224", depth=1)
    model = timm.create_model("vit_tiny_patch16_224", depth=1, img_size=(96, 160))
    report = load_weights(model, source.state_dict())
    assert report.share == 1
    assert report.resized == ("pos_embed",)
    expected = timm.layers.resample_abs_pos_embed(source.pos_embed, [6, 10])
    torch.testing.assert_close(model.pos_embed, expected, rtol=1e-5, atol=1e-6)


def test_load_weights__translations(caplog):
    source, model = nn.Linear(3, 5), nn.Linear(3, 5)
    file = {f"dense/{name}": value for name, value in source.state_dict().items()}

    def rename(tensors):
        return {name.removeprefix("dense/"): value for name, value in tensors.items()}

    def refuse(tensors):
        raise KeyError("dense")

    with caplog.at_level("INFO"):
        report = load_weights(model, file, translations={"theirs": refuse, "ours": rename})
    assert report.share == 1
    assert report.names == "ours, same names"
    assert "theirs does not take the state dict (KeyError: 'dense')" in caplog.text


def test_load_weights__module_is_unchanged_after_an_error():
    resnet, model = torchvision_resnet(), torchvision_resnet()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    half = {k: v for k, v in resnet.state_dict().items() if not k.startswith("layer4")}
    with pytest.raises(CheckpointError, match="at least 90% must"):
        load_weights(model, half, min_share=0.9)
    torch.testing.assert_close(dict(model.state_dict()), before, rtol=0, atol=0)
