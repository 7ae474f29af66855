"""The way of an image through a wrapper, against the same steps written out by hand."""

import math
import pickle

import pytest
import torch
import torch.nn.functional as F
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from omegaconf import ListConfig
from torch.testing import assert_close

from detrex.config import get_detectron2_config
from detrex.errors import BackboneError
from detrex.modeling.backbone import TimmBackbone, TorchvisionBackbone


@pytest.mark.parametrize("size", [(64, 96), (53, 71), (16, 16)])
def test_forward__plain_network_of_any_size(size):
    torch.manual_seed(0)
    backbone = TimmBackbone("test_vit", out_strides=(8, 16, 32), out_channels=24).eval()
    image = torch.randn(2, 3, *size)
    outputs = backbone(image)
    padded = F.pad(image, (0, -size[1] % 32, 0, -size[0] % 32))
    raw = backbone.timm_model(padded)[-1]
    for level in backbone.pyramid.levels:
        height, width = (-(-side // level.stride) for side in size)
        expected = backbone.pyramid.blocks[f"p{int(math.log2(level.stride))}"](raw)[
            ..., :height, :width
        ]
        assert outputs[level.name].shape == (2, 24, height, width)
        assert_close(outputs[level.name], expected, rtol=0, atol=0)
    assert backbone.size_divisibility == 16
    assert backbone.padding_constraints == {"size_divisibility": 16, "square_size": 0}


def test_forward__tiles_are_seen_one_by_one():
    torch.manual_seed(0)
    backbone = TimmBackbone(
        "test_vit", img_size=48, dynamic_img_size=False, out_indices=(2, -1)
    ).eval()
    image = torch.randn(2, 3, 70, 96)
    outputs = backbone(image)
    padded = F.pad(image, (0, 0, 0, 26))
    for place, name in enumerate(("p2", "p-1")):
        rows = []
        for top in (0, 48):
            row = [
                backbone.timm_model(padded[:, :, top : top + 48, left : left + 48])[place]
                for left in (0, 48)
            ]
            rows.append(torch.cat(row, dim=3))
        expected = torch.cat(rows, dim=2)[:, :, :5]
        assert_close(outputs[name], expected, rtol=0, atol=1e-5)
    assert backbone.size_divisibility == 48


def test_forward__untouched_maps_of_a_network_that_needs_nothing():
    backbone = TimmBackbone("test_resnet", out_strides=(8, 32)).eval()
    image = torch.randn(2, 3, 67, 101)
    raw = backbone.timm_model(image)
    assert backbone.pyramid is None
    for output, expected in zip(backbone(image).values(), raw, strict=True):
        assert_close(output, expected, rtol=0, atol=0)
    assert backbone.size_divisibility == 0


def test_out_strides__adds_no_parameter_where_nothing_is_made():
    plain = TimmBackbone("test_resnet", out_indices=(2, 3, 4)).state_dict()
    assert TimmBackbone("test_resnet", out_strides=(8, 16, 32)).state_dict().keys() == plain.keys()


def test_out_strides__order_and_names():
    backbone = TimmBackbone("test_resnet", out_strides=(32, 8))
    assert list(backbone(torch.randn(1, 3, 64, 64))) == ["res5", "res3"] == backbone._out_features
    assert {name: s.stride for name, s in backbone.output_shape().items()} == {
        "res5": 32,
        "res3": 8,
    }


@pytest.mark.parametrize(
    ("wrapper", "name"),
    [
        (TimmBackbone, "test_resnet"),
        (TimmBackbone, "test_vit"),
        (TorchvisionBackbone, "mobilenet_v3_small"),
    ],
)
def test_out_features__say_the_same_as_out_strides(wrapper, name):
    torch.manual_seed(0)
    by_stride = wrapper(name, out_strides=(16, 8)).eval()
    torch.manual_seed(0)
    by_name = wrapper(name, out_features=ListConfig(["res4", "res3"])).eval()
    image = torch.randn(2, 3, 53, 71)
    outputs = by_name(image)
    assert list(outputs) == ["res4", "res3"]
    assert by_name.output_shape() == by_stride.output_shape()
    for level, expected in by_stride(image).items():
        assert_close(outputs[level], expected, rtol=0, atol=0)


def test_out_features__contradict_nodes():
    with pytest.raises(BackboneError, match="by out_strides or out_features beside return nodes"):
        TorchvisionBackbone("resnet18", return_nodes={"layer4": "res5"}, out_features=["res5"])


def test_out_features__are_what_fpn_takes_from_the_config():
    model = get_detectron2_config("common/models/mask_rcnn_fpn.py").model
    model.backbone.bottom_up = L(TimmBackbone)(
        model_name="test_resnet", out_features=["res2", "res3", "res4", "res5"]
    )
    backbone = instantiate(model.backbone).eval()
    outputs = backbone(torch.randn(2, 3, 96, 160))
    assert list(outputs) == ["p2", "p3", "p4", "p5", "p6"]
    assert_close(outputs["p6"], F.max_pool2d(outputs["p5"], 1, 2), rtol=0, atol=0)


def test_out_strides__taps_by_index():
    one = TimmBackbone("test_vit", out_strides=(8, 16), out_indices=(2,))
    assert [feature.source for feature in one.features] == [2, 2]
    each = TimmBackbone("test_vit", out_strides=(8, 16), out_indices=(2, -1))
    assert [feature.source for feature in each.features] == [2, 5]


def test_out_strides__error_lists_the_strides():
    with pytest.raises(
        BackboneError, match=r"'test_resnet' has maps of the strides 2, 4, 8, 16, 32"
    ):
        TimmBackbone("test_resnet", out_strides=(8, 64))


def test_out_channels__is_refused_where_nothing_is_made():
    with pytest.raises(BackboneError, match=r"out_channels=256, but every output is a map of the"):
        TimmBackbone("test_resnet", out_strides=(8, 16), out_channels=256)
    with pytest.raises(BackboneError, match="leave it out"):
        TimmBackbone("test_vit", out_channels=256)


@pytest.mark.parametrize("size", [(70, 96), (37, 200)])
def test_forward__tiles_whose_cells_do_not_fill_them_are_resampled(size):
    backbone = TimmBackbone("pit_ti_224", out_indices=(0, 1), img_size=64).eval()
    outputs = backbone(torch.randn(2, 3, *size))
    for name, shape in backbone.output_shape().items():
        height, width = (-(-side // shape.stride) for side in size)
        assert outputs[name].shape == (2, shape.channels, height, width)


@pytest.mark.parametrize("wrapper", [TimmBackbone, TorchvisionBackbone])
@pytest.mark.parametrize("grad_checkpointing", [False, True])
def test_wrapper__is_pickled_with_what_it_computes(wrapper, grad_checkpointing):
    backbone = wrapper(
        "resnet18", out_strides=(8,), freeze_at=2, grad_checkpointing=grad_checkpointing
    )
    image = torch.randn(2, 3, 40, 56)
    twin = pickle.loads(pickle.dumps(backbone))
    assert twin.state_dict().keys() == backbone.state_dict().keys()
    assert_close(twin.train()(image)["res3"], backbone.train()(image)["res3"], rtol=0, atol=0)
