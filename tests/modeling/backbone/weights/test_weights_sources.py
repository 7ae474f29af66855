"""Weights out of folders, descriptions and dictionaries, and what belongs to them."""

import dataclasses
import json
import pickle

import pytest
import timm
import torch
import torchvision
from detectron2.modeling.backbone import BasicStem
from detectron2.modeling.backbone.resnet import BasicBlock
from safetensors.torch import save_file

from detrex.checkpoint.matching.key_conversion import torchvision_to_detectron2
from detrex.errors import BackboneError, CheckpointError
from detrex.modeling.backbone import (
    ResNet,
    TimmBackbone,
    TorchvisionBackbone,
    TorchvisionResNet,
)
from detrex.modeling.backbone.timm_backbone import weights as timm_weights
from detrex.modeling.backbone.torchvision_backbone import weights as torchvision_weights
from detrex.modeling.pixel_statistics import CAFFE

STRIDES = (8, 16, 32)


@pytest.fixture(scope="module")
def plain():
    torch.manual_seed(4)
    return timm.create_model("test_resnet")


@pytest.fixture
def folder(plain, tmp_path):
    """A folder as ``timm.models.push_to_hf_hub`` fills it."""
    save_file(plain.state_dict(), tmp_path / "model.safetensors")
    config = {"mean": [0.1, 0.2, 0.3], "std": [0.5, 0.5, 0.5], "input_size": [3, 160, 160]}
    content = {"architecture": "test_resnet", "num_classes": 1000, "pretrained_cfg": config}
    (tmp_path / "config.json").write_text(json.dumps(content))
    return tmp_path


def assert_is(backbone, plain):
    state = backbone.timm_model.state_dict()
    expected = plain.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in state.items())


@pytest.mark.parametrize("way", ["str", "path", "local-dir"])
def test_weights__folder_and_its_description(folder, plain, way):
    weights = {"str": str(folder), "path": folder, "local-dir": f"local-dir:{folder}"}[way]
    backbone = TimmBackbone("test_resnet", out_strides=STRIDES, weights=weights)
    assert_is(backbone, plain)
    assert backbone.preprocess.pixel_mean == (25.5, 51.0, 76.5)


def test_weights__model_of_a_folder(folder, plain):
    backbone = TimmBackbone(f"local-dir:{folder}", out_strides=STRIDES, pretrained=True)
    assert_is(backbone, plain)
    assert backbone.preprocess.pixel_std == (127.5, 127.5, 127.5)


@pytest.mark.parametrize("source", ["file", "state_dict"])
def test_weights__overlay(tmp_path, plain, source):
    torch.save(plain.state_dict(), tmp_path / "w.pth")
    given = {"file": str(tmp_path / "w.pth"), "state_dict": plain.state_dict()}[source]
    overlay = {source: given, "mean": (0.5, 0.4, 0.2)}
    backbone = TimmBackbone(
        "test_resnet", out_strides=STRIDES, pretrained=True, pretrained_cfg_overlay=overlay
    )
    assert_is(backbone, plain)
    assert backbone.preprocess.pixel_mean == (127.5, 102.0, 51.0)


def test_weights__overlay_of_statistics_beside_a_file(tmp_path, plain):
    torch.save(plain.state_dict(), tmp_path / "w.pth")
    backbone = TimmBackbone(
        "test_resnet",
        out_strides=STRIDES,
        weights=tmp_path / "w.pth",
        pretrained_cfg_overlay={"std": (0.2, 0.2, 0.2)},
    )
    assert_is(backbone, plain)
    assert backbone.preprocess.pixel_std == (51.0, 51.0, 51.0)


def test_weights__description_in_the_place_of_timms(tmp_path, plain):
    torch.save(plain.state_dict(), tmp_path / "w.pth")
    described = {"file": str(tmp_path / "w.pth"), "std": (0.4, 0.4, 0.4), "first_conv": "conv1.0"}
    backbone = TimmBackbone(
        "test_resnet", out_strides=STRIDES, pretrained=True, pretrained_cfg=described
    )
    assert_is(backbone, plain)
    assert backbone.preprocess.pixel_std == (102.0, 102.0, 102.0)


