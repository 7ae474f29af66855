"""The neck: levels of one width from the maps of any backbone."""

import copy

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from detrex.errors import ConfigError
from detrex.layers import ShapeSpec
from detrex.modeling.neck import ChannelMapper

CHANNELS = {"res3": 3, "res4": 5, "res5": 7}


def _shapes():
    return {name: ShapeSpec(channels=channels) for name, channels in CHANNELS.items()}


def _maps():
    return {
        name: torch.randn(2, channels, 24 >> i, 16 >> i)
        for i, (name, channels) in enumerate(CHANNELS.items())
    }


def _mapper(in_features=tuple(CHANNELS), **kwargs):
    return ChannelMapper(_shapes(), in_features, 8, **{"kernel_size": 1, **kwargs})


def test_forward__first_extra_level_sees_the_raw_map():
    mapper = _mapper(num_outs=5, norm_layer=nn.GroupNorm(4, 8), activation=nn.ReLU())
    maps = _maps()
    levels = mapper(maps)
    assert [tuple(level.shape[2:]) for level in levels] == [
        (24, 16),
        (12, 8),
        (6, 4),
        (3, 2),
        (2, 1),
    ]
    for level, conv, feature in zip(levels, mapper.convs, maps.values(), strict=False):
        torch.testing.assert_close(level, conv.norm(conv.conv(feature)).relu())
    first, second = mapper.extra_convs
    torch.testing.assert_close(levels[3], first(maps["res5"]))
    torch.testing.assert_close(levels[4], second(levels[3]))


def test_forward__picks_its_maps_whatever_else_there_is():
    mapper = _mapper(["res5", "res3"])
    maps = {**_maps(), "p6": torch.randn(2, 11, 1, 1)}
    levels = mapper(maps)
    assert isinstance(levels, tuple)
    torch.testing.assert_close(levels[0], mapper.convs[0](maps["res5"]))
    torch.testing.assert_close(levels[1], mapper.convs[1](maps["res3"]))


def test_init__num_outs_defaults_to_the_maps_used():
    mapper = _mapper(["res4", "res5"])
    assert mapper.extra_convs is None
    assert len(mapper(_maps())) == 2


def test_init__attributes_and_keys():
    mapper = _mapper(num_outs=4, norm_layer=nn.GroupNorm(4, 8))
    assert mapper.in_features == list(CHANNELS)
    assert mapper.out_channels == 8
    assert mapper.input_shapes["res4"].channels == 5
    prefixes = [f"convs.{i}" for i in range(3)] + ["extra_convs.0"]
    assert sorted(mapper.state_dict()) == sorted(
        f"{prefix}.{part}"
        for prefix in prefixes
        for part in ("conv.bias", "conv.weight", "norm.bias", "norm.weight")
    )
    assert mapper.extra_convs[0].conv.weight.shape == (8, 7, 3, 3)


def test_init__norms_are_copies():
    norm = nn.GroupNorm(4, 8)
    mapper = _mapper(num_outs=4, norm_layer=norm)
    norms = [conv.norm for conv in (*mapper.convs, *mapper.extra_convs)]
    assert len({id(module) for module in (norm, *norms)}) == 5


def test_init__without_bias():
    mapper = _mapper(num_outs=4, bias=False, norm_layer=nn.GroupNorm(4, 8))
    assert not any(name.endswith("conv.bias") for name in mapper.state_dict())
    assert len(mapper(_maps())) == 4


def test_init__convolution_settings():
    mapper = ChannelMapper(
        {"p": ShapeSpec(channels=4)}, ["p"], 8, stride=2, groups=2, dilation=3, num_outs=2
    )
    conv, extra = mapper.convs[0].conv, mapper.extra_convs[0].conv
    assert (conv.kernel_size, conv.stride, conv.padding) == ((3, 3), (2, 2), (1, 1))
    assert (conv.groups, extra.groups) == (2, 2)
    assert conv.dilation == (3, 3)


def test_init__omegaconf_containers():
    shapes = OmegaConf.create(_shapes(), flags={"allow_objects": True})
    mapper = ChannelMapper(shapes, OmegaConf.create(["res3", "res4"]), 8, num_outs=3)
    assert mapper.in_features == ["res3", "res4"]
    assert len(mapper(_maps())) == 3


def test_init__unknown_keyword():
    with pytest.raises(TypeError, match="unexpected keyword argument 'norm'"):
        _mapper(norm=nn.GroupNorm(4, 8))


def test_init__bad_features_are_refused():
    with pytest.raises(
        ConfigError,
        match=r"asks for 'res6', which input_shapes does not have; there is 'res3', .*Did you mean",
    ):
        _mapper(["res3", "res6"])
    with pytest.raises(ConfigError, match="at least one name in in_features"):
        _mapper([])
    with pytest.raises(ConfigError, match="num_outs is 2, but in_features has 3 maps"):
        _mapper(num_outs=2)


def test_forward__missing_map_is_named():
    maps = _maps()
    del maps["res4"]
    with pytest.raises(
        ConfigError, match="asks for 'res4', which the backbone's output does not have"
    ):
        _mapper()(maps)


def test_forward__gradients_reach_the_maps_and_meta_works():
    mapper = _mapper(num_outs=4)
    maps = {name: feature.requires_grad_() for name, feature in _maps().items()}
    torch.stack([level.square().sum() for level in mapper(maps)]).sum().backward()
    assert all(feature.grad.abs().sum() > 0 for feature in maps.values())
    meta = mapper.to("meta")({name: feature.to("meta") for name, feature in maps.items()})
    assert meta[3].shape == (2, 8, 3, 2)


