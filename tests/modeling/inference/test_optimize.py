import copy
import logging

import pytest
import torch
from detectron2.config import instantiate
from detectron2.layers import FrozenBatchNorm2d, ShapeSpec
from detectron2.modeling.backbone import FPN, SwinTransformer, ViT
from torch import nn
from torch.testing import assert_close

from detrex.errors import BackboneError, ConfigError
from detrex.modeling import optimize_for_inference
from detrex.modeling.backbone import (
    BasicStem,
    ConvNeXt,
    ResNet,
    TimmBackbone,
    TorchvisionBackbone,
)
from detrex.modeling.inference.norm_folding import has_fixed_statistics
from detrex.modeling.inference.packed_weights import PackedWeight
from tests.modeling.inference.norms import draw_statistics
from tests.reference.detections import assert_same_detections
from tests.reference.tiny_detectors import DETECTORS, tiny_detector
from tests.reference.tiny_dino import random_inputs, tiny_dino


def _resnet(norm="FrozenBN"):
    stages = ResNet.make_default_stages(18, norm=norm)
    return ResNet(BasicStem(3, 64, norm=norm), stages, out_features=["res3", "res4", "res5"])


def _fpn():
    return FPN(_resnet("BN"), ["res3", "res4", "res5"], 16, norm="BN")


def _frozen():
    return TorchvisionBackbone("resnet18", norm_layer=FrozenBatchNorm2d)


BACKBONES = {  # and how many norms stay
    "detectron2's frozen norms": (_resnet, 0),
    "norms in detectron2's pyramid": (_fpn, 0),
    "torchvision's": (lambda: TorchvisionBackbone("resnet18"), 0),
    "torchvision's, frozen": (_frozen, 0),
    "timm's, fused activations": (lambda: TimmBackbone("efficientnet_b0", weights=None), 0),
    "timm's, frozen": (
        lambda: TimmBackbone("mobilenetv3_small_100", weights=None, norm_layer=FrozenBatchNorm2d),
        0,
    ),
    "timm's, norms first": (lambda: TimmBackbone("resnetv2_18", weights=None), 6),
    "no batch norm": (lambda: ConvNeXt(depths=[1, 1, 1, 1], dims=[8, 16, 24, 32]), 0),
    "windows": (
        lambda: SwinTransformer(embed_dim=12, depths=[1, 2, 1, 1], num_heads=[1, 2, 2, 4]),
        0,
    ),
    "tokens": (lambda: ViT(img_size=64, embed_dim=32, depth=2, num_heads=2, window_size=2), 0),
}


@pytest.mark.parametrize(("build", "left"), BACKBONES.values(), ids=BACKBONES)
def test_optimize_for_inference__keeps_a_backbones_maps(build, left):
    torch.manual_seed(0)
    backbone = draw_statistics(build())
    before = copy.deepcopy(backbone.state_dict())
    optimized = optimize_for_inference(backbone)
    assert type(optimized) is type(backbone)
    assert optimized.output_shape() == backbone.output_shape()
    for name in ("size_divisibility", "padding_constraints"):  # detectron2's Swin has neither
        assert getattr(optimized, name, None) == getattr(backbone, name, None)
    assert sum(has_fixed_statistics(module) for module in optimized.modules()) == left
    assert not any(parameter.requires_grad for parameter in optimized.parameters())
    assert backbone.training
    assert backbone.state_dict().keys() == before.keys()
    assert all(torch.equal(backbone.state_dict()[name], value) for name, value in before.items())
    assert not any(isinstance(parameter, PackedWeight) for parameter in backbone.parameters())
    backbone.eval()
    for size in ((64, 96), (128, 64)):
        x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            expected = backbone(x)
        maps = optimized(x)
        assert list(maps) == list(expected)
        for name, value in expected.items():
            assert_close(maps[name], value, rtol=0, atol=2e-5 * float(value.abs().max()), msg=name)


def _eval_inputs(name):
    sizes = [(96, 96), (96, 64)] if "vitdet" in name else [(96, 120), (64, 90)]
    return random_inputs(sizes, seed=1)


@pytest.mark.parametrize("name", [*DETECTORS, "dino"])
def test_optimize_for_inference__keeps_a_detectors_detections(name):
    torch.manual_seed(0)
    detector = tiny_dino() if name == "dino" else instantiate(tiny_detector(name))
    draw_statistics(detector.eval())
    with torch.no_grad():
        expected = detector(_eval_inputs(name))
    optimized = optimize_for_inference(detector)
    assert not any(has_fixed_statistics(module) for module in optimized.modules())
    for actual, wanted in zip(optimized(_eval_inputs(name)), expected, strict=True):
        assert len(wanted["instances"])
        assert_same_detections(actual["instances"], wanted["instances"])


