"""EVA (arXiv:2211.07636): a plain vision transformer with relative positions, as ViTDet runs it."""

from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from detrex.errors import BackboneError, did_you_mean
from detrex.utils.misc import at_least_float32

from .simple_feature_pyramid import SimpleFeaturePyramid, get_vit_lr_decay_rate
from .staged import drop_path_rates
from .utils import decomposed_rel_pos
from .vit_layers import Block, PlainViT, check_vit

__all__ = ["EVAViT", "SimpleFeaturePyramid", "get_vit_lr_decay_rate"]

_INTERP_TYPES = ("vitdet", "beit")


class LayerNormWithForceFP32(nn.LayerNorm):
    """Layer norm that is computed in float32 at least, whatever the precision of its input."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalise over the channels; shape and dtype stay."""
        given = (input, self.weight, self.bias)
        x, weight, bias = (None if t is None else at_least_float32(t) for t in given)
        return F.layer_norm(x, self.normalized_shape, weight, bias, self.eps).type_as(input)


class Attention(nn.Module):
    """Attention among all cells of a map, with a bias by their relative position.

    Args:
        dim: channels of the (N, H, W, C) map.
        num_heads: number of heads.
        qkv_bias: add biases to queries, keys and values; without effect beside the next one.
        beit_like_qkv_bias: add biases to queries and values alone.
        use_rel_pos: add the bias by relative position to the logits.
        rel_pos_zero_init: start from tables of zeros.
        input_size: side of the maps that the tables are for; they are resampled for others.
        interp_type: how; see `get_rel_pos`.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        qkv_bias: bool,
        beit_like_qkv_bias: bool,
        use_rel_pos: bool,
        rel_pos_zero_init: bool,
        input_size: int,
        interp_type: str,
    ) -> None:
        super().__init__()
        self.num_heads, self.use_rel_pos, self.interp_type = num_heads, use_rel_pos, interp_type
        self.beit_like_qkv_bias = beit_like_qkv_bias
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias and not beit_like_qkv_bias)
        self.proj = nn.Linear(dim, dim)
        if beit_like_qkv_bias:
            self.q_bias = nn.Parameter(torch.zeros(dim))
            self.v_bias = nn.Parameter(torch.zeros(dim))
        if use_rel_pos:
            shape = (2 * input_size - 1, dim // num_heads)
            self.rel_pos_h = nn.Parameter(torch.zeros(shape))
            self.rel_pos_w = nn.Parameter(torch.zeros(shape))
            if not rel_pos_zero_init:
                nn.init.trunc_normal_(self.rel_pos_h, std=0.02)
                nn.init.trunc_normal_(self.rel_pos_w, std=0.02)

    def forward(self, x: Float[Tensor, "n h w c"]) -> Float[Tensor, "n h w c"]:
        """Map (N, H, W, C) to the same shape."""
        size = x.shape[1:3]
        bias: Tensor | None = self.qkv.bias
        if self.beit_like_qkv_bias:
            bias = torch.cat([self.q_bias, torch.zeros_like(self.v_bias), self.v_bias])
        qkv = F.linear(x, self.qkv.weight, bias).flatten(1, 2)
        q, k, v = qkv.unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        by_place = None
        if self.use_rel_pos:
            tables = (self.rel_pos_h, self.rel_pos_w)
            by_place = decomposed_rel_pos(q.flatten(0, 1), *tables, size, size, self.interp_type)
            by_place = by_place.unflatten(0, q.shape[:2])
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=by_place)
        return self.proj(out.transpose(1, 2).flatten(2).unflatten(1, size))


class EVAViT(PlainViT):
    """EVA, with global attention in some blocks and attention within windows in the others.

    The one output is ``{out_feature: (N, embed_dim, H / patch_size, W / patch_size)}``, for images
    of any size; tables of positions are resampled.

    Unlike in the original, zeros fill the last patches, where it left the border out; relative
    positions learn through ``interp_type="beit"`` as well; the frozen patch embedding stays in
    evaluation mode; `size_divisibility` is published; and checkpointing is PyTorch's.

    Args:
        img_size: side of the images in pixels that tables of relative positions are for.
        patch_size: side of a patch in pixels.
        in_chans: channels of the image.
        embed_dim: channels of a token.
        depth: number of blocks.
        num_heads: number of heads, which divides `embed_dim`.
        mlp_ratio: hidden width of the perceptrons, in `embed_dim`.
        qkv_bias: add biases to queries, keys and values; without effect beside
            `beit_like_qkv_bias`.
        drop_path_rate: probability of leaving out the last block in training; it rises linearly
            from 0 at the first.
        norm_layer: builds a norm of so many channels.
        act_layer: builds an activation.
        use_abs_pos: add a table of positions to the tokens.
        use_rel_pos: add a bias by relative position to the attention.
        rel_pos_zero_init: start the bias from zero.
        window_size: side of the windows in tokens; 0 for none.
        window_block_indexes: blocks that attend within windows.
        residual_block_indexes: blocks that end with a bottleneck of convolutions.
        use_act_checkpoint: compute the activations of blocks again in the backward pass.
        pretrain_img_size: side of the image in pixels that the table of positions is for.
        pretrain_use_cls_token: whether that table begins with a class token's position.
        out_feature: name of the output.
        beit_like_qkv_bias: add biases to queries and values alone.
        beit_like_gamma: scale the channels of each branch.
        freeze_patch_embed: freeze the patch embedding for good.
        interp_type: how relative positions are resampled, ``"vitdet"`` (linear) or ``"beit"``.

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
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        drop_path_rate: float = 0.0,
        norm_layer: Callable[[int], nn.Module] = LayerNormWithForceFP32,
        act_layer: Callable[[], nn.Module] = nn.GELU,
        use_abs_pos: bool = True,
        use_rel_pos: bool = False,
        rel_pos_zero_init: bool = True,
        window_size: int = 0,
        window_block_indexes: Sequence[int] = (),
        residual_block_indexes: Sequence[int] = (),
        use_act_checkpoint: bool = False,
        pretrain_img_size: int = 224,
        pretrain_use_cls_token: bool = True,
        out_feature: str = "last_feat",
        beit_like_qkv_bias: bool = True,
        beit_like_gamma: bool = False,
        freeze_patch_embed: bool = False,
        interp_type: str = "vitdet",
    ) -> None:
        if interp_type not in _INTERP_TYPES:
            raise BackboneError(
                f"EVAViT takes 'vitdet' or 'beit' as interp_type, got {interp_type!r:.80}."
                f"{did_you_mean(interp_type, _INTERP_TYPES)}"
            )
        check_vit("EVAViT", locals())
        blocks = []
        for index, drop_path in enumerate(drop_path_rates(drop_path_rate, [depth])[0]):
            window = window_size if index in window_block_indexes else 0
            attention = Attention(
                embed_dim,
                num_heads,
                qkv_bias,
                beit_like_qkv_bias,
                use_rel_pos,
                rel_pos_zero_init,
                window or img_size // patch_size,
                interp_type,
            )
            block = Block(
                embed_dim,
                attention,
                _perceptron(embed_dim, mlp_ratio, act_layer),
                norm_layer,
                drop_path,
                window,
                use_residual_block=index in residual_block_indexes,
                scaled=beit_like_gamma,
                act_layer=act_layer,
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
            freeze_patch_embed,
            use_act_checkpoint,
        )


def _perceptron(dim: int, mlp_ratio: float, act_layer: Callable[[], nn.Module]) -> nn.Module:
    hidden = int(dim * mlp_ratio)
    layers = {"fc1": nn.Linear(dim, hidden), "act": act_layer(), "fc2": nn.Linear(hidden, dim)}
    return nn.Sequential(OrderedDict(layers))
