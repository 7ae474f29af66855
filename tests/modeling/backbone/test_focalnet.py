"""FocalNet held against timm's, and its modulation against a loop over cells."""

import functools
import math

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from detrex.errors import BackboneError
from detrex.modeling.backbone import FocalNet
from detrex.modeling.backbone.focalnet import FocalModulation, PatchEmbed

DEPTHS = [1, 2, 1, 1]
OPTIONS = {
    "plain": {},
    "large": {"use_conv_embed": True, "use_postln": True, "use_layerscale": True},
    "huge": {
        "use_conv_embed": True,
        "use_postln": True,
        "use_layerscale": True,
        "use_postln_in_modulation": True,
        "focal_levels": [4, 3, 2, 1],
        "focal_windows": [3, 5, 7, 9],
    },
    "odd_patches": {"patch_size": 3, "focal_windows": [1, 3, 5, 7]},
}


def build(**kwargs):
    torch.manual_seed(0)
    network = FocalNet(**{"embed_dim": 8, "depths": DEPTHS, **kwargs})
    for parameter in network.parameters():
        if parameter.ndim == 1:
            parameter.data.normal_(1.0, 0.3)
    return network


def timms(network, **options):
    """The maps of timm's network with the same weights, before our last norms."""
    focalnet = pytest.importorskip("timm.models.focalnet")
    twin = focalnet.FocalNet(
        embed_dim=8,
        depths=DEPTHS,
        focal_levels=options.get("focal_levels", [3] * 4),
        focal_windows=options.get("focal_windows", [3] * 4),
        use_overlap_down=options.get("use_conv_embed", False),
        use_post_norm=options.get("use_postln", False),
        use_post_norm_in_modulation=options.get("use_postln_in_modulation", False),
        layerscale_value=1e-4 if options.get("use_layerscale") else None,
        norm_layer=functools.partial(focalnet.LayerNorm2d, eps=1e-5),
        num_classes=0,
    ).eval()
    renamed = {}
    for name, tensor in network.state_dict().items():
        name = name.replace("patch_embed.", "stem.").replace("gamma_1", "ls1.gamma")
        name = name.replace("gamma_2", "ls2.gamma").replace("modulation.ln", "modulation.norm")
        if options.get("use_postln"):
            name = name.replace(".norm1.", ".norm1_post.").replace(".norm2.", ".norm2_post.")
        if "downsample" in name:  # timm's are at the beginning of the next stage
            stage = int(name.split(".")[1])
            name = name.replace(f"layers.{stage}", f"layers.{stage + 1}")
        renamed[name] = tensor
    state = twin.state_dict()
    filled = {name: renamed[name].reshape(t.shape) for name, t in state.items() if name in renamed}
    missing = [name for name in state if name not in filled]
    assert all(name.startswith(("norm.", "head.")) for name in missing), missing
    twin.load_state_dict(filled, strict=False)
    return twin