def test_optimize_for_inference__keeps_heads_that_take_views():
    class BoxHead(nn.Module):
        output_shape = ShapeSpec(channels=3 * 49)

        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(64, 3, 1)

        def forward(self, regions):
            return self.conv(regions).view(len(regions), 3 * 49)

    torch.manual_seed(0)
    detector = instantiate(tiny_detector("mask_rcnn_fpn")).eval()
    outputs = detector.roi_heads.box_predictor
    detector.roi_heads.box_head = BoxHead()
    for name in ("cls_score", "bbox_pred"):
        setattr(outputs, name, nn.Linear(3 * 49, getattr(outputs, name).out_features))
    draws = torch.get_rng_state()
    optimized = optimize_for_inference(detector)
    assert torch.equal(torch.get_rng_state(), draws)
    assert len(optimized(_eval_inputs("mask_rcnn_fpn"))) == 2
    regions = torch.randn(5, 64, 7, 7)
    with torch.no_grad():
        expected = detector.roi_heads.box_head(regions)
    assert_close(optimized.roi_heads.box_head(regions), expected, rtol=1e-5, atol=1e-5)


def test_optimize_for_inference__shares_what_it_does_not_change():
    network = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))
    optimized = optimize_for_inference(network)
    pairs = zip(network.parameters(), optimized.parameters(), strict=True)
    assert all(a.data_ptr() == b.data_ptr() for a, b in pairs)
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_optimize_for_inference__cannot_be_trained():
    optimized = optimize_for_inference(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))
    optimized.eval()
    optimized.train(False)
    with pytest.raises(
        BackboneError, match=r"Sequential is a copy for evaluation .* train the one"
    ):
        optimized.train()
    with pytest.raises(BackboneError, match="copy for evaluation"):
        copy.deepcopy(optimized).train(True)


def test_optimize_for_inference__leaves_norms_where_it_is_told():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    assert isinstance(optimize_for_inference(network, fold_norms=False)[1], nn.BatchNorm2d)
    assert isinstance(optimize_for_inference(network)[1], nn.Identity)


def test_optimize_for_inference__keeps_a_second_copy_apart():
    """A copy of a copy calls itself, not what it was copied from."""
    first = optimize_for_inference(nn.Sequential(nn.Conv2d(3, 4, 1)))
    second = copy.deepcopy(first)
    x = torch.ones(1, 3, 5, 7)
    before = first(x)
    with torch.no_grad():
        second[0].weight.zero_()
        second[0].bias.zero_()
    second = copy.deepcopy(second)
    assert float(second(x).abs().max()) == 0
    assert_close(first(x), before, rtol=0, atol=0)


CHANNELS_LAST = {
    "dense": (nn.Conv2d(3, 8, 3), True, True),
    "not wanted": (nn.Conv2d(3, 8, 3), False, False),
    "grouped": (nn.Conv2d(4, 8, 3, groups=2), True, False),
    "linear": (nn.Sequential(nn.Conv2d(3, 2, 1), nn.Linear(320, 99)), True, False),
}


@pytest.mark.parametrize(
    ("network", "wanted", "is_last"), CHANNELS_LAST.values(), ids=CHANNELS_LAST
)
def test_optimize_for_inference__memory_format(network, wanted, is_last, caplog):
    with caplog.at_level(logging.INFO, "detrex"):
        optimize_for_inference(network, channels_last=wanted)
    assert f"channels {'last' if is_last else 'first'}" in caplog.text


def test_optimize_for_inference__half_precision_of_a_backbone():
    torch.manual_seed(0)
    backbone = draw_statistics(_resnet()).eval()
    optimized = optimize_for_inference(backbone, dtype="bfloat16")
    x = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        expected = backbone(x)
    maps = optimized(x)
    assert optimized.stem.conv1.weight.dtype == torch.bfloat16
    assert backbone.stem.conv1.weight.dtype == torch.float32
    for name, value in expected.items():
        assert maps[name].dtype == torch.float32
        error = float((maps[name] - value).norm() / value.norm())
        assert 1e-4 < error < 0.05


def test_optimize_for_inference__half_precision_of_a_detector():
    detector = tiny_dino().eval()
    optimized = optimize_for_inference(detector, dtype=torch.bfloat16)
    attention = optimized.transformer.encoder.layers[0].attentions[0]
    assert attention.value_proj.weight.dtype == torch.bfloat16
    assert attention.sampling_offsets.weight.dtype == torch.float32
    # The last layer's heads are called outside of the transformer too.
    assert optimized.bbox_embed[0].layers[0].weight.dtype == torch.float32
    seen = []
    attention.sampling_offsets.register_forward_hook(lambda *call: seen.append(call[-1].dtype))
    (found,) = optimized(random_inputs([(64, 90)]))
    assert seen == [torch.float32]
    assert found["instances"].scores.dtype == torch.float32
    assert found["instances"].pred_boxes.tensor.dtype == torch.float32


