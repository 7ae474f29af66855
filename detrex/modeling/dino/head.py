"""The heads: a linear classifier and a box network after each decoder layer.

Letters in shapes: l decoder layers, n images, q queries, d channels, c classes.
"""

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from detrex.layers import MLP
from detrex.utils.misc import at_least_float32, inverse_sigmoid

PRIOR_PROBABILITY = 0.01


def class_heads(embed_dim: int, num_classes: int, count: int) -> nn.ModuleList:
    """Build ``count`` equal classifiers that start at the probability 0.01 (arXiv:1708.02002)."""
    head = nn.Linear(embed_dim, num_classes)
    nn.init.constant_(head.bias, -math.log((1 - PRIOR_PROBABILITY) / PRIOR_PROBABILITY))
    return nn.ModuleList(copy.deepcopy(head) for _ in range(count))


def box_heads(embed_dim: int, count: int) -> nn.ModuleList:
    """Build ``count`` equal box networks that start as the identity: no change to the reference."""
    head = MLP(embed_dim, embed_dim, 4, 3)
    for parameter in head.layers[-1].parameters():
        nn.init.zeros_(parameter)
    return nn.ModuleList(copy.deepcopy(head) for _ in range(count))


def predict(
    states_lnqd: Float[Tensor, "l n q d"],
    references_lnq4: Float[Tensor, "l n q 4"],
    class_embed: Sequence[nn.Module] | nn.ModuleList,
    bbox_embed: Sequence[nn.Module] | nn.ModuleList,
) -> tuple[Float[Tensor, "l n q c"], Float[Tensor, "l n q 4"]]:
    """Classify each layer's states and move the boxes that the layer started from.

    Args:
        states_lnqd: normalised states of all decoder layers.
        references_lnq4: the boxes that each layer started from, cxcywh in 0..1.
        class_embed: at least l classifiers.
        bbox_embed: at least l box networks.

    Returns:
        Logits (l, n, q, c) and boxes (l, n, q, 4), cxcywh in 0..1, both in float32 at least.
    """
    logits, boxes = [], []
    for index, (state, reference) in enumerate(zip(states_lnqd, references_lnq4, strict=True)):
        logits.append(at_least_float32(class_embed[index](state)))
        boxes.append((bbox_embed[index](state) + inverse_sigmoid(reference)).sigmoid())
    return torch.stack(logits), torch.stack(boxes)


def as_outputs(
    logits_lnqc: Float[Tensor, "l n q c"], boxes_lnq4: Float[Tensor, "l n q 4"], aux_loss: bool
) -> dict[str, Any]:
    """Name predictions as criteria expect them.

    Returns:
        ``pred_logits`` (n, q, c) and ``pred_boxes`` (n, q, 4) of the last layer and, with
        ``aux_loss``, ``aux_outputs``, a list of the same two for every layer before.
    """
    layers = [
        {"pred_logits": logits, "pred_boxes": boxes}
        for logits, boxes in zip(logits_lnqc, boxes_lnq4, strict=True)
    ]
    outputs: dict[str, Any] = dict(layers[-1])
    if aux_loss:
        outputs["aux_outputs"] = layers[:-1]
    return outputs
