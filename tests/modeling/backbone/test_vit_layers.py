"""What EVA and EVA-02 share: blocks over windows, images of any size, and checks."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from detrex.errors import BackboneError
from detrex.modeling.backbone.vit_layers import Block, PlainViT, check_vit


class Mean(nn.Module):
    """Stands for attention: each cell gets the mean of its map."""

    def forward(self, x):
        return x.mean((1, 2), keepdim=True).expand_as(x)


def test_block__attends_within_windows_filled_with_zeros():
    block = Block(2, Mean(), nn.Identity(), lambda _: nn.Identity(), window_size=3)
    block.gamma_2 = nn.Parameter(torch.zeros(2))
    x = torch.randn(2, 4, 5, 2)
    expected = x.clone()
    for top in (0, 3):
        for left in (0, 3):
            window = x[:, top : top + 3, left : left + 3]
            mean = window.sum((1, 2), keepdim=True) / 9
            expected[:, top : top + 3, left : left + 3] += mean
    assert_close(block(x), expected)


def test_block__scales_each_branch():
    block = Block(2, nn.Identity(), nn.Identity(), lambda _: nn.Identity(), scaled=True)
    assert_close(block(torch.ones(1, 1, 1, 2)), torch.full((1, 1, 1, 2), 4.0))
    block.gamma_1.data, block.gamma_2.data = torch.tensor([1.0, 2.0]), torch.tensor([0.5, 0.0])
    assert_close(block(torch.ones(1, 1, 1, 2)), torch.tensor([[[[3.0, 3.0]]]]))


def plain(**kwargs):
    torch.manual_seed(0)
    options = {"in_chans": 3, "embed_dim": 4, "use_abs_pos": True, "pretrain_img_size": 24}
    options |= {"pretrain_use_cls_token": True, "out_feature": "map", **kwargs}
    return PlainViT([], 8, **options)


@pytest.mark.parametrize("size", [(24, 24), (1, 1), (25, 40), (23, 9)])
def test_plain_vit__fills_the_last_patches_with_zeros(size):
    network, x = plain(use_abs_pos=False), torch.randn(2, 3, *size)
    rows, columns = (-(-side // 8) for side in size)
    filled = torch.zeros(2, 3, 8 * rows, 8 * columns)
    filled[..., : size[0], : size[1]] = x
    maps = network(x)["map"]
    assert maps.shape == (2, 4, rows, columns)
    for row in range(rows):
        for column in range(columns):
            patch = filled[..., 8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
            kernel = network.patch_embed.proj.weight
            cell = torch.einsum("ncyx,dcyx->nd", patch, kernel) + network.patch_embed.proj.bias
            assert_close(maps[..., row, column], cell, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("has_class_token", [True, False])
def test_plain_vit__adds_the_table_without_the_class_token(has_class_token):
    network = plain(pretrain_use_cls_token=has_class_token)
    assert network.pos_embed.shape == (1, 9 + has_class_token, 4)
    x = torch.randn(1, 3, 24, 24)
    with_table = network(x)["map"]
    network.pos_embed.data[:, :has_class_token] = 7.0
    assert_close(network(x)["map"], with_table, rtol=0, atol=0)
    table, network.pos_embed = network.pos_embed[:, has_class_token:], None
    expected = network(x)["map"] + table.reshape(1, 3, 3, 4).permute(0, 3, 1, 2)
    assert_close(with_table, expected)


def test_plain_vit__publishes_its_patch():
    network = plain()
    assert network.size_divisibility == 8
    assert network.output_shape()["map"].stride == 8
    assert plain(in_chans=5).preprocess.pixel_mean[:3] == network.preprocess.pixel_mean


def test_plain_vit__freezes_its_patch_embedding_for_good():
    network = plain(freeze_patch_embed=True).train()
    assert not network.patch_embed.training
    frozen = [name for name, p in network.named_parameters() if not p.requires_grad]
    assert frozen == ["patch_embed.proj.weight", "patch_embed.proj.bias"]


GIVEN = {"patch_size": 16, "in_chans": 3, "embed_dim": 48, "depth": 2, "num_heads": 3}
GIVEN |= {"img_size": 64, "pretrain_img_size": 32, "window_size": 0, "drop_path_rate": 0.1}
GIVEN |= {"norm_layer": nn.LayerNorm, "act_layer": nn.GELU, "use_rel_pos": True}
GIVEN |= {
    "out_feature": "last_feat",
    "mlp_ratio": 4.0,
    "window_block_indexes": [0, 1],
    "residual_block_indexes": (),
}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"patch_size": 0}, "integer of at least 1 as patch_size, got 0"),
        ({"img_size": 8}, "integer of at least 16 as img_size, got 8"),
        ({"depth": "2"}, "integer of at least 1 as depth, got '2'"),
        ({"num_heads": 5}, "multiple of 20 with 5 heads, got 48"),
        ({"window_size": -1}, "integer of at least 0 as window_size, got -1"),
        ({"drop_path_rate": 2}, "from 0 to 1 as drop_path_rate, got 2"),
        ({"mlp_ratio": 0}, "as mlp_ratio, got 0"),
        ({"window_block_indexes": [0, 2]}, r"blocks 0 to 1, got \[2\] in window_block_indexes"),
        ({"residual_block_indexes": ["1"]}, r"integers as residual_block_indexes, got \['1'\]"),
        ({"window_block_indexes": 3}, "integers as window_block_indexes, got 3"),
        ({"use_rel_pos": "no"}, "use_rel_pos must be True or False, got 'no'"),
        ({"norm_layer": "LN"}, "class or function that builds a layer as norm_layer.*got 'LN'"),
        ({"act_layer": nn.GELU()}, r"as act_layer.*got GELU"),
        ({"out_feature": ["p4"]}, r"a name as out_feature, got \['p4'\]"),
    ],
)
def test_check_vit__names_what_is_wrong(wrong, message):
    check_vit("ViT", GIVEN, head_multiple=4)
    with pytest.raises((BackboneError, TypeError), match=message):
        check_vit("ViT", {**GIVEN, **wrong}, head_multiple=4)
