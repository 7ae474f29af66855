"""What must agree before a detector is built: the numbers that several of its parts state."""

from typing import TYPE_CHECKING

from torch import nn

from detrex.errors import ConfigError

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
            "the number of the neck's levels": getattr(neck, "num_outs", None),
        },
        "set num_outs of the neck to num_feature_levels, or the other way round",
    )
    if not transformer.decoder.return_intermediate:
        raise ConfigError(
            "DINO needs the states of all decoder layers, but the decoder has "
            "return_intermediate=False; set it to True."
        )