def _views():
    class Views(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x):
            return self.conv(x).view(len(x), -1)

    return Views()


def _reads_norm():
    class Reads(nn.Sequential):
        def forward(self, x):
            return super().forward(x).to(self[1].weight.dtype)

    return Reads(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))


def _weight_norm():
    network = nn.Sequential(nn.utils.spectral_norm(nn.Conv2d(3, 4, 3)), nn.BatchNorm2d(4))
    network(torch.randn(2, 3, 9, 8)).sum().backward()  # it keeps a tensor of this step
    return network


def _parametrized():
    conv = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3))
    return nn.Sequential(conv, nn.BatchNorm2d(4))


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("build", [_views, _reads_norm, _weight_norm, _parametrized])
def test_optimize_for_inference__keeps_forwards_of_other_kinds(build):
    torch.manual_seed(0)
    network = draw_statistics(build()).eval()
    x = torch.randn(2, 3, 17, 14)
    with torch.no_grad():
        expected = network(x)
    assert_close(optimize_for_inference(network)(x), expected, rtol=1e-5, atol=1e-5)


def test_optimize_for_inference__channels_first_where_it_is_asked_for():
    maps = optimize_for_inference(nn.Conv2d(3, 4, 3), channels_last=False)(torch.ones(2, 3, 9, 8))
    assert maps.is_contiguous()


def test_optimize_for_inference__exports():
    network = draw_statistics(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))).eval()
    x = torch.randn(2, 3, 9, 8)
    optimized = optimize_for_inference(network)
    height = torch.export.Dim("height", min=5, max=64)
    program = torch.export.export(optimized, (x,), dynamic_shapes={"input": {2: height}})
    other = torch.randn(2, 3, 12, 8)
    assert_close(program.module()(other), network(other), rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_optimize_for_inference__refuses_what_is_torchscript():
    network = torch.jit.script(nn.Sequential(nn.Conv2d(3, 4, 3)))
    with pytest.raises(TypeError, match="this one is TorchScript: give the module"):
        optimize_for_inference(network)


def test_optimize_for_inference__copies_of_what_is_compiled_call_themselves(monkeypatch):
    compiling = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, **kw: compiling(f, backend="eager", **kw))
    first = optimize_for_inference(nn.Sequential(nn.Conv2d(3, 4, 1)), compile=True)
    x = torch.ones(1, 3, 5, 7)
    first(x)
    second = copy.deepcopy(first)
    with torch.no_grad():
        second[0].weight.zero_()
        second[0].bias.zero_()
    assert float(second(x).abs().max()) == 0


def test_optimize_for_inference__refuses_what_is_no_module():
    with pytest.raises(TypeError, match="takes a module, got dict"):
        optimize_for_inference({})


@pytest.mark.parametrize("dtype", ["float32", torch.bfloat16])
def test_optimize_for_inference__dtype_of_weights_in_double(dtype):
    with pytest.raises(ConfigError, match=r"these are in float64: leave dtype out, or take model"):
        optimize_for_inference(nn.Linear(2, 2).double(), dtype=dtype)


def test_optimize_for_inference__without_a_compiler(monkeypatch):
    from torch._inductor import cpp_builder, exc

    def search():
        raise exc.InvalidCxxCompiler

    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", search)
    with pytest.raises(ConfigError, match=r"needs a C\+\+ compiler .* or leave compile out"):
        optimize_for_inference(nn.Linear(2, 2), compile=True)


def test_optimize_for_inference__compiles_for_one_size_and_for_any(monkeypatch):
    graphs = []

    def backend(graph, _):
        graphs.append(torch._inductor.config.freezing)
        return graph

    compiling = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, **kw: compiling(f, backend=backend, **kw))
    network = draw_statistics(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    ).eval()
    optimized = optimize_for_inference(network, compile=True)
    for size in ((9, 11), (12, 8), (21, 15), (9, 11), (31, 19)):
        x = torch.randn(2, 3, *size)
        assert_close(optimized(x), network(x), rtol=1e-5, atol=1e-5)
    assert graphs == [True, True]


@pytest.mark.slow
def test_optimize_for_inference__compiled():
    network = draw_statistics(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    ).eval()
    optimized = optimize_for_inference(network, compile=True)
    for size in ((9, 11), (12, 8)):
        x = torch.randn(2, 3, *size)
        assert_close(optimized(x), network(x), rtol=1e-5, atol=1e-5)
