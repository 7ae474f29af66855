"""What is seen of networks of transformers without data."""

import pytest
import transformers

from detrex.errors import BackboneError
from detrex.modeling.backbone.features.coverage import Coverage
from detrex.modeling.backbone.huggingface_backbone.builder import recipe_of
from detrex.modeling.backbone.huggingface_backbone.naming import named_network
from detrex.modeling.backbone.huggingface_backbone.spec import inspect_network
from detrex.modeling.backbone.inspection.feature_shapes import describe_feature
from tests.reference.tiny_transformers import SWIN, TYPES, VIT, WIDE_VIT


def spec_of(kind, in_channels=3, **keywords):
    keywords = TYPES.get(kind, {}) | keywords
    return inspect_network(recipe_of(named_network(kind), keywords, in_channels), in_channels)


def test_inspect_network__of_stages():
    spec = spec_of("resnet", in_channels=4)
    named = {f.name: (f.source, f.stride, f.channels) for f in spec.features}
    assert named == {
        **{"stem": (0, 4, 8), "stage1": (1, 4, 8), "stage2": (2, 8, 12)},
        **{"stage3": (3, 16, 16), "stage4": (4, 32, 24)},
    }
    assert spec.input_size.is_free
    assert (spec.in_channels, len(spec.statistics.pixel_mean)) == (4, 4)


def test_inspect_network__of_tokens():
    spec = spec_of("vit")
    assert [f.name for f in spec.features] == ["stem", "stage1", "stage2", "stage3"]
    assert {(f.layout, f.prefix_tokens, f.stride) for f in spec.features} == {("NLC", 1, 16)}
    assert spec.input_size.keywords == {"interpolate_pos_encoding": True}
    assert spec.features[-1].coverage == Coverage(16)


def test_inspect_network__that_takes_one_size_is_cut_into_tiles():
    assert spec_of("hiera").input_size.tile == (64, 64)


@pytest.mark.parametrize(
    ("kind", "keywords", "match"),
    [
        ("yolos", VIT, "gives no feature map"),
        ("videomae", VIT, "on an image of any size"),
        ("pixtral", {**WIDE_VIT, "head_dim": 8}, "it joins the 2 images of a batch in one tensor"),
    ],
)
def test_inspect_network__of_something_else(kind, keywords, match):
    with pytest.raises(BackboneError, match=match):
        spec_of(kind, **keywords)


def test_inspect_network__counts_stages_where_no_stem_is_given():
    spec = spec_of("maskformer-swin", **SWIN)
    assert [(f.name, f.source, f.stride) for f in spec.features] == [
        *(("stage1", 1, 4), ("stage2", 2, 8), ("stage3", 3, 16), ("stage4", 4, 32))
    ]


@pytest.mark.skipif("lw_detr_vit" not in transformers.CONFIG_MAPPING, reason="newer transformers")
def test_inspect_network__that_cuts_its_map_into_a_fixed_number_of_windows():
    spec = spec_of("lw_detr_vit", **VIT, image_size=64)
    assert {f.coverage for f in spec.features} == {Coverage(64)}


@pytest.mark.parametrize("size", [-1, 0, 8, [64, 8]])
def test_inspect_network__an_image_smaller_than_a_patch_is_refused(size):
    with pytest.raises(BackboneError, match="expected 16 pixels or more") as info:
        spec_of("vit", image_size=size)
    assert len(str(info.value)) < 200


@pytest.mark.skipif("aimv2_vision_model" not in transformers.CONFIG_MAPPING, reason="newer types")
def test_inspect_network__cuts_tiles_of_whole_patches():
    """For 64 pixels and patches of 14 the table of positions is that of 4 x 4 patches."""
    spec = spec_of("aimv2_vision_model", **WIDE_VIT, image_size=64, patch_size=14)
    assert spec.input_size.tile == (56, 56)
    assert {(f.stride, f.prefix_tokens) for f in spec.features} == {(14, 0)}


def test_inspect_network__takes_no_image_that_patches_leave_a_part_of_out():
    """Its 4 x 7 patches of 16 and a class token are as many as 3 x 5 of 24 and 14 tokens."""
    with pytest.raises(BackboneError, match="own 72 x 120 included"):
        spec_of("vit", image_size=[72, 120])


def test_inspect_network__counts_what_is_no_map_too(monkeypatch):
    def refuse_last(name, *given):
        if name == "stage3":
            raise BackboneError("no rows and columns")
        return describe_feature(name, *given)

    monkeypatch.setattr(f"{inspect_network.__module__}.describe_feature", refuse_last)
    spec = spec_of("vit", layer_norm_eps=3e-7)  # of no other test: what is found is kept
    assert [int(f.source) for f in spec.features] == [0, 1, 2]
    assert spec.count == 4
