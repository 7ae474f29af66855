"""Position embeddings of feature maps and of boxes."""

import math
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn


def _sine_waves(positions: Tensor, num_pos_feats: int, temperature: float) -> Tensor:
    """Turn (...,) positions into (..., num_pos_feats) features, sine and cosine in turn."""
    feature = torch.arange(num_pos_feats, dtype=torch.float32, device=positions.device)
    wavelength = temperature ** (2 * torch.div(feature, 2, rounding_mode="floor") / num_pos_feats)
    angle = positions.unsqueeze(-1) / wavelength
    return torch.stack([angle[..., 0::2].sin(), angle[..., 1::2].cos()], dim=-1).flatten(-2)


class PositionEmbeddingSine(nn.Module):
    """Sine embedding of where a pixel lies in the unpadded part of its image (arXiv:2005.12872).

    Args:
        num_pos_feats: features per axis, even; the embedding has twice as many channels. None
            leaves it to the detector, which sets the attribute when it is built.
        temperature: base of the wavelengths.
        scale: what the normalised coordinates are multiplied with.
        eps: keeps the normalisation of an image without pixels finite.
        offset: added to the coordinates before normalisation; -0.5 puts them at pixel centres.
        normalize: whether coordinates are divided by the image's size.

    Raises:
        ValueError: when ``num_pos_feats`` is odd, or still None when it is needed.
    """

    def __init__(
        self,
        num_pos_feats: int | None = 64,
        temperature: float = 10000,
        scale: float = 2 * math.pi,
        eps: float = 1e-6,
        offset: float = 0.0,
        normalize: bool = False,
    ) -> None:
        super().__init__()
        if num_pos_feats is not None and num_pos_feats % 2:
            raise ValueError(
                f"num_pos_feats must be even (sine and cosine in turn), got {num_pos_feats}."
            )
        self.num_pos_feats = num_pos_feats
        self.temperature = temperature
        self.scale = scale
        self.eps = eps
        self.offset = offset
        self.normalize = normalize

    @property
    def settings(self) -> tuple[Any, ...]:
        """The arguments that build an embedding like this one, in their order."""
        return (
            *(self.num_pos_feats, self.temperature, self.scale),
            *(self.eps, self.offset, self.normalize),
        )

    def forward(self, mask: Shaped[Tensor, "b h w"], **kwargs: Any) -> Float[Tensor, "b _ h w"]:
        """Embed the pixels of a padded batch.

        Args:
            mask: (B, H, W) bool, True where there is padding.
            **kwargs: ignored; callers of the original may pass more than the mask.

        Returns:
            (B, 2 * num_pos_feats, H, W) float embedding, the y half first.
        """
        if self.num_pos_feats is None:
            raise ValueError(
                "PositionEmbeddingSine has num_pos_feats=None: give half the channels of the maps, "
                "or set it before the first call, as DINO does."
            )
        inside = ~mask.bool()
        halves = []
        for dim in (1, 2):
            position = inside.cumsum(dim, dtype=torch.float32)
            if self.normalize:
                last = position.narrow(dim, -1, 1)
                position = (position + self.offset) / (last + self.eps) * self.scale
            halves.append(_sine_waves(position, self.num_pos_feats, self.temperature))
        return torch.cat(halves, dim=-1).permute(0, 3, 1, 2)


class PositionEmbeddingLearned(nn.Module):
    """One learnt vector per row and per column (arXiv:2005.12872).

    Args:
        num_pos_feats: features per axis; the embedding has twice as many channels.
        row_num_embed: the most rows a feature map may have.
        col_num_embed: the most columns a feature map may have.
    """

    def __init__(
        self, num_pos_feats: int = 256, row_num_embed: int = 50, col_num_embed: int = 50
    ) -> None:
        super().__init__()
        self.row_embed = nn.Embedding(row_num_embed, num_pos_feats)
        self.col_embed = nn.Embedding(col_num_embed, num_pos_feats)
        self.num_pos_feats = num_pos_feats
        self.row_num_embed = row_num_embed
        self.col_num_embed = col_num_embed
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw both tables uniformly from [0, 1)."""
        nn.init.uniform_(self.row_embed.weight)
        nn.init.uniform_(self.col_embed.weight)

    def forward(self, mask: Shaped[Tensor, "b h w"]) -> Float[Tensor, "b _ h w"]:
        """Embed the pixels of a batch.

        Args:
            mask: (B, H, W); only its shape matters.

        Returns:
            (B, 2 * num_pos_feats, H, W) embedding, the x half first.

        Raises:
            ValueError: when the map is larger than the tables.
        """
        batch, height, width = mask.shape
        if height > self.row_num_embed or width > self.col_num_embed:
            raise ValueError(
                f"PositionEmbeddingLearned got a map of {height}x{width}, its tables hold "
                f"{self.row_num_embed} rows and {self.col_num_embed} columns; "
                "raise row_num_embed and col_num_embed."
            )
        x = self.col_embed.weight[:width].expand(height, -1, -1)
        y = self.row_embed.weight[:height].unsqueeze(1).expand(-1, width, -1)
        return torch.cat([x, y], dim=-1).permute(2, 0, 1).expand(batch, -1, -1, -1)


def get_sine_pos_embed(
    pos_tensor: Float[Tensor, "*n _"],
    num_pos_feats: int = 128,
    temperature: float = 10000,
    exchange_xy: bool = True,
) -> Float[Tensor, "*n _"]:
    """Embed the coordinates of points or boxes (DAB-DETR, arXiv:2201.12329).

    Args:
        pos_tensor: (..., n) coordinates as shares of the image, in [0, 1]: (x, y) or (x, y, w, h).
        num_pos_feats: features per coordinate, even.
        temperature: base of the wavelengths.
        exchange_xy: whether the features of y come before those of x; later coordinates stay.

    Returns:
        (..., n * num_pos_feats) embedding.
    """
    waves = _sine_waves(pos_tensor * (2 * math.pi), num_pos_feats, temperature)
    if exchange_xy:
        order = [1, 0, *range(2, pos_tensor.shape[-1])]
        waves = torch.stack([waves[..., i, :] for i in order], dim=-2)
    return waves.flatten(-2)