def _offered():
    """As a backbone publishes them, coarsest first, with a map that nobody may want."""
    strides = {"res5": 32, "res4": 16, "res3": 8}
    return {
        name: ShapeSpec(channels=CHANNELS[name], stride=stride) for name, stride in strides.items()
    }


def _given_at_once(**kwargs):
    torch.manual_seed(3)
    return _mapper(num_outs=5, norm_layer=nn.GroupNorm(4, 8), activation=nn.ReLU(), **kwargs)


def _connected(**kwargs):
    neck = ChannelMapper(
        out_channels=8,
        kernel_size=1,
        num_outs=5,
        norm_layer=nn.GroupNorm(4, 8),
        activation=nn.ReLU(),
        **kwargs,
    )
    torch.manual_seed(3)
    return neck.connect(_offered())


@pytest.mark.parametrize("given", [{}, {"in_features": list(CHANNELS)}])
def test_connect__gives_the_neck_that_was_sized_by_hand(given):
    neck, expected = _connected(**given), _given_at_once()
    assert neck.in_features == list(CHANNELS)
    assert {name: shape.stride for name, shape in neck.input_shapes.items()}["res5"] == 32
    assert list(neck.state_dict()) == list(expected.state_dict())
    for name, tensor in expected.state_dict().items():
        assert torch.equal(tensor, neck.state_dict()[name]), name
    maps = _maps()
    for level, wanted in zip(neck(maps), expected(maps), strict=True):
        torch.testing.assert_close(level, wanted, rtol=0, atol=0)


def test_connect__only_the_named_maps():
    neck = ChannelMapper(in_features=["res5", "res3"], out_channels=8).connect(_offered())
    assert [conv.conv.in_channels for conv in neck.convs] == [7, 3]
    assert (neck.num_outs, neck.extra_convs) == (2, None)


def test_connect__shapes_without_strides_keep_their_order():
    shapes = {name: ShapeSpec(channels=c) for name, c in (("b", 5), ("a", 3))}
    assert ChannelMapper().connect(shapes).in_features == ["b", "a"]


def test_init__shapes_alone_use_all_of_them():
    neck = ChannelMapper(_offered(), out_channels=8)
    assert neck.is_connected
    assert neck.in_features == list(CHANNELS)


def test_connect__twice_changes_nothing():
    neck = _connected()
    before = list(neck.parameters())
    assert neck.connect(_offered()) is neck
    assert all(a is b for a, b in zip(before, neck.parameters(), strict=True))


def test_connect__templates_are_no_parts_of_the_neck():
    neck = ChannelMapper(out_channels=8, norm_layer=nn.GroupNorm(4, 8))
    assert not list(neck.state_dict())
    neck.connect(_offered())
    assert len(neck.state_dict()) == 3 * 4


@pytest.mark.parametrize(
    "offered",
    [
        {**_offered(), "res4": ShapeSpec(channels=11, stride=16)},
        {name: shape for name, shape in _offered().items() if name != "res4"},
    ],
)
@pytest.mark.parametrize("make", [_given_at_once, _connected])
def test_connect__to_another_backbone_shows_both_sides(make, offered):
    pattern = r"expects maps with the channels {'res3': 3, 'res4': 5.*, but the net gives {'res5'"
    with pytest.raises(ConfigError, match=pattern):
        make().connect(offered, "the net")


def test_connect__unknown_map():
    neck = ChannelMapper(in_features=["res6"], out_channels=8)
    with pytest.raises(ConfigError, match=r"'res6', which the backbone does not have.*Did you"):
        neck.connect(_offered())


def test_connect__coarser_map_before_a_finer_one():
    shapes = {name: ShapeSpec(channels=4, stride=8 << i) for i, name in enumerate(CHANNELS)}
    with pytest.raises(ConfigError, match=r"finest map first, in_features=\['res3', 'res5'\]"):
        ChannelMapper(in_features=["res5", "res3"], num_outs=3).connect(shapes)


def test_connect__more_maps_than_levels():
    with pytest.raises(ConfigError, match=r"num_outs is 2, but in_features has 3 maps \['res3'"):
        ChannelMapper(num_outs=2).connect(_offered())
    with pytest.raises(ConfigError, match="num_outs is 1, but in_features has 2 maps"):
        ChannelMapper(in_features=["res3", "res4"], num_outs=1)


def test_forward__before_connect():
    neck = ChannelMapper(out_channels=8)
    assert (neck.is_connected, neck.num_outs) == (False, None)
    with pytest.raises(ConfigError, match=r"call neck.connect\(backbone.output_shape\(\)\) first"):
        neck(_maps())


def test_connect__on_meta():
    with torch.device("meta"):
        neck = ChannelMapper(out_channels=8, norm_layer=nn.GroupNorm(4, 8)).connect(_offered())
    assert {tensor.device.type for tensor in neck.state_dict().values()} == {"meta"}
    maps = {name: feature.to("meta") for name, feature in _maps().items()}
    assert neck(maps)[0].shape == (2, 8, 24, 16)


def test_deepcopy__before_and_after_connect():
    neck = ChannelMapper(out_channels=8, norm_layer=nn.GroupNorm(4, 8))
    first, second = (copy.deepcopy(neck).connect(_offered()) for _ in range(2))
    assert not neck.is_connected
    assert not {id(p) for p in first.parameters()} & {id(p) for p in second.parameters()}
    maps = _maps()
    for level, wanted in zip(copy.deepcopy(first)(maps), first(maps), strict=True):
        torch.testing.assert_close(level, wanted, rtol=0, atol=0)
