"""What must agree before a detector is built: the numbers that several of its parts state."""

from typing import TYPE_CHECKING

from detectron2.modeling.backbone import Backbone
from torch import nn

from detrex.errors import ConfigError
from detrex.modeling.neck import ChannelMapper

if TYPE_CHECKING:
    from .transformer import DINOTransformer


def check_agreement(stated: dict[str, int | None], remedy: str = "give both the same") -> None:
    """Compare what several parts state about one number.

    Args:
        stated: who states it, and what; None where a part states nothing.
        remedy: how to mend a disagreement.

    Raises:
        ConfigError: when two differ.
    """
    values = {who: value for who, value in stated.items() if value is not None}
    if len(set(values.values())) > 1:
        listed = ", ".join(f"{who} is {value}" for who, value in values.items())
        raise ConfigError(f"the parts of the detector do not fit together: {listed}; {remedy}.")


def check_parts(
    backbone: nn.Module,
    position_embedding: nn.Module,
    neck: nn.Module,
    transformer: "DINOTransformer",
    criterion: nn.Module,
    *,
    embed_dim: int,
    num_classes: int,
    num_queries: int,
) -> None:
    """Compare the parts of a detector with each other and with the numbers given to it.

    Parts of another make that do not have an attribute to compare pass.

    Raises:
        ConfigError: when two disagree, with both sides in the message.
    """
    num_pos_feats = getattr(position_embedding, "num_pos_feats", None)
    check_agreement(
        {
            "embed_dim": embed_dim,
            "transformer.embed_dim": transformer.embed_dim,
            "neck.out_channels": getattr(neck, "out_channels", None),
            "2 * position_embedding.num_pos_feats": num_pos_feats and 2 * num_pos_feats,
        }
    )
    check_agreement(
        {
            "num_queries": num_queries,
            "transformer.two_stage_num_proposals": transformer.two_stage_num_proposals,
        }
    )
    check_agreement(
        {
            "num_classes": num_classes,
            "criterion.num_classes": getattr(criterion, "num_classes", None),
        }
    )
    check_agreement(
        {
            "transformer.num_feature_levels": transformer.num_feature_levels,
            "the number of the neck's levels": check_neck(backbone, neck),
        },
        "set num_outs of the neck to num_feature_levels, or the other way round",
    )
    if not transformer.decoder.return_intermediate:
        raise ConfigError(
            "DINO needs the states of all decoder layers, but the decoder has "
            "return_intermediate=False; set it to True."
        )


def check_neck(backbone: nn.Module, neck: nn.Module) -> int | None:
    """Compare a ``ChannelMapper`` with the feature maps that the backbone says it gives.

    Other necks, and backbones that do not publish their maps, are not compared.

    Returns:
        The number of levels that the neck gives; None for another kind of neck.

    Raises:
        ConfigError: when a map is missing or has another number of channels, with both sides in the
            message.
    """
    if not isinstance(neck, ChannelMapper):
        return None
    offered = published_channels(backbone)
    expected = {name: neck.input_shapes[name].channels for name in neck.in_features}
    if offered is not None and any(offered.get(name) != c for name, c in expected.items()):
        raise ConfigError(
            f"the neck expects maps with the channels {expected}, but the backbone "
            f"{type(backbone).__name__} gives {offered}; set in_features and input_shapes of the "
            f"neck to what the backbone gives."
        )
    return len(neck.convs) + len(neck.extra_convs or ())


def published_channels(backbone: nn.Module) -> dict[str, int] | None:
    """Give the channels of each map by name, or None for a backbone that does not publish them."""
    if not isinstance(backbone, Backbone):
        return None
    inherited = type(backbone).output_shape is Backbone.output_shape
    if inherited and not hasattr(backbone, "_out_features"):
        return None
    return {name: shape.channels for name, shape in backbone.output_shape().items()}
