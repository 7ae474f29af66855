"""EVA, held against detectron2's ViT and against attention written out."""

import pytest
import torch
import torch.nn.functional as F
from detectron2.modeling import ViT
from omegaconf import ListConfig
from torch import nn
from torch.testing import assert_close

from detrex.checkpoint import load_init_checkpoint
from detrex.errors import BackboneError
from detrex.modeling import backbone
from detrex.modeling.backbone import EVAViT, eva
from detrex.modeling.backbone.utils import get_rel_pos

SMALL = {"img_size": 64, "embed_dim": 16, "depth": 3, "num_heads": 2, "pretrain_img_size": 48}
WINDOWS = {"window_size": 3, "window_block_indexes": ListConfig([0, 2]), "use_rel_pos": True}


def build(**kwargs):
    torch.manual_seed(0)
    network = EVAViT(**SMALL, **kwargs)
    for name, parameter in network.named_parameters():
        if any(part in name for part in ("norm", "bias", "rel_pos", "gamma")):
            nn.init.normal_(parameter, 0.5, 0.3)
    return network.double().eval()


def vit_like(network, **kwargs):
    """detectron2's ViT with the weights of `network`."""
    twin = ViT(**SMALL, norm_layer=lambda dim: nn.LayerNorm(dim, eps=1e-5), **kwargs)
    state = network.state_dict()
    for name in [name for name in state if name.endswith("q_bias")]:
        q, v = state.pop(name), state.pop(name.replace("q_bias", "v_bias"))
        state[name.replace("q_bias", "qkv.bias")] = torch.cat([q, torch.zeros_like(q), v])
    twin.load_state_dict(state, strict=True)
    return twin.double().eval()


COMMON = {
    "plain": {},
    "windows and relative positions": WINDOWS,
    "residual blocks": {"residual_block_indexes": [1]},
    "no position table": {"use_abs_pos": False},
    "no class token": {"pretrain_use_cls_token": False},
}


@pytest.mark.parametrize("beit", [True, False])
@pytest.mark.parametrize("options", COMMON.values(), ids=COMMON)
@pytest.mark.parametrize("size", [(64, 64), (48, 112)])
def test_forward__equals_detectron2(options, beit, size):
    network = build(**options, beit_like_qkv_bias=beit)
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    expected = vit_like(network, **options)(x)["last_feat"]
    assert_close(network(x)["last_feat"], expected)


def test_forward__keys_have_no_bias():
    network = build(qkv_bias=False, beit_like_qkv_bias=False)
    assert not [name for name, _ in network.named_parameters() if name.endswith("qkv.bias")]
    vit = vit_like(network, qkv_bias=False)
    x = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    assert_close(network(x)["last_feat"], vit(x)["last_feat"])


@pytest.mark.parametrize("kind", ["vitdet", "beit"])
def test_attention__equals_softmax_written_out(kind):
    torch.manual_seed(0)
    attention = eva.Attention(8, 2, True, True, True, False, 5, kind).double()
    x = torch.randn(2, 6, 7, 8, dtype=torch.float64)
    bias = torch.cat([attention.q_bias, torch.zeros(8), attention.v_bias])
    q, k, v = (x.flatten(1, 2) @ attention.qkv.weight.T + bias).chunk(3, dim=-1)
    rel_h = get_rel_pos(6, 6, attention.rel_pos_h, kind)
    rel_w = get_rel_pos(7, 7, attention.rel_pos_w, kind)
    outputs = []
    for head in (slice(0, 4), slice(4, 8)):
        logits = q[..., head] @ k[..., head].transpose(1, 2) / 4**0.5
        by_row = torch.einsum("nic,ijc->nij", q[..., head], rel_h.repeat_interleave(7, 0))
        by_column = torch.einsum("nic,ijc->nij", q[..., head], rel_w.repeat(6, 1, 1))
        logits = logits + by_row.repeat_interleave(7, 2) + by_column.repeat(1, 1, 6)
        outputs.append(logits.softmax(-1) @ v[..., head])
    expected = attention.proj(torch.cat(outputs, -1)).view(2, 6, 7, 8)
    assert_close(attention(x), expected)


def test_forward__under_autocast():
    network = build(**WINDOWS).float()
    x = torch.randn(2, 3, 64, 80)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        observed = network(x)["last_feat"]
    assert_close(observed.float(), network(x)["last_feat"], rtol=0.05, atol=0.05)


def test_interp_type__reaches_the_tables():
    x = torch.randn(1, 3, 96, 96, dtype=torch.float64)
    outputs = [build(use_rel_pos=True, interp_type=t)(x)["last_feat"] for t in ("vitdet", "beit")]
    assert (outputs[0] - outputs[1]).abs().max() > 1e-3
    x = x[..., :64, :64]
    outputs = [build(use_rel_pos=True, interp_type=t)(x)["last_feat"] for t in ("vitdet", "beit")]
    assert_close(*outputs)


