"""Zeros found by trial on layers that round down, lose cells or refuse; then on real networks."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from detrex.modeling.backbone import TimmBackbone, TorchvisionBackbone
from detrex.modeling.backbone.features.coverage import Coverage, round_up


def test_coverage__says_what_it_does():
    assert str(Coverage()) == "as they are"
    assert str(Coverage(32, 64, 8)) == (
        "filled up inside to multiples of 32, by 64 on every side, to at least 8"
    )


def test_first_cell__of_convolutions_that_lose_cells_on_both_sides():
    # 7 pixels per cell and 2 lost: a margin of 14 gives 2 cells more, one of which stands outside.
    assert Coverage(7, 14).first_cell(cells=12, side=70, stride=7) == 1
    assert Coverage().first_cell(cells=8, side=70, stride=7) == 0


def test_round_up():
    assert [round_up(n, 7) for n in (0, 1, 7, 8)] == [0, 7, 7, 14]


@pytest.mark.parametrize("size", [(1, 1), (20, 20), (33, 65), (7, 150)])
def test_forward__network_that_rounds_down_equals_one_on_the_padded_image(size):
    backbone = TimmBackbone("test_convnext", out_strides=(8, 16, 32)).eval()
    image = torch.randn(2, 3, *size)
    outputs = backbone(image)
    padded = F.pad(image, (0, -size[1] % 32, 0, -size[0] % 32))
    raw = backbone.timm_model(padded)
    assert backbone.size_divisibility == 0
    for feature, expected in zip(backbone.features, raw, strict=True):
        height, width = (-(-side // feature.stride) for side in size)
        assert outputs[feature.name].shape[2:] == (height, width)
        assert_close(outputs[feature.name], expected[..., :height, :width], rtol=0, atol=0)


def test_forward__multiples_stay_as_they_are():
    backbone = TimmBackbone("test_convnext", out_strides=(8, 16)).eval()
    image = torch.randn(2, 3, 48, 80)  # whole cells of the coarsest map that is asked for
    for output, expected in zip(backbone(image).values(), backbone.timm_model(image), strict=True):
        assert_close(output, expected, rtol=0, atol=0)


def test_forward__margin_puts_each_cell_over_its_pixels():
    """In a network of unpadded convolutions a bright spot shows in the cell that is over it."""
    torch.manual_seed(0)
    backbone = TorchvisionBackbone("alexnet", out_strides=(4,)).eval()
    convolution = backbone.network.features.get_submodule("0")
    nn.init.constant_(convolution.weight, 0.01)
    nn.init.zeros_(convolution.bias)
    image = torch.zeros(2, 3, 61, 93)
    image[:, :, 32:36, 64:68] = 1
    output = backbone(image)["res2"]
    assert output.shape[2:] == (16, 24)
    row, column = divmod(int(output[0, 0].argmax()), 24)
    assert abs(row - 8) <= 1
    assert abs(column - 16) <= 1


@pytest.mark.parametrize(
    ("name", "node"), [("alexnet", "features.4"), ("inception_v3", "Mixed_5b")]
)
def test_forward__unpadded_maps_by_node_are_the_librarys_own(name, node):
    backbone = TorchvisionBackbone(name, return_nodes={node: "x"}).eval()
    image = torch.randn(2, 3, 107, 131)
    with torch.no_grad():
        assert_close(backbone(image)["x"], backbone.network(image)["x"], rtol=0, atol=0)
        assert backbone(image[..., :1, :1])["x"].numel()


def test_forward__unpadded_maps_by_index_are_the_librarys_own():
    backbone = TimmBackbone("inception_v3", out_indices=(1, 2)).eval()
    image = torch.randn(2, 3, 107, 131)
    with torch.no_grad():
        outputs, expected = backbone(image), backbone.timm_model(image)
        for output, of_timm in zip(outputs.values(), expected, strict=True):
            assert_close(output, of_timm, rtol=0, atol=0)
        assert all(output.numel() for output in backbone(image[..., :1, :1]).values())


@pytest.mark.parametrize("size", [(1, 1), (7, 65), (64, 96)])
def test_forward__nodes_of_torchvision_cover_the_image(size):
    backbone = TorchvisionBackbone("vgg11", return_nodes=["features.2", "features.5"])
    with torch.no_grad():
        outputs = backbone.eval()(torch.randn(1, 3, *size))
    for node, shape in backbone.output_shape().items():
        expected = tuple(-(-side // shape.stride) for side in size)
        assert tuple(outputs[node].shape[2:]) == expected
