"""The predictions of several layers in one tensor, and their matches in one table.

Letters in shapes: L layers, B images, Q queries, M matched pairs of all layers.
"""

import itertools
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from detrex.modeling.matcher.assignment import Indices
from detrex.utils.misc import at_least_float32

Targets = Sequence[Mapping[str, Tensor]]


@dataclass(frozen=True)
class Layer:
    """Predictions that are matched and scored: those of a decoder layer, or of the encoder.

    Attributes:
        outputs: ``pred_logits`` (B, Q, C) and ``pred_boxes`` (B, Q, 4).
        targets: what they are matched with.
        suffix: of the names of the losses.
    """

    outputs: Mapping[str, Any]
    targets: Targets
    suffix: str = ""

    @property
    def kind(self) -> Hashable:
        """Equal for layers that fit into one `Stack`: of the same shapes, formats and targets."""
        scored = [self.outputs.get(name) for name in ("pred_logits", "pred_boxes")]
        return id(self.targets), *((v.shape, v.dtype) for v in scored if v is not None)


@dataclass(frozen=True)
class Stack:
    """Layers that are scored together; of the same `Layer.kind`.

    Attributes:
        outputs: of each layer, as in `Layer`.
        targets: for each image ``labels`` (T,) and ``boxes`` (T, 4), the same for all layers.
        matches: of each layer, a pair of index tensors per image.
    """

    outputs: Sequence[Mapping[str, Tensor]]
    targets: Targets
    matches: Sequence[Indices]

    @cached_property
    def pairs(
        self,
    ) -> tuple[Int[Tensor, " m"], Int[Tensor, " m"], Int[Tensor, " m"], Int[Tensor, " m"]]:
        """Layer, image, query and object of each pair, (M,) int64 on the predictions' device.

        Objects are counted through all images. The pairs stand layer by layer and image by image.
        """
        counts = [len(target["labels"]) for target in self.targets]
        firsts = itertools.accumulate(counts[:-1], initial=0)
        rows = itertools.product(range(len(self.matches)), enumerate(firsts))
        table = torch.tensor([(layer, image, first) for layer, (image, first) in rows])
        matches = [match for layer in self.matches for match in layer]
        queries, objects = (torch.cat(side) for side in zip(*matches, strict=True))
        lengths = torch.tensor([len(match[0]) for match in matches])
        numbers = table.repeat_interleave(lengths, dim=0).to(queries.device)
        device = next(iter(self.outputs[0].values())).device
        pairs = torch.stack([numbers[:, 0], numbers[:, 1], queries, numbers[:, 2] + objects])
        layer, image, query, object_ = pairs.to(device, non_blocking=device.type == "cuda")
        return layer, image, query, object_

    def predictions(self, name: str) -> Float[Tensor, "l b q _"]:
        """Stack ``pred_logits`` or ``pred_boxes`` to (L, B, Q, ...), in float32 at least."""
        return at_least_float32(torch.stack([outputs[name] for outputs in self.outputs]))

    def matched_boxes(self) -> tuple[Float[Tensor, "m 4"], Float[Tensor, "m 4"]]:
        """Give the (M, 4) predicted boxes of all pairs and those of their objects."""
        layer, image, query, object_ = self.pairs
        boxes = self.predictions("pred_boxes")[layer, image, query]
        return boxes, torch.cat([target["boxes"] for target in self.targets]).to(boxes)[object_]

    def classes(self, background: int) -> Int[Tensor, "l b q"]:
        """Give each query the class it should predict: (L, B, Q) int64, `background` unmatched."""
        layer, image, query, object_ = self.pairs
        shape = (len(self.outputs), *self.outputs[0]["pred_logits"].shape[:2])
        labels = torch.cat([target["labels"] for target in self.targets]).to(layer.device)
        classes = torch.full(shape, background, dtype=torch.int64, device=layer.device)
        return classes.index_put((layer, image, query), labels[object_])

    def sums(self, values: Float[Tensor, " m"]) -> Float[Tensor, " l"]:
        """Add up, for each layer, the (M,) values of its pairs: (L,)."""
        layers = torch.arange(len(self.outputs), device=values.device)
        return torch.where(self.pairs[0] == layers[:, None], values, 0).sum(1)