def test_beit_like_gamma__scales_the_branches():
    network, plain = build(beit_like_gamma=True), build()
    assert {"gamma_1", "gamma_2"} <= {name for name, _ in network.blocks[0].named_parameters()}
    plain.load_state_dict(network.state_dict(), strict=False)
    for ours, theirs in zip(network.blocks, plain.blocks, strict=True):
        for layer, gamma in (
            (theirs.attn.proj, ours.gamma_1),
            (theirs.mlp.fc2, ours.gamma_2),
        ):
            layer.weight.data *= gamma[:, None]
            layer.bias.data *= gamma
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    assert_close(network(x)["last_feat"], plain(x)["last_feat"])
    fresh = EVAViT(**SMALL, beit_like_gamma=True)
    assert_close(fresh.blocks[1].gamma_1, torch.ones(16))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_layer_norm__is_computed_in_float32(dtype):
    norm, x = eva.LayerNormWithForceFP32(6), 1e-3 * torch.randn(2, 5, 6)
    nn.init.normal_(norm.weight)
    expected = F.layer_norm(x.to(dtype).float(), (6,), norm.weight.to(dtype).float(), None, 1e-5)
    assert_close(norm.to(dtype)(x.to(dtype)), expected.to(dtype))


def test_layer_norm__without_scales():
    norm, x = eva.LayerNormWithForceFP32(4, elementwise_affine=False), torch.randn(2, 4)
    assert_close(norm(x), nn.functional.layer_norm(x, (4,)), rtol=0, atol=0)


def test_use_act_checkpoint__gives_the_same_gradients():
    x, gradients = torch.randn(2, 3, 64, 80, dtype=torch.float64), []
    for use in (False, True):
        network = build(use_act_checkpoint=use, freeze_patch_embed=True, **WINDOWS).train()
        network(x)["last_feat"].square().sum().backward()
        gradients.append({n: p.grad for n, p in network.named_parameters() if p.requires_grad})
    assert "patch_embed.proj.weight" not in gradients[0]
    for name, gradient in gradients[0].items():
        assert_close(gradients[1][name], gradient)


def test_drop_path__rises_from_zero():
    network = build(drop_path_rate=0.4)
    assert [block.drop_path.p for block in network.blocks] == pytest.approx([0, 0.2, 0.4])


def test_init__starts_as_vitdet_does():
    network = EVAViT(**SMALL | {"embed_dim": 64}, use_rel_pos=True)
    block = network.blocks[0]
    assert block.mlp.fc1.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert not block.mlp.fc1.bias.any()
    assert not block.attn.rel_pos_h.any()
    assert network.pos_embed.std().item() == pytest.approx(0.02, rel=0.15)
    learnt = EVAViT(**SMALL, use_rel_pos=True, rel_pos_zero_init=False)
    assert learnt.blocks[0].attn.rel_pos_w.any()


def test_init__names_near_interp_types():
    with pytest.raises(BackboneError, match=r"got 'vitdett'\. Did you mean 'vitdet'"):
        EVAViT(interp_type="vitdett")
    with pytest.raises(BackboneError, match="EVAViT takes an integer of at least 1 as depth"):
        EVAViT(depth=0)


@pytest.mark.parametrize("name", eva.__all__)
def test_module__hands_on_the_one_class_that_there_is(name):
    assert getattr(eva, name) is getattr(backbone, name)


def test_load_init_checkpoint__file_of_the_network_alone_at_another_size(tmp_path):
    detector = nn.Module()
    net = build(window_size=3, window_block_indexes=[0, 2], use_rel_pos=True)
    detector.backbone = backbone.SimpleFeaturePyramid(net, "last_feat", 8, (2.0, 1.0))
    file = EVAViT(**SMALL | {"img_size": 112, "pretrain_img_size": 80}, use_rel_pos=True)
    for parameter in file.parameters():
        nn.init.normal_(parameter)
    torch.save({"model": {**file.state_dict(), "norm.weight": torch.ones(16)}}, tmp_path / "a.pt")
    report = load_init_checkpoint(detector, tmp_path / "a.pt")
    assert report.part == "backbone.net"
    assert report.missing == report.mismatched == ()
    tables = [f"blocks.{i}.attn.rel_pos_{side}" for i in range(3) for side in "hw"]
    assert set(report.resized) == {"pos_embed", *tables}
    ours, theirs = net.blocks[1].attn, file.blocks[1].attn
    assert_close(ours.q_bias, theirs.q_bias.double(), rtol=0, atol=0)
    table = F.interpolate(theirs.rel_pos_h.T[None], size=7, mode="linear")[0].T
    assert_close(ours.rel_pos_h, table.double())
