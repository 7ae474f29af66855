"""Names of maps, and what has an entry for each of them, follow another backbone."""

import pytest
from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec
from omegaconf import OmegaConf
from torch import nn

from detrex.config.feature_consumers import Renaming, guessed_maps, rename_maps, used_maps
from detrex.errors import ConfigError

OLD = {
    "res3": ShapeSpec(channels=5, stride=8),
    "res4": ShapeSpec(channels=7, stride=16),
    "res5": ShapeSpec(channels=9, stride=32),
}


def _model(**keywords):
    return L(nn.Identity)(backbone=L(nn.Identity)(in_features=["res3"]), **keywords)


def _rename(model, new, used=tuple(OLD)):
    rename_maps(model, "backbone", Renaming.by_stride({name: OLD[name] for name in used}, new))
    return OmegaConf.to_container(model)


def test_rename_maps__lists_and_what_stands_beside_them():
    model = _model(
        head_in_features=["res4", "res5"],
        anchor_generator=L(nn.Identity)(
            sizes=[[1], [2]], aspect_ratios=[0.5, 2.0], strides=[16, 32]
        ),
        head=L(nn.Identity)(input_shape=[L(ShapeSpec)(channels=1), L(ShapeSpec)(channels=2)]),
        roi_heads=L(nn.Identity)(
            box_in_features=["res3", "res5"],
            box_pooler=L(nn.Identity)(scales=[1 / 8, 1 / 32], output_size=7),
            other_pooler=L(nn.Identity)(scales=[1 / 8, 1 / 32]),
        ),
    )
    new = {"a": ShapeSpec(channels=2, stride=8), "b": ShapeSpec(channels=3, stride=16)}
    model = _rename(model, new)
    assert model["head_in_features"] == ["b"]
    assert model["anchor_generator"]["strides"] == [16]
    assert model["anchor_generator"]["sizes"] == [[1]]
    assert model["anchor_generator"]["aspect_ratios"] == [0.5, 2.0]
    assert [shape["channels"] for shape in model["head"]["input_shape"]] == [1]
    assert model["roi_heads"]["box_in_features"] == ["a"]
    assert model["roi_heads"]["box_pooler"]["scales"] == [1 / 8]
    assert model["roi_heads"]["other_pooler"]["scales"] == [1 / 8, 1 / 32]
    assert model["backbone"]["in_features"] == ["res3"]


@pytest.mark.parametrize(("written", "expected"), [(9, 3), (4, 4)])
def test_rename_maps__channels_that_are_those_of_the_map(written, expected):
    model = _model(in_features=["res5"], in_channels=written)
    model = _rename(model, {"c": ShapeSpec(channels=3, stride=32)}, ["res5"])
    assert (model["in_features"], model["in_channels"]) == (["c"], expected)


def test_rename_maps__shapes_by_name():
    shapes = {name: L(ShapeSpec)(channels=s.channels, stride=s.stride) for name, s in OLD.items()}
    shapes["res3"].channels = "${....width}"
    model = _model(width=1, sem_seg_head=L(nn.Identity)(input_shape=shapes))
    new = {"a": ShapeSpec(channels=2, stride=8), "b": ShapeSpec(channels=3, stride=32)}
    shapes = _rename(model, new)["sem_seg_head"]["input_shape"]
    assert list(shapes) == ["a", "b"]
    assert shapes["a"]["channels"] == "${....width}"
    assert (shapes["b"]["channels"], shapes["b"]["stride"]) == (3, 32)


def test_rename_maps__a_single_map_of_another_stride():
    model = _model(in_features=["res4"], pooler=L(nn.Identity)(scales=[1 / 16]))
    model = _rename(model, {"a": ShapeSpec(channels=2, stride=8)}, ["res4"])
    assert model["pooler"]["scales"] == [1 / 8]


def test_rename_maps__nothing_left_is_an_error():
    model = _model(
        roi_heads=L(nn.Identity)(in_features=["res5"]), head_in_features=["res3", "res4"]
    )
    with pytest.raises(ConfigError, match=r"roi_heads.in_features=\['res5'\] needs .* stride 32"):
        _rename(model, {"a": ShapeSpec(channels=2, stride=8)})


def test_used_maps__those_that_are_named():
    model = _model(
        head=L(nn.Identity)(in_feature="res5"), x_in_features=["res3"], in_features=["other"]
    )
    assert used_maps(model, "backbone", OLD) == ["res3", "res5"]


def test_guessed_maps__by_detectron2s_names():
    model = _model(in_features=["res4"], other_in_features=["p3", "mine"])
    shapes = guessed_maps(model, "backbone")
    assert {name: shape.stride for name, shape in shapes.items()} == {"res4": 16, "p3": 8}
    new = {"c": ShapeSpec(channels=3, stride=16)}
    model.in_channels = 1024
    rename_maps(model, "backbone", Renaming.by_stride({"res4": shapes["res4"]}, new))
    assert (list(model.in_features), model.in_channels) == (["c"], 3)
