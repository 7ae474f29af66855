import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.utils.events import EventStorage
from torch import nn

from detrex.errors import ConfigError
from detrex.layers import PositionEmbeddingSine
from detrex.modeling.backbone import BasicStem, ResNet
from detrex.modeling.dino import (
    DINO,
    DINOCriterion,
    DINOTransformer,
    DINOTransformerDecoder,
    DINOTransformerEncoder,
)
from detrex.modeling.dino.head import predict
from detrex.modeling.dino.inputs import PaddedImages
from detrex.modeling.matcher import HungarianMatcher
from detrex.modeling.neck import ChannelMapper
from tests.reference.detections import assert_same_detections
from tests.reference.tiny_dino import TinyBackbone, random_inputs, tiny_dino

TERMS = ("loss_class", "loss_bbox", "loss_giou")


class _PickyBackbone(TinyBackbone):
    """Refuses images whose sides are not multiples of a number."""

    def __init__(self, square=0, step=32, key="size_divisibility"):
        super().__init__()
        self.square, self.step, self.key = square, step, key
        self.seen = []

    @property
    def padding_constraints(self):
        return {self.key: self.step, "square_size": self.square}

    def forward(self, x):
        self.seen.append(tuple(x.shape))
        assert x.shape[2] % self.step == 0
        assert x.shape[3] % self.step == 0
        return super().forward(x)


def _assert_batched_equals_single(model, inputs):
    """In float64, where the choice of queries among near-equal scores is not left to rounding."""
    model.double().eval()
    with torch.no_grad():
        batched = model(inputs)
        for image, output in zip(inputs, batched, strict=True):
            (single,) = model([image])
            assert_same_detections(output["instances"], single["instances"])
            assert len(output["instances"]) > 0


@pytest.mark.parametrize("learnt", [False, True])
@pytest.mark.parametrize("levels", [1, 3, 5])
def test_forward__batched_equals_single(levels, learnt):
    model = tiny_dino(levels=levels, learnt_init_query=learnt)
    _assert_batched_equals_single(model, random_inputs([(97, 64), (64, 131), (97, 64), (40, 40)]))


