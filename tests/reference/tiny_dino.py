"""A DINO small enough that a test may build, train and evaluate it in a fraction of a second."""

from typing import Any

import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone import Backbone
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn

from detrex.layers import PositionEmbeddingSine
from detrex.modeling.dino import (
    DINO,
    DINOCriterion,
    DINOTransformer,
    DINOTransformerDecoder,
    DINOTransformerEncoder,
)
from detrex.modeling.matcher import HungarianMatcher
from detrex.modeling.neck import ChannelMapper

BASE_WEIGHTS = {"loss_class": 1.0, "loss_bbox": 5.0, "loss_giou": 2.0}


class TinyBackbone(Backbone):
    """Three strided convolutions with a bias, so that padding does not stay zero."""

    def __init__(self, channels: int = 8, in_channels: int = 3) -> None:
        super().__init__()
        self.stem = nn.Conv2d(in_channels, channels, 3, stride=4, padding=1)
        self.stages = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, stride=2, padding=1) for _ in range(3)
        )
        self._out_features = ["p3", "p4", "p5"]
        self._out_feature_channels = dict.fromkeys(self._out_features, channels)
        self._out_feature_strides = {"p3": 8, "p4": 16, "p5": 32}

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.stem(x).relu()
        outputs = {}
        for name, stage in zip(self._out_features, self.stages, strict=True):
            x = outputs[name] = stage(x).relu()
        return outputs


def tiny_transformer(
    embed_dim: int = 32, layers: int = 2, levels: int = 4, queries: int = 11, **kwargs: Any
) -> DINOTransformer:
    """A transformer without dropout; ``use_checkpoint`` is for both of its halves."""
    common: dict[str, Any] = {
        "embed_dim": embed_dim,
        "num_heads": 4,
        "feedforward_dim": 24,
        "attn_dropout": 0.0,
        "ffn_dropout": 0.0,
        "num_layers": layers,
        "num_feature_levels": levels,
        "use_checkpoint": kwargs.pop("use_checkpoint", False),
    }
    return DINOTransformer(
        encoder=DINOTransformerEncoder(**common),
        decoder=DINOTransformerDecoder(**common),
        num_feature_levels=levels,
        two_stage_num_proposals=queries,
        **kwargs,
    )


def tiny_dino(
    *,
    embed_dim: int = 32,
    layers: int = 2,
    levels: int = 4,
    queries: int = 11,
    num_classes: int = 5,
    use_checkpoint: bool = False,
    learnt_init_query: bool = True,
    two_stage_binary_cls: bool = False,
    backbone: Backbone | None = None,
    **kwargs: Any,
) -> DINO:
    """A detector on the CPU; keywords that are not named here go to :class:`DINO`."""
    backbone = backbone or TinyBackbone()
    names = ["p3", "p4", "p5"][: max(levels, 1)]
    options: dict[str, Any] = {
        "embed_dim": embed_dim,
        "num_classes": num_classes,
        "num_queries": queries,
        "device": "cpu",
        "dn_number": 6,
        **kwargs,
    }
    model = DINO(
        backbone=backbone,
        position_embedding=PositionEmbeddingSine(embed_dim // 2, normalize=True, offset=-0.5),
        neck=ChannelMapper(
            input_shapes={name: ShapeSpec(channels=8) for name in names},
            in_features=names,
            out_channels=embed_dim,
            num_outs=levels,
            kernel_size=1,
            norm_layer=nn.GroupNorm(4, embed_dim),
        ),
        transformer=tiny_transformer(
            embed_dim,
            layers,
            levels,
            queries,
            use_checkpoint=use_checkpoint,
            learnt_init_query=learnt_init_query,
        ),
        criterion=DINOCriterion(
            num_classes=num_classes,
            matcher=HungarianMatcher(2.0, 5.0, 2.0),
            weight_dict=dict(BASE_WEIGHTS),
            two_stage_binary_cls=two_stage_binary_cls,
        ),
        **options,
    )
    return randomize(model)


def randomize(model: DINO) -> DINO:
    """Draw the heads' weights, so that scores and boxes differ from query to query."""
    with torch.no_grad():
        for parameter in [*model.class_embed.parameters(), *model.bbox_embed.parameters()]:
            parameter.normal_(0, 0.3)
        for parameter in model.backbone.parameters():
            parameter.normal_(0, 0.2)
    return model


def random_inputs(
    sizes: list[tuple[int, int]],
    objects: list[int] | None = None,
    *,
    channels: int = 3,
    num_classes: int = 5,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Dataset dicts with noise for images and, where ``objects`` is given, random annotations."""
    generator = torch.Generator().manual_seed(seed)
    batch = []
    for index, (height, width) in enumerate(sizes):
        image = torch.rand(channels, height, width, generator=generator) * 255
        inputs: dict[str, Any] = {"image": image, "height": 2 * height, "width": 2 * width}
        if objects is not None:
            count = objects[index]
            corner = torch.rand(count, 2, generator=generator) * 0.5
            side = torch.rand(count, 2, generator=generator) * 0.4 + 0.1
            scale = torch.tensor([width, height, width, height])
            instances = Instances((height, width))
            instances.gt_boxes = Boxes(torch.cat([corner, corner + side], 1) * scale)
            instances.gt_classes = torch.randint(num_classes, (count,), generator=generator)
            inputs["instances"] = instances
        batch.append(inputs)
    return batch


SHAPES = [(11, 7), (5, 4), (3, 2), (2, 1), (1, 1)]
VALID = [SHAPES, [(8, 5), (4, 3), (2, 2), (1, 1), (1, 1)]]


def random_levels(
    levels: int = 5, channels: int = 32
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Features, masks and position embeddings of two images of ``VALID`` cells per level."""
    features, masks, positions = [], [], []
    for level, (h, w) in enumerate(SHAPES[:levels]):
        mask = torch.ones(2, h, w, dtype=torch.bool)
        for image in range(2):
            valid_h, valid_w = VALID[image][level]
            mask[image, :valid_h, :valid_w] = False
        features.append(torch.randn(2, channels, h, w))
        masks.append(mask)
        positions.append(torch.randn(2, channels, h, w))
    return features, masks, positions
