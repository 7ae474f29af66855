"""A network of transformers that maps images to its feature maps, and to nothing besides."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn


class TransformersNetwork(nn.Module):
    """A network of transformers as a function of images.

    The maps of a class for backbones are its ``feature_maps``; those of any other its
    ``hidden_states``, of which the last is ``last_hidden_state``, behind the final norm.

    Args:
        model: the network, without a head.
        keywords: for its forward, beside the images.
        places: which of its maps to give; None for all.
        count: how many maps there are of the whole network; None where that is not known yet.

    Attributes:
        model: the network.
    """

    def __init__(
        self,
        model: nn.Module,
        keywords: Mapping[str, Any],
        places: Sequence[int] | None = None,
        count: int | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self._places = None if places is None else tuple(places)
        self._count = count
        self._keywords = {"return_dict": True, **keywords}
        if not is_backbone(model) and self._places != self._last:
            self._keywords["output_hidden_states"] = True

    @property
    def _last(self) -> tuple[int, ...]:
        return () if self._count is None else (self._count - 1,)

    def forward(self, images: Float[Tensor, "n c h w"]) -> list[Float[Tensor, "n ..."]]:
        """Map ``(N, C, H, W)`` to the tensors of the maps in the order of `places`."""
        keywords = self._keywords
        if "noise" in keywords:  # a masked autoencoder shuffles its patches by it: keep their order
            keywords = {**keywords, "noise": self._rising(images)}
        outputs = self.model(images, **keywords)
        if is_backbone(self.model):
            maps = list(outputs.feature_maps)
        elif self._places == self._last:
            return [outputs.last_hidden_state]
        else:
            maps = self._hidden_states(outputs)
        return maps if self._places is None else [maps[place] for place in self._places]

    def _hidden_states(self, outputs: Any) -> list[Tensor]:
        names = ("reshaped_hidden_states", "hidden_states")
        states = next((s for name in names if (s := getattr(outputs, name, None))), ())
        maps, last = list(states), outputs.last_hidden_state
        if maps and maps[-1].shape == last.shape and self._count in (None, len(maps)):
            maps[-1] = last
        elif self._count in (None, len(maps) + 1):  # with layers behind the last hidden state
            maps.append(last)
        return maps

    def _rising(self, images: Tensor) -> Tensor:
        config: Any = self.model.config
        patch: int = config.patch_size
        rows, columns = (side // patch for side in images.shape[-2:])
        return torch.arange(rows * columns, device=images.device).expand(len(images), -1)


def is_backbone(model: Any) -> bool:
    """Tell a network, or a class, of transformers' kind for backbones."""
    return hasattr(model, "out_features") and hasattr(model, "forward_with_filtered_kwargs")
