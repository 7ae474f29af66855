"""EVA-02: its equations written out, other grids than that of the kept tables, its names."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from detrex.checkpoint import load_init_checkpoint
from detrex.errors import BackboneError
from detrex.modeling import backbone
from detrex.modeling.backbone import EVA02_ViT, eva_02
from tests.modeling.backbone.test_eva_02_utils import by_rotation

SMALL = {"img_size": 64, "embed_dim": 16, "depth": 3, "num_heads": 2, "pretrain_img_size": 48}
WINDOWS = {"window_size": 2, "window_block_indexes": [0, 2]}


def build(**kwargs):
    torch.manual_seed(0)
    network = EVA02_ViT(**{**SMALL, **kwargs})
    for name, parameter in network.named_parameters():
        if "norm" in name or "ffn_ln" in name or "bias" in name:
            nn.init.normal_(parameter, 0.5, 0.3)
    return network.eval()


def attention_by_the_equations(attention, x, squeeze_to=16):
    """Softmax attention, with queries and keys turned in the complex plane."""
    n, height, width, channels = x.shape
    x = x.flatten(1, 2)
    q = x @ attention.q_proj.weight.T + attention.q_bias
    k = x @ attention.k_proj.weight.T
    v = x @ attention.v_proj.weight.T + attention.v_bias
    outputs = []
    for head in (slice(0, 8), slice(8, 16)):
        a, b = (by_rotation(t[..., head], height, width, 4, squeeze_to) for t in (q, k))
        weights = (a @ b.transpose(1, 2) / 8**0.5).softmax(-1)
        outputs.append(weights @ v[..., head])
    return attention.proj(torch.cat(outputs, -1)).view(n, height, width, channels)


def by_the_equations(network, x):
    x = network.patch_embed(x)
    table = network.pos_embed[:, 1:].view(1, 3, 3, 16).permute(0, 3, 1, 2)
    if x.shape[1:3] != (3, 3):
        table = F.interpolate(table, x.shape[1:3], mode="bicubic", align_corners=False)
    x = x + table.permute(0, 2, 3, 1)
    for index, block in enumerate(network.blocks):
        y = block.norm1(x)
        if index == 1:
            x = x + attention_by_the_equations(block.attn, y)
        else:
            x = x.clone()
            for row in range(0, x.shape[1], 2):
                for column in range(0, x.shape[2], 2):
                    part = y[:, row : row + 2, column : column + 2]
                    window = torch.zeros(len(x), 2, 2, 16)
                    window[:, : part.shape[1], : part.shape[2]] = part
                    out = attention_by_the_equations(block.attn, window)
                    out = out[:, : part.shape[1], : part.shape[2]]
                    x[:, row : row + 2, column : column + 2] += out
        y = block.norm2(x)
        gate = y @ block.mlp.w1.weight.T + block.mlp.w1.bias
        hidden = gate * torch.sigmoid(gate) * (y @ block.mlp.w2.weight.T + block.mlp.w2.bias)
        x = x + block.mlp.w3(block.mlp.ffn_ln(hidden))
    return x.permute(0, 3, 1, 2)


@pytest.mark.parametrize("size", [(64, 64), (48, 48), (80, 48)])
def test_forward__equals_its_equations(size):
    network, x = build(**WINDOWS), torch.randn(2, 3, *size)
    with torch.no_grad():
        expected = by_the_equations(network, x)
        assert_close(network(x)["last_feat"], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [(1, 1), (33, 100)])
@pytest.mark.parametrize("options", [{}, WINDOWS, {"intp_freq": False, "window_size": 3}])
def test_forward__any_size_and_no_windows(options, size):
    network = build(**options)
    maps = network(torch.randn(2, 3, *size))["last_feat"]
    assert maps.shape == (2, 16, *(-(-side // 16) for side in size))


def test_forward__eps_and_residual_blocks():
    """The norms are as given, also before the last layer of the perceptron."""
    network = build(norm_layer=partial(nn.LayerNorm, eps=0.5), residual_block_indexes=[1])
    norms = [m for m in network.modules() if isinstance(m, nn.LayerNorm)]
    assert [norm.eps for norm in norms] == [0.5] * 9
    assert {n for n, _ in network.blocks[1].named_children()} >= {"residual"}
    assert network.blocks[0].residual is None
    assert EVA02_ViT(**SMALL).blocks[0].mlp.ffn_ln.eps == 1e-6


def test_state_dict__has_the_names_of_the_original():
    names = set(build(**WINDOWS).state_dict())
    tables = {f"{t}.freqs_{f}" for t in ("rope_win", "rope_glb") for f in ("cos", "sin")}
    assert {n for n in names if "blocks" not in n} == tables | {
        "pos_embed",
        "patch_embed.proj.weight",
        "patch_embed.proj.bias",
    }
    layers = ["norm1", "norm2", "attn.proj", "mlp.w1", "mlp.w2", "mlp.w3", "mlp.ffn_ln"]
    block = {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}
    block |= {f"attn.{name}_proj.weight" for name in "qkv"} | {"attn.q_bias", "attn.v_bias"}
    block |= {"attn.rope.freqs_cos", "attn.rope.freqs_sin"}
    assert {n.removeprefix("blocks.1.") for n in names if n.startswith("blocks.1.")} == block


def test_state_dict__shapes_of_the_tables():
    for options, window, grid in (
        (WINDOWS, 4, 16),
        ({**WINDOWS, "intp_freq": False, "pt_hw_seq_len": 5}, 25, 25),
    ):
        state = build(**options).state_dict()
        assert state["rope_win.freqs_cos"].shape == (window, 8)
        assert state["rope_glb.freqs_sin"].shape == (grid, 8)
        assert state["blocks.1.attn.rope.freqs_cos"].shape == (grid, 8)
    assert "rope_win.freqs_cos" not in build().state_dict()
    whole = build(intp_freq=False, pt_hw_seq_len=4).state_dict()
    assert whole["rope_win.freqs_cos"].shape == whole["rope_glb.freqs_cos"].shape == (16, 8)


def test_qkv_bias__of_queries_and_values_alone():
    attention = build(qkv_bias=False).blocks[0].attn
    assert attention.q_bias is None
    assert attention.v_bias is None
    x = torch.randn(1, 2, 2, 16)
    without = attention(x)
    attention.q_bias, attention.v_bias = nn.Parameter(torch.zeros(16)), nn.Parameter(torch.ones(16))
    assert_close(attention(x), without + attention.proj.weight.sum(1))


def test_load_state_dict__from_another_image_size():
    network, other = build(**WINDOWS), build(**WINDOWS, img_size=96)
    network.load_state_dict(other.state_dict(), strict=True)
    x = torch.randn(1, 3, 64, 64)
    assert_close(network(x)["last_feat"], other(x)["last_feat"], rtol=1e-5, atol=1e-5)


def test_use_act_checkpoint__gives_the_same_gradients():
    x, gradients = torch.randn(2, 3, 64, 80), []
    for use in (False, True):
        network = build(use_act_checkpoint=use, **WINDOWS).train()
        network(x)["last_feat"].square().sum().backward()
        gradients.append({n: p.grad for n, p in network.named_parameters()})
    for name, gradient in gradients[0].items():
        assert_close(gradients[1][name], gradient, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("options", [{"xattn": False}, {"use_rel_pos": True, "act_layer": nn.ReLU}])
def test_init__keywords_of_no_influence(options):
    x = torch.randn(1, 3, 64, 64)
    assert_close(build(**options)(x)["last_feat"], build()(x)["last_feat"], rtol=0, atol=0)


def test_init__tells_that_rope_stays(caplog):
    build(rope=False)
    assert "rotary positions with rope=False as well" in caplog.text


def test_init__names_what_is_wrong():
    with pytest.raises(BackboneError, match="multiple of 24 with 6 heads, got 36"):
        EVA02_ViT(embed_dim=36, num_heads=6)
    with pytest.raises(BackboneError, match="pt_hw_seq_len, got 0"):
        EVA02_ViT(pt_hw_seq_len=0)


@pytest.mark.parametrize("name", eva_02.__all__)
def test_module__hands_on_the_one_class_that_there_is(name):
    assert getattr(eva_02, name) is getattr(backbone, name)


def test_load_init_checkpoint__file_of_the_network_alone_at_another_size(tmp_path):
    detector = nn.Module()
    net = build(**WINDOWS)
    detector.backbone = backbone.SimpleFeaturePyramid(net, "last_feat", 8, (2.0, 1.0))
    file = EVA02_ViT(**SMALL | {"img_size": 256, "pretrain_img_size": 80})
    for parameter in file.parameters():
        nn.init.normal_(parameter)
    state = {n: t for n, t in file.state_dict().items() if "rope" not in n}
    torch.save({"module": {**state, "cls_token": torch.zeros(1, 1, 16)}}, tmp_path / "a.pt")
    tables = net.rope_glb.freqs_cos.clone()
    report = load_init_checkpoint(detector, tmp_path / "a.pt")
    assert report.part == "backbone.net"
    assert report.missing == report.mismatched == ()
    assert report.resized == ("pos_embed",)
    assert_close(net.blocks[2].mlp.w3.weight, file.blocks[2].mlp.w3.weight, rtol=0, atol=0)
    assert_close(net.rope_glb.freqs_cos, tables, rtol=0, atol=0)
    # The whole detector's file, with rotary tables of another grid.
    other = nn.Module()
    other.backbone = backbone.SimpleFeaturePyramid(
        build(**WINDOWS, img_size=96), "last_feat", 8, (2.0, 1.0)
    )
    report = load_init_checkpoint(other, detector.state_dict())
    assert report.missing == report.mismatched == ()
    assert other.backbone.net.rope_glb.freqs_cos.shape == (36, 8)