@pytest.mark.parametrize("nest", [lambda t: t, lambda t: {"epoch": 3, "model_ema": t, "model": {}}])
def test_weights__dictionary(plain, nest):
    weights = nest(plain.state_dict())
    assert_is(TimmBackbone("test_resnet", out_strides=STRIDES, weights=weights), plain)


def test_weights__entry_of_a_file(tmp_path, plain):
    other = {name: torch.zeros_like(value) for name, value in plain.state_dict().items()}
    torch.save({"teacher": other, "student": plain.state_dict()}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="several networks, 'teacher', 'student'"):
        TimmBackbone("test_resnet", out_strides=STRIDES, weights=tmp_path / "w.pth")
    file = f"{tmp_path}/w.pth#student"
    assert_is(TimmBackbone("test_resnet", out_strides=STRIDES, weights=file), plain)


@pytest.mark.parametrize("huge", [["a" * 90] * 5000, "a" * 100_000])
def test_find_weights__messages_stay_short(huge):
    for library in (timm_weights, torchvision_weights):
        with pytest.raises((TypeError, BackboneError)) as error:
            library.find_weights(huge, "resnet50")
        assert len(str(error.value)) < 500


def zoo_file(path):
    """A file in the manner of detectron2's zoo; its author is what tells."""
    stages = [ResNet.make_stage(block, 1, **sizes) for block, sizes in blocks()]
    network = ResNet(BasicStem(norm="FrozenBN"), stages, out_features=["res5"])
    arrays = {f"backbone.bottom_up.{n}": v.numpy() for n, v in network.state_dict().items()}
    path.write_bytes(pickle.dumps({"model": arrays, "__author__": "Detectron2 Model Zoo"}))
    return network


def blocks():
    widths = [(64, 64, 1), (64, 128, 2), (128, 256, 2), (256, 512, 2)]
    for before, after, stride in widths:
        sizes = {"in_channels": before, "out_channels": after, "norm": "FrozenBN"}
        yield BasicBlock, {"stride_per_block": [stride]} | sizes


def test_weights__of_detectron2s_zoo_publish_their_statistics(tmp_path, caplog):
    source = zoo_file(tmp_path / "R.pkl")
    stages = [ResNet.make_stage(block, 1, **sizes) for block, sizes in blocks()]
    backbone = ResNet(
        BasicStem(norm="FrozenBN"), stages, out_features=["res5"], weights=tmp_path / "R.pkl"
    )
    assert backbone.preprocess == CAFFE
    assert "was trained by detectron2's model zoo, on images in BGR" in caplog.text
    state = backbone.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in source.state_dict().items())


def test_weights__statistics_of_torchvisions_resnet(tmp_path):
    network = torchvision.models.resnet18()
    arrays = {torchvision_to_detectron2(n): v.numpy() for n, v in network.state_dict().items()}
    content = {"model": arrays, "__author__": "Detectron2 Model Zoo"}
    (tmp_path / "R.pkl").write_bytes(pickle.dumps(content))
    body = TorchvisionResNet("resnet18", True, weights=tmp_path / "R.pkl")
    assert body.preprocess == CAFFE
    backbone = TorchvisionBackbone("resnet18", out_strides=STRIDES, weights=tmp_path / "R.pkl")
    assert backbone.preprocess == CAFFE


@pytest.fixture
def googlenet(monkeypatch):
    """GoogLeNet's published weights, as a dictionary that is given instead of the file."""
    network = torchvision.models.googlenet(init_weights=False)
    source_of = torchvision_weights._source

    def source(*args):
        return dataclasses.replace(source_of(*args), addresses=(), content=network.state_dict())

    monkeypatch.setattr(torchvision_weights, "_source", source)
    return network


def test_weights__images_that_the_network_changes_itself(googlenet, caplog):
    options = {"return_nodes": {"inception3a": "x"}, "init_weights": False}
    backbone = TorchvisionBackbone("googlenet", weights=True, **options)
    assert backbone.preprocess.pixel_mean == (123.675, 116.28, 103.53)
    bands = TorchvisionBackbone("googlenet", weights=True, in_channels=4, **options)
    assert bands.preprocess.pixel_mean == bands.preprocess.pixel_std == (127.5,) * 4
    assert "transform_input" not in caplog.text
    TorchvisionBackbone("googlenet", weights=googlenet.state_dict(), **options)
    assert "give transform_input=True" in caplog.text
