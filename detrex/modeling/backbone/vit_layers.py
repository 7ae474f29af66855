"""What EVA and EVA-02 share: a plain vision transformer in the way of ViTDet (arXiv:2203.16527)."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.modeling.backbone import Backbone
from detectron2.modeling.backbone.vit import ResBottleneckBlock
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from detrex.errors import BackboneError
from detrex.modeling.pixel_statistics import IMAGENET, PixelStatistics

from .arguments import check_switches
from .staged import check_builder, check_integer, check_integers, check_number, init_weights
from .training.activation_checkpointing import checkpoint_blocks
from .training.freezing import KeepsFrozen
from .utils import PatchEmbed, get_abs_pos, window_partition, window_unpartition

_SWITCHES = (
    *("qkv_bias", "use_abs_pos", "use_rel_pos", "use_act_checkpoint", "pretrain_use_cls_token"),
    *("rel_pos_zero_init", "beit_like_qkv_bias", "beit_like_gamma", "freeze_patch_embed"),
    *("rope", "intp_freq", "xattn"),
)


class Block(nn.Module):
    """Attention and a perceptron, each added to its input, and at times a bottleneck after them.

    Args:
        dim: channels of the (N, H, W, C) map.
        attn: attention over such a map.
        mlp: perceptron.
        norm_layer: builds a norm of `dim` channels.
        drop_path: probability of leaving out a branch in training.
        window_size: side of the windows within which `attn` works; 0 for the whole map. Zeros fill
            the last windows.
        use_residual_block: put a bottleneck of convolutions after the perceptron.
        scaled: scale the channels of both branches, from 1.
        act_layer: activation of the bottleneck.
    """

    def __init__(
        self,
        dim: int,
        attn: nn.Module,
        mlp: nn.Module,
        norm_layer: Callable[[int], nn.Module],
        drop_path: float = 0.0,
        window_size: int = 0,
        use_residual_block: bool = False,
        scaled: bool = False,
        act_layer: Callable[[], nn.Module] = nn.GELU,
    ) -> None:
        super().__init__()
        self.norm1 = norm_layer(dim)
        self.attn = attn
        self.drop_path = StochasticDepth(drop_path, "row")
        self.norm2 = norm_layer(dim)
        self.mlp = mlp
        self.window_size = window_size
        self.gamma_1 = nn.Parameter(torch.ones(dim)) if scaled else None
        self.gamma_2 = nn.Parameter(torch.ones(dim)) if scaled else None
        self.residual = (
            ResBottleneckBlock(dim, dim, dim // 2, norm="LN", act_layer=act_layer)
            if use_residual_block
            else None
        )

    def forward(self, x: Float[Tensor, "n h w c"]) -> Float[Tensor, "n h w c"]:
        """Map (N, H, W, dim) to the same shape."""
        x = x + self.drop_path(_scale(self._attend(self.norm1(x)), self.gamma_1))
        x = x + self.drop_path(_scale(self.mlp(self.norm2(x)), self.gamma_2))
        if self.residual is not None:
            x = self.residual(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return x

    def _attend(self, x: Tensor) -> Tensor:
        if not self.window_size:
            return self.attn(x)
        windows, padded = window_partition(x, self.window_size)
        return window_unpartition(self.attn(windows), self.window_size, padded, x.shape[1:3])


class PlainViT(KeepsFrozen, Backbone):
    """Patch embedding, position table and blocks, for images of any size.

    The one output has the stride `patch_size` and ``ceil(side / patch_size)`` cells: zeros fill the
    last patches, and the position table is resampled to the grid of patches.

    Args:
        blocks: maps of ``(N, H, W, embed_dim)`` to the same shape.
        patch_size: side of a patch in pixels.
        in_chans: channels of the image.
        embed_dim: channels of a token.
        use_abs_pos: add a table of positions to the tokens.
        pretrain_img_size: side of the image in pixels that this table is for.
        pretrain_use_cls_token: whether the table begins with a class token's position.
        out_feature: name of the output.
        freeze_patch_embed: freeze the patch embedding for good.
        use_act_checkpoint: compute the activations of blocks again in the backward pass.

    Attributes:
        preprocess: ImageNet's statistics in RGB.
    """

    preprocess: PixelStatistics

    def __init__(
        self,
        blocks: Sequence[nn.Module],
        patch_size: int,
        in_chans: int,
        embed_dim: int,
        use_abs_pos: bool,
        pretrain_img_size: int,
        pretrain_use_cls_token: bool,
        out_feature: str,
        freeze_patch_embed: bool = False,
        use_act_checkpoint: bool = False,
    ) -> None:
        super().__init__()
        self.patch_size, self.pretrain_use_cls_token = patch_size, pretrain_use_cls_token
        self.pos_embed: nn.Parameter | None = None
        if use_abs_pos:
            tokens = (pretrain_img_size // patch_size) ** 2 + bool(pretrain_use_cls_token)
            self.pos_embed = nn.Parameter(torch.zeros(1, tokens, embed_dim))
            nn.init.trunc_normal_(self.pos_embed, std=0.02)
        sides = (patch_size, patch_size)
        self.patch_embed = PatchEmbed(sides, sides, in_chans=in_chans, embed_dim=embed_dim)
        self.blocks = nn.ModuleList(blocks)
        self.blocks.apply(init_weights)
        self.preprocess = IMAGENET.with_channels(in_chans)
        self._out_features = [out_feature]
        self._out_feature_channels = {out_feature: embed_dim}
        self._out_feature_strides = {out_feature: patch_size}
        if freeze_patch_embed:
            self.freeze_modules(["patch_embed"])
        if use_act_checkpoint:
            checkpoint_blocks(self)

    @property
    def size_divisibility(self) -> int:
        """Multiple of pixels to which images are best padded."""
        return self.patch_size

    def forward(self, x: Float[Tensor, "n c h w"]) -> dict[str, Float[Tensor, "n _ _ _"]]:
        """Map images ``(N, in_chans, H, W)`` to one ``(N, embed_dim, H / stride, W / stride)``."""
        height, width = x.shape[-2:]
        x = self.patch_embed(F.pad(x, (0, -width % self.patch_size, 0, -height % self.patch_size)))
        if self.pos_embed is not None:
            x = x + get_abs_pos(self.pos_embed, self.pretrain_use_cls_token, x.shape[1:3])
        for block in self.blocks:
            x = block(x)
        return {self._out_features[0]: x.permute(0, 3, 1, 2)}


def check_vit(who: str, given: Mapping[str, Any], head_multiple: int = 1) -> None:
    """Check what EVA and EVA-02 are built with.

    Args:
        who: name of the class.
        given: arguments of its constructor by name.
        head_multiple: what the channels of a head must be a multiple of.

    Raises:
        TypeError: a value is of another type.
        BackboneError: a value is out of its range.
    """
    check_switches(**{name: given[name] for name in _SWITCHES if name in given})
    for name in ("norm_layer", "act_layer"):
        check_builder(who, name, given[name])
    if not isinstance(given["out_feature"], str):
        raise TypeError(f"{who} takes a name as out_feature, got {given['out_feature']!r:.80}.")
    for name in ("patch_size", "in_chans", "embed_dim", "depth", "num_heads"):
        check_integer(who, name, given[name], 1)
    for name in ("img_size", "pretrain_img_size"):
        check_integer(who, name, given[name], given["patch_size"])
    check_integer(who, "window_size", given["window_size"], 0)
    check_number(who, "drop_path_rate", given["drop_path_rate"], 0, 1)
    check_number(who, "mlp_ratio", given["mlp_ratio"], 1 / given["embed_dim"])
    dim, heads, depth = given["embed_dim"], given["num_heads"], given["depth"]
    if dim % (heads * head_multiple):
        raise BackboneError(
            f"{who} takes an embed_dim that is a multiple of {heads * head_multiple} with {heads} "
            f"heads, got {dim}."
        )
    for name in ("window_block_indexes", "residual_block_indexes"):
        wrong = [i for i in check_integers(who, name, given[name]) if not 0 <= i < depth]
        if wrong:
            raise BackboneError(
                f"{who} has the blocks 0 to {depth - 1}, got {wrong!s:.80} in {name}."
            )


def _scale(x: Tensor, gamma: Tensor | None) -> Tensor:
    return x if gamma is None else gamma * x
