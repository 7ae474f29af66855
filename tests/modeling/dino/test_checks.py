import pytest
from detectron2.layers import ShapeSpec
from torch import nn

from detrex.errors import ConfigError
from detrex.layers import PositionEmbeddingSine
from detrex.modeling.dino.checks import check_agreement, check_parts
from detrex.modeling.neck import ChannelMapper
from tests.reference.tiny_dino import tiny_transformer


def _neck(num_outs):
    shapes = {name: ShapeSpec(channels=8) for name in ("p3", "p4", "p5")}
    return ChannelMapper(shapes, list(shapes), out_channels=32, num_outs=num_outs)


def test_check_agreement__a_part_that_says_nothing_agrees():
    check_agreement({"a": 3, "b": None, "c": 3})


def test_check_agreement__shows_both_sides():
    with pytest.raises(ConfigError, match="a is 3, b is 4; give both the same"):
        check_agreement({"a": 3, "b": 4})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"embed_dim": 64},
            "embed_dim is 64, transformer.embed_dim is 32, neck.out",
        ),
        ({"position_embedding": 8}, r"2 \* position_embedding.num_pos_feats is 16"),
        ({"num_queries": 9}, "num_queries is 9, transformer.two_stage_num_proposals is 11"),
        ({"num_classes": 9}, "num_classes is 9, criterion.num_classes is 5"),
        ({"num_outs": 3}, "num_feature_levels is 4, the number of the neck's levels is 3"),
        ({"return_intermediate": False}, "return_intermediate=False; set it to True"),
    ],
)
def test_check_parts__disagreement(given, message):
    detector = {"embed_dim": 32, "num_queries": 11, "num_classes": 5}
    transformer, criterion = tiny_transformer(), nn.Identity()
    criterion.num_classes = 5
    options = {"position_embedding": 16, "num_outs": 4, "return_intermediate": True, **given}
    transformer.decoder.return_intermediate = options["return_intermediate"]
    position_embedding = PositionEmbeddingSine(options["position_embedding"])
    neck = _neck(num_outs=options["num_outs"])
    detector.update((name, given[name]) for name in detector.keys() & given.keys())
    with pytest.raises(ConfigError, match=message):
        check_parts(position_embedding, neck, transformer, criterion, **detector)
