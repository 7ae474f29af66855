"""EVA-02 (arXiv:2303.11331): a plain vision transformer with rotary positions and SwiGLU."""

import logging
from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from .eva_02_utils import VisionRotaryEmbeddingFast
from .simple_feature_pyramid import SimpleFeaturePyramid, get_vit_lr_decay_rate
from .staged import check_integer, drop_path_rates
from .vit_layers import Block, PlainViT, check_vit

__all__ = ["EVA02_ViT", "SimpleFeaturePyramid", "get_vit_lr_decay_rate"]

_LAYER_NORM = partial(nn.LayerNorm, eps=1e-6)

logger = logging.getLogger(__name__)


class SwiGLU(nn.Module):
    """Gated perceptron (arXiv:2002.05202) with a norm before its last layer.

    Args:
        dim: channels of input and output.
        hidden: hidden width.
        norm_layer: builds a norm of so many channels.
    """

    def __init__(self, dim: int, hidden: int, norm_layer: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.w1 = nn.Linear(dim, hidden)
        self.w2 = nn.Linear(dim, hidden)
        self.ffn_ln = norm_layer(hidden)
        self.w3 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., dim) to the same shape."""
        return self.w3(self.ffn_ln(F.silu(self.w1(x)) * self.w2(x)))


class Attention(nn.Module):
    """Attention among all cells of a map, with queries and keys turned by their places.

    Args:
        dim: channels of the (N, H, W, C) map.
        num_heads: number of heads.
        qkv_bias: add biases to queries and values.
        rope: what turns queries and keys.
    """

    def __init__(
        self, dim: int, num_heads: int, qkv_bias: bool, rope: VisionRotaryEmbeddingFast
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q_proj = nn.Linear(dim, dim, bias=False)
        self.k_proj = nn.Linear(dim, dim, bias=False)
        self.v_proj = nn.Linear(dim, dim, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(dim)) if qkv_bias else None
        self.v_bias = nn.Parameter(torch.zeros(dim)) if qkv_bias else None
        self.rope = rope
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Float[Tensor, "n h w c"]) -> Float[Tensor, "n h w c"]:
        """Map (N, H, W, C) to the same shape."""
        size = x.shape[1:3]
        x = x.flatten(1, 2)
        projected = (
            F.linear(x, self.q_proj.weight, self.q_bias),
            self.k_proj(x),
            F.linear(x, self.v_proj.weight, self.v_bias),
        )
        q, k, v = (t.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for t in projected)
        q, k = (self.rope(t, *size).type_as(v) for t in (q, k))
        out = F.scaled_dot_product_attention(q, k, v)
        return self.proj(out.transpose(1, 2).flatten(2).unflatten(1, size))


class EVA02_ViT(PlainViT):  # noqa: N801 (the original's name)
    """EVA-02, with global attention in some blocks and attention within windows in the others.

    The one output is ``{out_feature: (N, embed_dim, H / patch_size, W / patch_size)}``, for images
    of any size: the table of positions is resampled, and rotary positions are computed for the grid
    at hand by the rule of `img_size`. The original took square images of `img_size` alone.

    Unlike in the original, too, zeros fill the last patches; there need be no windows;
    `size_divisibility` is published; attention is PyTorch's own with any `xattn`; and so is
    checkpointing.

    Arguments are those of `EVAViT`, but:

    Args:
        img_size: side of the images in pixels that the kept rotary tables are for.
        num_heads: number of heads; `embed_dim` is a multiple of four times as many.
        qkv_bias: add biases to queries and values.
        act_layer: of no influence, as in the original: perceptrons are gated by SiLU.
        use_rel_pos: of no influence, as in the original.
        rope: of no influence, as in the original: positions are always rotary.
        pt_hw_seq_len: side of the grid of tokens in pretraining.
        intp_freq: squeeze rotary positions, so that each side of any grid has the range of
            `pt_hw_seq_len`.
        xattn: of no influence.

    Raises:
        TypeError: a value is of another type.
        BackboneError: a value is out of its range.
    """

    def __init__(
        self,
        img_size: int = 1024,
        patch_size: int = 16,
        in_chans: int = 3,
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4 * 2 / 3,
        qkv_bias: bool = True,
        drop_path_rate: float = 0.0,
        norm_layer: Callable[[int], nn.Module] = _LAYER_NORM,
        act_layer: Callable[[], nn.Module] = nn.GELU,
        use_abs_pos: bool = True,
        use_rel_pos: bool = False,
        rope: bool = True,
        pt_hw_seq_len: int = 16,
        intp_freq: bool = True,
        window_size: int = 0,
        window_block_indexes: Sequence[int] = (),
        residual_block_indexes: Sequence[int] = (),
        use_act_checkpoint: bool = False,
        pretrain_img_size: int = 224,
        pretrain_use_cls_token: bool = True,
        out_feature: str = "last_feat",
        xattn: bool = True,
    ) -> None:
        check_vit("EVA02_ViT", locals(), head_multiple=4)
        check_integer("EVA02_ViT", "pt_hw_seq_len", pt_hw_seq_len, 1)
        if not rope:
            logger.warning("EVA02_ViT has rotary positions with rope=False as well")
        sides = {"rope_win": window_size, "rope_glb": img_size // patch_size}
        ropes = {
            name: VisionRotaryEmbeddingFast(
                embed_dim // num_heads // 2, pt_hw_seq_len, side if intp_freq else None
            )
            for name, side in sides.items()
            if side or not intp_freq
        }
        blocks = []
        for index, drop_path in enumerate(drop_path_rates(drop_path_rate, [depth])[0]):
            window = window_size if index in window_block_indexes else 0
            block = Block(
                embed_dim,
                Attention(
                    embed_dim, num_heads, qkv_bias, ropes["rope_win" if window else "rope_glb"]
                ),
                SwiGLU(embed_dim, int(embed_dim * mlp_ratio), norm_layer),
                norm_layer,
                drop_path,
                window,
                use_residual_block=index in residual_block_indexes,
            )
            blocks.append(block)
        super().__init__(
            blocks,
            patch_size,
            in_chans,
            embed_dim,
            use_abs_pos,
            pretrain_img_size,
            pretrain_use_cls_token,
            out_feature,
            use_act_checkpoint=use_act_checkpoint,
        )
        for name, embedding in ropes.items():
            self.add_module(name, embedding)