@pytest.mark.parametrize("sizes", [None, [(64, 96), (40, 93)], [(3, 5), (64, 96)]])
def test_forward_tensors__equals_the_last_of_all_layers(sizes):
    """A query taken from padding, here those of the image of 3x5, has no score and no box."""
    model = tiny_dino(layers=3, queries=30).eval()
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        logits, boxes = model.forward_tensors(images, sizes)
        levels = model.batch_levels(PaddedImages(images, sizes))
        masks = levels.sizes.masks(torch.device("cpu"))
        positions = [model.position_embedding(mask) for mask in masks]
        hidden = model.transformer(levels.features, masks, positions)
        all_logits, all_boxes = predict(
            hidden.inter_states, hidden.layer_references, model.class_embed, model.bbox_embed
        )
    padding = hidden.query_padding
    assert padding.any() == (sizes is not None and (3, 5) in sizes)
    kept = ~padding
    torch.testing.assert_close(logits[kept], all_logits[-1][kept], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(boxes[kept], all_boxes[-1][kept], rtol=1e-5, atol=1e-5)
    assert (logits[padding] == float("-inf")).all()
    assert (boxes[padding] == 0).all()


class _OwnTransformer(DINOTransformer):
    """Of a user: it reads the masks."""

    def forward(self, feats, masks, positions, query_embed=(None, None), attn_masks=None):
        assert [mask.shape[-2:] for mask in masks] == [feat.shape[-2:] for feat in feats]
        return super().forward(feats, masks, positions, query_embed, attn_masks)


class _OwnDecoder(DINOTransformerDecoder):
    """Of a user: it gives all layers, and passes on what it does not know."""

    def forward(self, query, key, value, *, reference_points, valid_ratios, **kwargs):
        kwargs.pop("all_layers", None)
        given = {"reference_points": reference_points, "valid_ratios": valid_ratios}
        return super().forward(query, key, value, **given, **kwargs)


@pytest.mark.parametrize(
    ("part", "own"),
    [("transformer", _OwnTransformer), ("transformer.decoder", _OwnDecoder)],
)
def test_forward__takes_parts_with_a_forward_of_their_own(part, own):
    model = tiny_dino(layers=3).eval()
    inputs = random_inputs([(97, 64), (64, 131)])
    with torch.no_grad():
        expected = model(inputs)
        model.get_submodule(part).__class__ = own
        found = model(inputs)
    for output, other in zip(found, expected, strict=True):
        assert_same_detections(output["instances"], other["instances"])


def test_forward_tensors__after_inference_mode_gradients_are_there():
    model = tiny_dino().eval()
    with torch.inference_mode():
        expected = model.forward_tensors(torch.ones(1, 3, 64, 96))
    found = model.forward_tensors(torch.ones(1, 3, 64, 96))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    found[0].sum().backward()
    assert model.transformer.level_embeds.grad.isfinite().all()


def test_forward__batched_equals_single_when_an_image_has_fewer_tokens_than_queries():
    model = tiny_dino(queries=60)
    _assert_batched_equals_single(model, random_inputs([(33, 32), (128, 96), (5, 90)]))


@pytest.mark.parametrize("key", ["size_divisibility", "size_divisiblity"])
@pytest.mark.parametrize(
    ("step", "square", "padded"),
    [
        (32, 0, {(64, 32), (128, 128), (64, 64)}),
        (14, 0, {(42, 42), (140, 98), (70, 56)}),
        (224, 0, {(224, 224)}),
        (1, 161, {(161, 161)}),
        (14, 154, {(154, 154)}),
    ],
)
def test_forward__batched_equals_single_with_padding_constraints(step, square, padded, key):
    backbone = _PickyBackbone(square, step, key)
    model = tiny_dino(backbone=backbone, queries=60)
    _assert_batched_equals_single(model, random_inputs([(33, 32), (128, 97), (60, 50)]))
    assert {shape[2:] for shape in backbone.seen} == padded


@pytest.mark.parametrize(
    ("step", "square", "padded"),
    [(32, 0, (64, 128)), (14, 0, (70, 98)), (224, 0, (224, 224)), (14, 112, (112, 112))],
)
def test_forward__training_pads_all_images_together(step, square, padded):
    backbone = _PickyBackbone(square, step)
    losses = tiny_dino(backbone=backbone)(random_inputs([(33, 32), (60, 97)], [1, 2]))
    assert backbone.seen == [(2, 3, *padded)]
    assert all(loss.isfinite() for loss in losses.values())


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("step", "square"), [(14, 0), (224, 0), (14, 154)])
def test_extract_levels__masks_mark_the_cells_of_padding(step, square, training):
    sizes = [(33, 32), (61, 97)]
    model = tiny_dino(backbone=_PickyBackbone(square, step)).train(training)
    levels = model.extract_levels([torch.randn(3, *size) for size in sizes])
    masks = levels.sizes.masks(torch.device("cpu"))
    groups = [sizes] if training else [[size] for size in sizes]
    padded = [_by_definition(group, step, square) for group in groups for _ in group]
    for level, mask in enumerate(masks):
        rows, columns = mask.shape[1:]
        for image, ((height, width), (full_h, full_w)) in enumerate(
            zip(sizes, padded, strict=True)
        ):
            own = [-(-full_h // 2 ** (level + 3)), -(-full_w // 2 ** (level + 3))]
            for y in range(rows):
                for x in range(columns):
                    outside = y >= own[0] or x >= own[1]
                    expected = y * full_h // own[0] >= height or x * full_w // own[1] >= width
                    assert bool(mask[image, y, x]) == (outside or expected)


def _by_definition(sizes, step, square):
    """Padded height and width of images that are padded together."""
    return [square or -(-max(sides) // step) * step for sides in zip(*sizes, strict=True)]


def _expected_keys(layers, aux=True):
    suffixes = ["", "_enc", "_dn"]
    if aux:
        suffixes += [f"{s}_{i}" for s in ("", "_dn") for i in range(layers - 1)]
    return {term + suffix for term in TERMS for suffix in suffixes}


@pytest.mark.parametrize("aux_loss", [True, False])
@pytest.mark.parametrize("objects", [[2, 3], [0, 2], [0, 0]])
def test_forward__every_parameter_gets_a_gradient(objects, aux_loss):
    model = tiny_dino(layers=3, aux_loss=aux_loss).train()
    losses = model(random_inputs([(64, 96), (80, 64)], objects))
    assert losses.keys() == _expected_keys(3, aux_loss)
    assert all(loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    assert any(loss > 0 for name, loss in losses.items() if "_dn" in name) == any(objects)


def test_forward__more_queries_than_tokens_in_training():
    losses = tiny_dino(queries=500).train()(random_inputs([(32, 40)], [3]))
    assert all(loss.isfinite() for loss in losses.values())


@pytest.mark.parametrize("layers", [1, 2])
def test_forward__losses_without_denoising_queries(layers):
    model = tiny_dino(layers=layers, dn_number=0).train()
    losses = model(random_inputs([(64, 64)], [2]))
    assert losses.keys() == _expected_keys(layers)
    assert all((loss == 0) == ("_dn" in name) for name, loss in losses.items())


def test_forward__weights_multiply_the_losses():
    inputs = random_inputs([(64, 64)], [2])
    losses = []
    for weight in (1.0, 3.0):
        torch.manual_seed(0)
        model = tiny_dino().train()
        model.criterion.weight_dict = {"loss_bbox_0": weight}
        losses.append(model(inputs))
    factors = {name: (losses[1][name] / losses[0][name]).item() for name in losses[0]}
    assert factors.pop("loss_bbox_0") == pytest.approx(3)
    assert all(factor == pytest.approx(1) for factor in factors.values())


def test_forward__checkpointing_changes_no_loss_and_no_gradient():
    inputs = random_inputs([(64, 96), (80, 64)], [2, 3])
    results = []
    for use_checkpoint in (False, True):
        torch.manual_seed(0)
        model = tiny_dino(use_checkpoint=use_checkpoint).double().train()
        torch.manual_seed(1)
        losses = model(inputs)
        sum(losses.values()).backward()
        results.append((losses, {name: p.grad for name, p in model.named_parameters()}))
    torch.testing.assert_close(results[0], results[1], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("embed_dim", [16, 96])
def test_forward__any_embed_dim(embed_dim):
    model = tiny_dino(embed_dim=embed_dim)
    assert all(loss.isfinite() for loss in model.train()(random_inputs([(64, 64)], [2])).values())
    model.eval()(random_inputs([(64, 64)]))


@pytest.mark.parametrize("channels", [1, 5])
def test_forward__any_number_of_channels(channels):
    model = tiny_dino(
        backbone=TinyBackbone(in_channels=channels),
        pixel_mean=[100.0] * channels,
        pixel_std=[50.0] * channels,
    )
    (output,) = model.eval()(random_inputs([(64, 64)], channels=channels))
    assert len(output["instances"]) > 0


def test_forward__no_more_detections_than_pairs_of_query_and_class():
    model = tiny_dino(queries=4, num_classes=2, select_box_nums_for_evaluation=300).eval()
    (output,) = model(random_inputs([(64, 64)]))
    assert len(output["instances"]) <= 8


def test_forward__bfloat16_autocast():
    model = tiny_dino()
    with torch.autocast("cpu", torch.bfloat16):
        losses = model.train()(random_inputs([(64, 96), (80, 64)], [2, 3]))
        (output,) = model.eval()(random_inputs([(64, 96)]))
    sum(losses.values()).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())
    assert output["instances"].pred_boxes.tensor.dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_forward__follows_the_type_of_the_parameters(dtype):
    model = tiny_dino().to(dtype)
    assert model.pixel_mean.dtype == model.pixel_std.dtype == dtype
    losses = model.train()(random_inputs([(64, 96)], [2]))
    assert all(loss.isfinite() for loss in losses.values())
    (output,) = model.eval()(random_inputs([(64, 96)]))
    assert output["instances"].scores.dtype == torch.promote_types(dtype, torch.float32)


def test_init__keys_of_the_original():
    with torch.device("meta"):
        model = DINO(
            backbone=ResNet(
                BasicStem(3, 64, norm="FrozenBN"),
                ResNet.make_default_stages(depth=50, stride_in_1x1=False, norm="FrozenBN"),
                out_features=["res3", "res4", "res5"],
            ),
            position_embedding=PositionEmbeddingSine(128, normalize=True, offset=-0.5),
            neck=ChannelMapper(
                {f"res{i}": ShapeSpec(channels=2 ** (i + 6)) for i in (3, 4, 5)},
                ["res3", "res4", "res5"],
                out_channels=256,
                num_outs=4,
                kernel_size=1,
                norm_layer=nn.GroupNorm(32, 256),
            ),
            transformer=DINOTransformer(DINOTransformerEncoder(), DINOTransformerDecoder()),
            embed_dim=256,
            num_classes=80,
            num_queries=900,
            criterion=DINOCriterion(80, HungarianMatcher(2.0, 5.0, 2.0), dict.fromkeys(TERMS, 1)),
        )
    state = model.state_dict()
    assert len(state) == 634
    assert state["transformer.tgt_embed.weight"].shape == (900, 256)
    aliases = [name for name in state if name.startswith(("class_embed", "bbox_embed"))]
    assert len(aliases) == 7 * 2 + 7 * 6
    for name in aliases:
        assert state[f"transformer.decoder.{name}"] is not None
    assert model.transformer.decoder.class_embed is model.class_embed
    assert model.transformer.decoder.bbox_embed is model.bbox_embed
    assert len(model.criterion.weight_dict) == 3 * (1 + 1 + 1 + 5 + 5)


def test_init__pixel_statistics_are_buffers_outside_the_checkpoint():
    model = tiny_dino()
    assert not [name for name in model.state_dict() if "pixel" in name]
    assert model.to("meta").device == torch.device("meta")


def test_init__neck_without_bias():
    model = tiny_dino()
    for conv in [*model.neck.convs, *model.neck.extra_convs]:
        conv.conv.bias = None
    model.init_neck()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"num_queries": 7}, "num_queries is 7, transformer.two_stage_num_proposals is 11"),
        ({"pixel_std": [1.0]}, r"len\(pixel_mean\) is 3, len\(pixel_std\) is 1"),
        ({"backbone": TinyBackbone(channels=16)}, "but the backbone TinyBackbone gives"),
    ],
)
def test_init__parts_that_disagree(given, message):
    with pytest.raises(ConfigError, match=message):
        tiny_dino(**given)


def test_visualize_training__stores_a_picture_when_it_is_time():
    model = tiny_dino(vis_period=2).train()
    with EventStorage() as storage:
        for _ in range(3):
            model(random_inputs([(64, 96)], [2]))
            storage.step()
        assert [(picture.shape, step) for _, picture, step in storage._vis_data] == [
            ((3, 64, 192), 0),
            ((3, 64, 192), 2),
        ]
