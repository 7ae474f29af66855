"""InternImage: its equations written out, its names, and what its keywords do."""

import pytest
import torch
from omegaconf import ListConfig
from torch import nn
from torch.testing import assert_close

from detrex.checkpoint import load_init_checkpoint
from detrex.errors import BackboneError
from detrex.modeling.backbone import InternImage
from detrex.modeling.backbone.internimage import Block, Level

DEPTHS, GROUPS = [1, 1, 3, 1], [1, 2, 4, 8]


def build(**kwargs):
    torch.manual_seed(0)
    network = InternImage(**{"channels": 8, "depths": DEPTHS, "groups": GROUPS, **kwargs})
    for name, parameter in network.named_parameters():
        if "norm" in name or "gamma" in name or "offset" in name or "center" in name:
            parameter.data.normal_(0.5, 0.3)
    return network.double().eval()


def by_the_equations(network, x):
    """The maps of all levels, from the layers of `network` alone."""
    stem = network.patch_embed
    x = stem.norm1(stem.conv1(x))
    x = stem.norm2(stem.conv2(stem.act(x)))
    maps = []
    for level in network.levels:
        for index, block in enumerate(level.blocks):
            x = block_by_the_equations(block, x)
            if index in level.post_norm_block_ids:
                x = level.post_norms[list(level.post_norm_block_ids).index(index)](x)
        x = x if level.norm is None else level.norm(x)
        maps.append(x.movedim(-1, 1))
        if level.downsample is not None:
            x = level.downsample.norm(level.downsample.conv(x.movedim(-1, 1)))
    return maps


def block_by_the_equations(block, x):
    names = dict(block.named_children())
    if hasattr(block, "gamma1"):
        if block.post_norm:
            x = x + block.gamma1 * block.norm1(block.dcn(x))
            return x + block.gamma2 * block.norm2(block.mlp(x))
        x = x + block.gamma1 * block.dcn(block.norm1(x))
        return x + block.gamma2 * block.mlp(block.norm2(x))
    if block.post_norm:
        x = x + block.norm1(block.dcn(x))
        return x + block.norm2(block.mlp(x))
    if "res_post_norm1" in names:
        x = x + block.res_post_norm1(block.dcn(block.norm1(x)))
        return x + block.res_post_norm2(block.mlp(block.norm2(x)))
    x = x + block.dcn(block.norm1(x))
    return x + block.mlp(block.norm2(x))


