"""Where a file of a residual network is from, and which wrapper a file fits."""

import numpy as np
import pytest
import timm
import torch
import torchvision
from detectron2.modeling.backbone.resnet import BottleneckBlock
from torch import nn

from detrex.checkpoint.reading.state_dict import tensors_of
from detrex.modeling.backbone import (
    BasicStem,
    ConvNeXt,
    ResNet,
    TimmBackbone,
    TorchvisionBackbone,
)
from detrex.modeling.backbone.weights.origins import find_origin, wrapper_for
from detrex.modeling.pixel_statistics import CAFFE, IMAGENET, PixelStatistics
from tests.reference.tiny_transformers import TYPES, built_by_transformers


def names_of_detectron2(**changed):
    """A few tensors in detectron2's names, norms folded to a scale and a shift."""
    table = {"stem.conv1.weight": torch.ones(8, 3, 7, 7)}
    for stage in range(2, 6):
        for conv in (1, 2):
            start = f"res{stage}.0.conv{conv}"
            table[f"{start}.weight"] = torch.ones(8, 8, 3, 3)
            table[f"{start}.norm.weight"] = torch.full((8,), 0.7)
            table[f"{start}.norm.running_mean"] = torch.zeros(8)
            table[f"{start}.norm.running_var"] = torch.full((8,), 1 - 1e-5)
    return table | changed


def as_arrays(table):
    return {name: value.numpy() for name, value in table.items()}


ZOO = {"model": as_arrays(names_of_detectron2()), "__author__": "Detectron2 Model Zoo"}
TORCHVISION = {"model": as_arrays(names_of_detectron2()), "__author__": "torchvision"}
GROUPED = names_of_detectron2() | {"res2.0.conv2.weight": torch.ones(8, 2, 3, 3)}
RESNEXT = {"model": as_arrays(GROUPED), "__author__": "Detectron2 Model Zoo"}
CAFFE2 = {"blobs": {"conv1_w": np.ones((8, 3, 7, 7)), "res2_0_branch2a_w": np.ones((8, 8, 1, 1))}}


def origin(content):
    return find_origin(content, tensors_of(content))


@pytest.mark.parametrize("content", [ZOO, CAFFE2, {"model": as_arrays(names_of_detectron2())}])
def test_find_origin__caffe(content):
    found = origin(content)
    assert found.statistics == CAFFE
    assert found.stride_kernel == 1
    assert "BGR" in found.name


def test_find_origin__detectors_of_the_zoo():
    table = {f"backbone.bottom_up.{n}": v for n, v in names_of_detectron2().items()}
    assert origin({"model": as_arrays(table), "__author__": "Caffe2"}).statistics == CAFFE


def test_find_origin__resnext_of_caffe_has_a_std():
    found = origin(RESNEXT)
    assert found.statistics == PixelStatistics(CAFFE.pixel_mean, (57.375, 57.12, 58.395), "BGR")
    assert found.stride_kernel == 3


def test_find_origin__torchvision():
    found = origin(TORCHVISION)
    assert found.statistics == IMAGENET
    assert found.differences(torchvision.models.resnet50()) == ""


def test_find_origin__folded_norms_are_likely_caffes():
    """Statistics are not published by likelihood, but the reader is told."""
    renamed = {n.replace("res", "layer"): v for n, v in names_of_detectron2().items()}
    found = origin({"state_dict": renamed})
    assert found.statistics is None
    assert "give preprocess's values by hand" in found.differences(nn.Identity())


def test_find_origin__statistics_in_the_file():
    own = {
        "pixel_mean": torch.tensor([103.0, 116.0, 123.0]).view(3, 1, 1),
        "pixel_std": torch.tensor([57.0, 58.0, 59.0]).view(3, 1, 1),
    }
    expected = PixelStatistics((103.0, 116.0, 123.0), (57.0, 58.0, 59.0), "BGR")
    assert origin({"model": as_arrays(names_of_detectron2(**own))}).statistics == expected
    assert origin({"conv.weight": torch.ones(1)} | own).statistics == expected


@pytest.mark.parametrize(
    "model", [timm.create_model("resnet18"), torchvision.models.resnet18(), nn.BatchNorm2d(8)]
)
def test_find_origin__nothing_tells(model):
    assert origin({"model": model.state_dict()}) is None


def detectron2_resnet50(stride_in_1x1):
    widths = [(64, 64, 256, 1), (256, 128, 512, 2)]
    stages = [
        ResNet.make_stage(
            BottleneckBlock,
            1,
            stride_per_block=[stride],
            in_channels=before,
            bottleneck_channels=inner,
            out_channels=after,
            stride_in_1x1=stride_in_1x1,
        )
        for before, inner, after, stride in widths
    ]
    return nn.Sequential(*[nn.Sequential(*stage) for stage in stages])


def test_differences__of_the_stride():
    found = origin(ZOO)
    for network in (torchvision.models.resnet50(), detectron2_resnet50(False)):
        differs = found.differences(network)
        assert "1x1 convolution of its blocks has the stride, and here the 3x3" in differs
        assert "stride_in_1x1=True" in differs
        assert "mean (103.53, 116.28, 123.675), std (1, 1, 1), BGR" in differs
    assert "stride" not in found.differences(detectron2_resnet50(True))


