"""What the parts of a detector tell each other when it is built, and whether they fit together.

Backbone -> neck: the feature maps. Detector -> position embedding: its width. Detector ->
criterion: the layers whose losses have weights.
"""

import logging
from collections.abc import Mapping

from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone import Backbone
from torch import nn

from detrex.errors import ConfigError
from detrex.modeling.consistency import check_consistent
from detrex.modeling.criterion import SetCriterion
from detrex.modeling.neck import ChannelMapper

from .criterion import expand_weight_dict
from .transformer import DINOTransformer

logger = logging.getLogger(__name__)


def connect_neck(backbone: nn.Module, neck: nn.Module) -> None:
    """Tell a ``ChannelMapper`` what the backbone gives, or compare it with what it was built for.

    Other necks are left alone; a neck that was sized by hand goes with a backbone that does not
    publish its maps.

    Args:
        backbone: its ``output_shape()`` is read.
        neck: changed in place.

    Raises:
        ConfigError: the two do not fit together, with both sides in the message, or neither says
            what the maps are.
    """
    if not isinstance(neck, ChannelMapper):
        return
    who = f"the backbone {type(backbone).__name__}"
    shapes = published_shapes(backbone)
    if shapes is not None:
        neck.connect(shapes, who)
    elif not neck.is_connected:
        raise ConfigError(
            f"{who} does not say which maps it gives (output_shape), and the neck was not told: "
            "set input_shapes and in_features of the neck, or let the backbone publish its maps."
        )


def published_shapes(backbone: nn.Module) -> dict[str, ShapeSpec] | None:
    """Give the shape of each map by name, or None for a backbone that does not publish them."""
    output_shape = getattr(backbone, "output_shape", None)
    if not callable(output_shape):
        return None
    inherited = getattr(type(backbone), "output_shape", None) is Backbone.output_shape
    if inherited and not hasattr(backbone, "_out_features"):
        return None
    return dict(output_shape())


def size_position_embedding(position_embedding: nn.Module, embed_dim: int) -> None:
    """Set ``num_pos_feats`` of a sine embedding that was built with None to half of `embed_dim`.

    Raises:
        ConfigError: `embed_dim` is no multiple of four, sine and cosine of two axes.
    """
    if getattr(position_embedding, "num_pos_feats", 0) is not None:
        return
    if embed_dim % 4:
        raise ConfigError(
            f"embed_dim must be a multiple of 4 for a position embedding by sine and cosine of two "
            f"axes, got {embed_dim}."
        )
    position_embedding.num_pos_feats = embed_dim // 2  # type: ignore[assignment]


def weigh_losses(criterion: nn.Module, num_layers: int) -> None:
    """Give the losses of all layers the weight of their term; warn of a term that has none.

    Args:
        criterion: its ``weight_dict``, where it has one, is replaced by
            :func:`~detrex.modeling.dino.criterion.expand_weight_dict`.
        num_layers: decoder layers.
    """
    weights = getattr(criterion, "weight_dict", None)
    if not isinstance(weights, Mapping):
        return
    criterion.weight_dict = expand_weight_dict(weights, num_layers)  # type: ignore[assignment]
    if not weights or not isinstance(criterion, SetCriterion):
        return
    terms = [term for loss in criterion.losses for term in criterion.loss_terms.get(loss, ())]
    missing = [term for term in terms if term not in weights]
    if missing:
        logger.warning(
            "weight_dict has no weight for %s, which counts with 1; write 0 to switch a loss off.",
            ", ".join(missing),
        )


def check_parts(
    position_embedding: nn.Module,
    neck: nn.Module,
    transformer: DINOTransformer,
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
    check_consistent(
        {
            "embed_dim": embed_dim,
            "transformer.embed_dim": transformer.embed_dim,
            "neck.out_channels": getattr(neck, "out_channels", None),
            "2 * position_embedding.num_pos_feats": num_pos_feats and 2 * num_pos_feats,
        }
    )
    check_consistent(
        {
            "num_queries": num_queries,
            "transformer.two_stage_num_proposals": transformer.two_stage_num_proposals,
        }
    )
    check_consistent(
        {
            "num_classes": num_classes,
            "criterion.num_classes": getattr(criterion, "num_classes", None),
        }
    )
    check_consistent(
        {
            "transformer.num_feature_levels": transformer.num_feature_levels,
            "the number of the neck's levels": getattr(neck, "num_outs", None),
        },
        "set num_outs of the neck to num_feature_levels, or the other way round",
    )
    if not transformer.decoder.return_intermediate:
        raise ConfigError(
            "DINO needs the states of all decoder layers, but the decoder has "
            "return_intermediate=False; set it to True."
        )