@pytest.mark.parametrize("options", ["plain", "large", "huge"])
def test_forward__equals_timm(options):
    network = build(**OPTIONS[options]).eval()
    twin = timms(network, **OPTIONS[options])
    x = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        outputs = network(x)
        x = twin.stem(x)
        for stage, layer in enumerate(twin.layers):
            x = layer(x)
            expected = network.get_submodule(f"norm{stage}")(x.permute(0, 2, 3, 1))
            assert_close(outputs[f"p{stage}"], expected.permute(0, 3, 1, 2), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("levels", [0, 2])
def test_modulation__is_a_gated_sum_over_growing_surroundings(normalize, levels):
    """In numbers: each cell's context from loops over its neighbours, equation 3 to 6."""
    torch.manual_seed(0)
    dim, rows, columns = 3, 4, 5
    modulation = FocalModulation(
        dim, focal_level=levels, focal_window=3, normalize_modulator=normalize
    ).double()
    x = torch.randn(2, rows, columns, dim, dtype=torch.float64)
    both = x @ modulation.f.weight.T + modulation.f.bias
    query, context, gates = both[..., :dim], both[..., dim : 2 * dim], both[..., 2 * dim :]
    total = torch.zeros_like(query)

    def gelu(value):
        return value * 0.5 * (1 + torch.erf(value / math.sqrt(2)))

    for level in range(levels):
        kernel = modulation.focal_layers[level][0].weight[:, 0]
        reach, wider = 1 + level, torch.zeros_like(context)
        assert kernel.shape[-1] == 2 * reach + 1
        for row in range(rows):
            for column in range(columns):
                for y in range(max(row - reach, 0), min(row + reach + 1, rows)):
                    for z in range(max(column - reach, 0), min(column + reach + 1, columns)):
                        weight = kernel[:, y - row + reach, z - column + reach]
                        wider[:, row, column] += context[:, y, z] * weight
        context = gelu(wider)
        total += context * gates[..., level : level + 1]
    total += gelu(context.mean((1, 2), keepdim=True)) * gates[..., -1:]
    total = total / (levels + 1) if normalize else total
    modulator = total @ modulation.h.weight[:, :, 0, 0].T + modulation.h.bias
    expected = (query * modulator) @ modulation.proj.weight.T + modulation.proj.bias
    assert_close(modulation(x), expected)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("size", [(1, 1), (20, 33), (67, 94)])
def test_forward__any_size(options, size):
    network = build(**OPTIONS[options]).eval()
    with torch.no_grad():
        outputs = network(torch.randn(2, 3, *size))
    first = OPTIONS[options].get("patch_size", 4)
    for stage, (name, spec) in enumerate(network.output_shape().items()):
        assert spec.stride == first * 2**stage
        cells = tuple(math.ceil(side / spec.stride) for side in size)
        assert outputs[name].shape == (2, spec.channels, *cells)


@pytest.mark.parametrize("overlapping", [False, True])
def test_patch_embed__zeros_fill_the_last_patches(overlapping):
    torch.manual_seed(0)
    embed = PatchEmbed(4, 3, 5, nn.LayerNorm, use_conv_embed=overlapping, is_stem=True)
    x = torch.randn(2, 3, 9, 14)
    filled = torch.zeros(2, 3, 12, 16)
    filled[..., :9, :14] = x
    assert embed(x).shape == (2, 3, 4, 5)
    assert_close(embed(x), embed(filled), rtol=0, atol=0)


@pytest.mark.parametrize(("frozen", "layers"), [(-1, None), (0, 0), (1, 0), (2, 1), (4, 3), (5, 4)])
def test_frozen_stages__stem_first(frozen, layers):
    network = build(frozen_stages=frozen)
    for name, parameter in network.named_parameters():
        part, index = name.split(".")[:2]
        cold = part == "patch_embed" or (part == "layers" and int(index) < (layers or 0))
        assert parameter.requires_grad == (layers is None or not cold), name


def test_frozen_stages__drop_nothing():
    network = build(drop_rate=0.5, drop_path_rate=0.9, frozen_stages=2).train()
    x = torch.randn(2, 3, 64, 64)
    first, second = network(x), network(x)
    assert_close(first["p0"], second["p0"], rtol=0, atol=0)
    assert not torch.equal(first["p1"], second["p1"])


def test_keys__norms_follow_the_options():
    def norms(**kwargs):
        names = FocalNet(embed_dim=8, depths=DEPTHS, **kwargs).state_dict()
        return {name.removesuffix(".weight") for name in names if name.endswith("norm.weight")}

    downsampling = {f"layers.{stage}.downsample.norm" for stage in range(3)}
    assert norms() == downsampling | {"patch_embed.norm"}
    assert norms(patch_norm=False) == downsampling
    names = FocalNet(embed_dim=8, depths=DEPTHS, out_indices=[1], use_layerscale=True).state_dict()
    assert {n for n in names if n.startswith("norm")} == {"norm1.weight", "norm1.bias"}
    assert names["layers.1.blocks.1.gamma_2"].tolist() == pytest.approx([1e-4] * 16)


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"focal_windows": [3, 4, 3, 3]}, BackboneError, "odd sides as focal_windows"),
        ({"focal_levels": [3, 3]}, BackboneError, r"as focal_levels, got \[3, 3\]"),
        ({"depths": "2262"}, TypeError, "a sequence of integers as depths, got '2262'"),
        ({"frozen_stages": 6}, BackboneError, "from -1 to 5 as frozen_stages, got 6"),
        ({"drop_rate": -0.1}, BackboneError, "from 0 to 1 as drop_rate, got -0.1"),
        ({"patch_size": 4.0}, BackboneError, "at least 1 as patch_size, got 4.0"),
        ({"mlp_ratio": 0}, BackboneError, "as mlp_ratio, got 0"),
        ({"norm_layer": "LN"}, TypeError, "builds a layer as norm_layer, .* got 'LN'"),
        ({"use_postln": "no"}, TypeError, "use_postln must be True or False"),
    ],
)
def test_focalnet__refuses(wrong, error, message):
    with pytest.raises(error, match=message):
        FocalNet(**wrong)