def test_differences__of_the_eps():
    differs = origin(ZOO).differences(nn.BatchNorm2d(8, eps=1e-3))
    assert "its norms have eps 1e-05, and here 0.001" in differs


@pytest.mark.parametrize(
    ("file", "library", "model_name", "expected"),
    [
        (
            torchvision.models.mobilenet_v3_small,
            "timm",
            "mobilenetv3_small_100",
            "TorchvisionBackbone('mobilenet_v3_small')",
        ),
        (
            lambda: timm.create_model("mobilenetv2_100"),
            "torchvision",
            "mobilenet_v2",
            "TimmBackbone('mobilenetv2_100')",
        ),
        *(
            (
                lambda ours=ours: timm.create_model(ours),
                "torchvision",
                theirs,
                f"TimmBackbone({ours!r})",
            )
            for ours, theirs in [
                ("vit_base_patch32_224", "vit_b_32"),
                ("swin_tiny_patch4_window7_224", "swin_t"),
            ]
        ),
        (
            torchvision.models.regnet_x_400mf,
            "timm",
            "regnetx_004",
            "TorchvisionBackbone('regnet_x_400mf')",
        ),
        *(
            (torchvision.models.resnet34, library, "resnet18", f"{wrapper}('resnet34')")
            for library, wrapper in [
                ("timm", "TimmBackbone"),
                ("torchvision", "TorchvisionBackbone"),
            ]
        ),
        *(
            (
                lambda kind=kind: built_by_transformers(kind, TYPES[kind]),
                *(library, name, "those of Hugging Face's networks, so use HuggingFaceBackbone"),
            )
            for kind, library, name in [
                ("vit", "timm", "vit_tiny_patch16_224"),
                ("resnet", "torchvision", "resnet50"),
                ("segformer", "detectron2", "ResNet"),
                ("dinov3_vit", "timm", "vit_small_patch16_dinov3"),
            ]
        ),
        (lambda: built_by_transformers("swin", TYPES["swin"]), "Hugging Face", "vit", ""),
        (lambda: timm.create_model("test_vit"), "Hugging Face", "vit", "TimmBackbone('test_vit')"),
        (
            lambda: timm.create_model("convnext_atto"),
            *("Hugging Face", "convnext", "so use TimmBackbone"),
        ),
        (torchvision.models.swin_t, "Hugging Face", "swin", "so use TorchvisionBackbone"),
        (torchvision.models.resnet18, "Hugging Face", "resnet", "Backbone('resnet18')"),
        (lambda: TimmBackbone("resnet18"), "Hugging Face", "resnet", "so use TimmBackbone for it"),
        (
            lambda: TorchvisionBackbone("resnet18"),
            *("Hugging Face", "resnet", "so use TorchvisionBackbone for it"),
        ),
        (
            lambda: nn.ModuleDict({"hf_model": timm.create_model("resnet18")}),
            *("timm", "resnet50", "so use HuggingFaceBackbone for it"),
        ),
        (lambda: ConvNeXt(depths=(1, 1, 1, 1), dims=(6, 8, 8, 8)), "timm", "convnext_atto", ""),
        (
            lambda: torchvision.models.ResNet(torchvision.models.resnet.BasicBlock, [3, 1, 1, 1]),
            *("torchvision", "resnet18", ""),
        ),
        (lambda: nn.Linear(2, 3), "timm", "resnet18", ""),
    ],
)
def test_wrapper_for(file, library, model_name, expected):
    tensors = dict(file().state_dict())
    assert expected in wrapper_for(tensors, library=library, model_name=model_name)
    if not expected:
        assert wrapper_for(tensors, library=library, model_name=model_name) == ""


class _Detector(nn.Module):
    """A ResNet under a detector with statistics of its own."""

    def __init__(self, mean, std, order, stride_in_1x1=False):
        super().__init__()
        stages = ResNet.make_default_stages(50, stride_in_1x1=stride_in_1x1)
        self.backbone = ResNet(BasicStem(), stages, out_features=["res5"])
        self.register_buffer("pixel_mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("pixel_std", torch.tensor(std).view(-1, 1, 1))
        self.input_format = order


@pytest.mark.parametrize(
    ("content", "statistics", "words"),
    [
        (ZOO, (IMAGENET, "RGB"), ["std (1, 1, 1), BGR, and the detector has (123.675", "3x3"]),
        (ZOO, (CAFFE, "RGB"), ["BGR, and the detector has (103.53", "RGB; the 1x1"]),
        (TORCHVISION, (IMAGENET, "RGB"), []),
        (TORCHVISION, (CAFFE, "BGR"), ["std (58.395, 57.12, 57.375), RGB, and the detector has"]),
    ],
)
def test_differences_of_detector(content, statistics, words):
    preprocess, order = statistics
    detector = _Detector(preprocess.pixel_mean, preprocess.pixel_std, order)
    text = origin(content).differences_of_detector(detector)
    assert all(word in text for word in words)
    assert bool(text) == bool(words)


def test_differences_of_detector__that_is_as_the_weights_want():
    detector = _Detector(CAFFE.pixel_mean, CAFFE.pixel_std, "BGR", stride_in_1x1=True)
    assert origin(ZOO).differences_of_detector(detector) == ""