OPTIONS = {
    "default": {},
    "tiny": {"layer_scale": 1.0, "offset_scale": 2.0},
    "large": {"layer_scale": 1.0, "post_norm": True},
    "post norm": {"post_norm": True},
    "huge": {
        "res_post_norm": True,
        "center_feature_scale": True,
        "level2_post_norm": True,
        "level2_post_norm_block_ids": ListConfig([2, 0]),
        "dw_kernel_size": 5,
    },
    "center and post norm": {"center_feature_scale": True, "post_norm": True},
    "layer scale hides res_post_norm": {"layer_scale": 0.5, "res_post_norm": True},
    "batch norm": {"norm_layer": "BN", "act_layer": "ReLU"},
    "no level2_post_norm": {"level2_post_norm_block_ids": [1]},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_forward__equals_its_equations(options):
    network, x = build(**options), torch.randn(2, 3, 41, 67, dtype=torch.float64)
    with torch.no_grad():
        outputs, expected = network(x), by_the_equations(network, x)
    assert list(outputs) == ["p0", "p1", "p2", "p3"]
    for (name, spec), maps in zip(network.output_shape().items(), expected, strict=True):
        cells = tuple(-(-side // spec.stride) for side in (41, 67))
        assert outputs[name].shape == (2, spec.channels, *cells)
        assert_close(outputs[name], maps)


def names_of(network, start):
    return {n.removeprefix(start) for n, _ in network.named_parameters() if n.startswith(start)}


def both(*layers):
    return {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}


COMMON = {"norm1.0", "norm2.0", "mlp.fc1", "mlp.fc2", "dcn.dw_conv.0", "dcn.dw_conv.1.1"}
COMMON |= {"dcn.offset", "dcn.mask", "dcn.input_proj", "dcn.output_proj"}
GAMMAS = {"gamma1", "gamma2"}
CENTER = {f"dcn.center_feature_scale_proj_{kind}" for kind in ("weight", "bias")}
POST = both("res_post_norm1.0", "res_post_norm2.0")


@pytest.mark.parametrize(
    ("name", "of_block", "of_level"),
    [
        ("default", both(*COMMON), both("norm.0")),
        ("tiny", both(*COMMON) | GAMMAS, both("norm.0")),
        ("large", both(*COMMON) | GAMMAS, set()),
        ("post norm", both(*COMMON), set()),
        ("huge", both(*COMMON) | CENTER | POST, both("norm.0", "post_norms.0.0", "post_norms.1.0")),
        ("center and post norm", both(*COMMON) | CENTER, both("norm.0")),
        ("layer scale hides res_post_norm", both(*COMMON) | GAMMAS | POST, both("norm.0")),
        ("no level2_post_norm", both(*COMMON), both("norm.0")),
    ],
)
def test_state_dict__has_the_names_of_the_original(name, of_block, of_level):
    network = build(**OPTIONS[name])
    assert names_of(network, "levels.2.blocks.1.") == of_block
    level = names_of(network, "levels.2.")
    down = {"downsample.conv.weight", *both("downsample.norm.1")}
    assert {n for n in level if not n.startswith("blocks.")} == of_level | down
    assert names_of(network, "patch_embed.") == both("conv1", "norm1.1", "conv2", "norm2.1")
    assert not names_of(network, "levels.3.downsample.")


def test_state_dict__names_of_batch_norms():
    network = build(norm_layer="BN")
    assert {"norm1.0.weight", "norm2.0.running_var"} <= set(network.patch_embed.state_dict())
    block = set(network.levels[0].blocks[0].state_dict())
    assert {"norm1.0.weight", "norm2.0.bias", "dcn.dw_conv.1.0.running_mean"} <= block


@pytest.mark.parametrize("size", [(1, 1), (7, 64), (33, 20)])
def test_forward__any_size(size):
    network = build(out_indices=[3, 1])
    with torch.no_grad():
        outputs = network(torch.randn(1, 3, *size, dtype=torch.float64))
    assert list(outputs) == ["p1", "p3"]
    for name, stride in (("p1", 8), ("p3", 32)):
        assert outputs[name].shape[-2:] == tuple(-(-side // stride) for side in size)


def test_out_features__are_the_same_maps_by_stride():
    x = torch.randn(1, 3, 33, 48, dtype=torch.float64)
    expected, network = (
        build(out_indices=(1, 3))(x),
        build(out_features=ListConfig(["res5", "res3"])),
    )
    assert list(network.output_shape()) == ["res3", "res5"]
    for maps, other in zip(network(x).values(), expected.values(), strict=True):
        assert_close(maps, other, rtol=0, atol=0)


def test_out_indices__levels_after_the_last_are_not_run():
    network = build(out_indices=(0, 1))
    network.levels[2].register_forward_hook(lambda *_: pytest.fail("level 2 was run"))
    network.levels[1].downsample.register_forward_hook(lambda *_: pytest.fail("so was this"))
    expected = build()(torch.ones(1, 3, 32, 32, dtype=torch.float64))
    for name, maps in network(torch.ones(1, 3, 32, 32, dtype=torch.float64)).items():
        assert_close(maps, expected[name], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("kind", "rates"),
    [("linear", [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]), ("uniform", [0.5] * 6)],
)
def test_drop_path__of_each_block(kind, rates):
    network = build(drop_path_rate=0.5, drop_path_type=kind)
    blocks = [m for m in network.modules() if isinstance(m, Block)]
    assert [block.drop_path.p for block in blocks] == pytest.approx(rates)


def test_with_cp__gives_the_same_gradients():
    x, gradients = torch.randn(2, 3, 32, 48, dtype=torch.float64), []
    for with_cp in (False, True):
        network = build(with_cp=with_cp).train()
        torch.manual_seed(1)  # of the drop path
        sum(maps.square().sum() for maps in network(x).values()).backward()
        gradients.append({n: p.grad for n, p in network.named_parameters()})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        assert_close(gradients[1][name], gradient)


@pytest.mark.parametrize("count", [-1, 0, 1, 3, 4])
def test_frozen_stages__are_frozen_with_the_layers_before_them(count):
    network = build(frozen_stages=count, drop_rate=0.1).train()
    assert network.pos_drop.training == (count < 1)
    for name, parameter in network.named_parameters():
        part, index, *rest = name.split(".")
        stage = 0 if part == "patch_embed" else int(index) + (rest[0] == "downsample")
        assert parameter.requires_grad == (stage >= count), name
        owner = network.get_submodule(name.rpartition(".")[0])
        assert owner.training == (stage >= count), name


def test_res_post_norm__tells_when_it_is_not_run(caplog):
    build(layer_scale=1.0, res_post_norm=True)
    assert "does not run the norms of res_post_norm" in caplog.text


def test_init__offsets_are_zero_and_linear_layers_narrow():
    network = InternImage(channels=16, depths=DEPTHS, groups=GROUPS)
    block = network.levels[3].blocks[0]
    assert not block.dcn.offset.weight.any()
    assert not block.dcn.mask.weight.any()
    assert block.mlp.fc1.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert not block.mlp.fc1.bias.any()
    # Xavier: uniform in +-sqrt(6 / 256), of a standard deviation of sqrt(2 / 256).
    assert block.dcn.input_proj.weight.std().item() == pytest.approx((2 / 256) ** 0.5, rel=0.1)


def test_level__is_without_what_is_not_asked_for():
    level = Level([], 8, norm=False, post_norm_block_ids=(), downsample=None)
    assert not level.state_dict()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"layerscale": 1.0}, TypeError, "no keyword 'layerscale'. Did you mean 'layer_scale'"),
        ({"zzz": 1}, TypeError, "no keyword 'zzz'. It takes core_op, channels, depths.*[a-z]\\.$"),
        ({"kwarg": 1}, TypeError, "no keyword 'kwarg'. It takes core_op"),
        ({"core_op": "DCNv4"}, BackboneError, "as core_op, got 'DCNv4'. Did you mean 'DCNv3'"),
        ({"norm_layer": "GN"}, BackboneError, "takes 'LN' or 'BN' as norm_layer, got 'GN'"),
        ({"act_layer": None}, BackboneError, "as act_layer, got None"),
        ({"drop_path_type": "cosine"}, BackboneError, "'linear' or 'uniform' as drop_path_type"),
        ({"depths": [1, 2]}, BackboneError, "four integers of at least 1 as depths"),
        ({"groups": [1, 2, 3, 8]}, BackboneError, r"8, 16, 32, 64 channels.*got \[1, 2, 3, 8\]"),
        ({"channels": "8"}, BackboneError, "takes an integer of at least 2 as channels, got '8'"),
        ({"mlp_ratio": 0}, BackboneError, "as mlp_ratio, got 0"),
        ({"drop_path_rate": 1.5}, BackboneError, "from 0 to 1 as drop_path_rate, got 1.5"),
        ({"layer_scale": "1"}, BackboneError, "as layer_scale, got '1'"),
        ({"dw_kernel_size": 4}, BackboneError, "an odd dw_kernel_size, got 4"),
        ({"out_indices": [4]}, BackboneError, r"stages 0, 1, 2 and 3, got out_indices=\[4\]"),
        ({"post_norm": "no"}, TypeError, "post_norm must be True or False, got 'no'"),
        (
            {"level2_post_norm": True, "level2_post_norm_block_ids": 5},
            TypeError,
            "sequence of integers as level2_post_norm_block_ids, got 5",
        ),
        ({"frozen_stages": 5}, BackboneError, "from -1 to 4 as frozen_stages, got 5"),
        (
            {"level2_post_norm": True, "level2_post_norm_block_ids": [5]},
            BackboneError,
            r"blocks 0 to 2, got level2_post_norm_block_ids=\[5\]",
        ),
        (
            {"level2_post_norm": True, "level2_post_norm_block_ids": [1, 1]},
            BackboneError,
            r"got level2_post_norm_block_ids=\[1, 1\]: name each at most once",
        ),
    ],
)
def test_init__names_what_it_takes(options, error, message):
    with pytest.raises(error, match=message) as caught:
        build(**options)
    assert len(str(caught.value)) < 500
    assert "\n" not in str(caught.value)


def test_load_init_checkpoint__file_of_a_classifier(tmp_path):
    detector, file = nn.Module(), build(layer_scale=1.0)
    detector.backbone = build(layer_scale=1.0, out_indices=(1, 2, 3))
    for parameter in file.parameters():
        nn.init.normal_(parameter)
    head = {"conv_head.0.weight": torch.zeros(9, 64, 1, 1), "head.weight": torch.zeros(10, 9)}
    torch.save({"model": {**file.state_dict(), **head}}, tmp_path / "a.pth")
    report = load_init_checkpoint(detector, tmp_path / "a.pth")
    assert report.missing == report.mismatched == ()
    assert set(report.unexpected) == set(head)
    for name, tensor in detector.backbone.state_dict().items():
        assert_close(tensor, file.state_dict()[name], rtol=0, atol=0)
