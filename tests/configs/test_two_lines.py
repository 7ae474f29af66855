"""A config file of two lines beside its imports brings DINO another backbone, and it trains."""

import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.layers import ShapeSpec

from detrex.config import load_config
from detrex.config.config import configs_root
from detrex.engine.overrides import apply_overrides
from tests.configs.test_all_configs import SMALL_DETECTOR, batch

# By the name of the library's network: a line that imports, and a line that assigns.
BACKBONES = {
    "timm": (
        "from detrex.modeling.backbone import TimmBackbone",
        'L(TimmBackbone)(model_name="test_convnext", out_strides=(8, 16, 32))',
    ),
    "timm, plain": (
        "from detrex.modeling.backbone import TimmBackbone",
        'L(TimmBackbone)(model_name="test_vit", out_strides=(8, 16, 32))',
    ),
    "timm, by index": (
        "from detrex.modeling.backbone import TimmBackbone",
        'L(TimmBackbone)(model_name="test_resnet", out_indices=(2, 3, 4))',
    ),
    "torchvision": (
        "from detrex.modeling.backbone import TorchvisionBackbone",
        'L(TorchvisionBackbone)(model_name="mobilenet_v2", out_strides=(8, 16, 32))',
    ),
    "torchvision, by node": (
        "from detrex.modeling.backbone import TorchvisionBackbone",
        'L(TorchvisionBackbone)(model_name="resnet18", return_nodes={"layer3":"b", "layer2":"a"})',
    ),
    "ours": (
        "from detrex.modeling.backbone import BasicStem, ResNet",
        "L(ResNet)(stem=L(BasicStem)(), stages=L(ResNet.make_default_stages)(depth=18, norm='BN'), "
        'out_features=["res3", "res5"])',
    ),
}
BASE = "dino/models/dino_r50.py"


def _write(folder, line, assignment, base=BASE):
    path = folder / "mine.py"
    path.write_text(
        "from detectron2.config import LazyCall as L\n"
        "from detrex.config import get_config, swap_backbone\n"
        f"{line}\n"
        f"model = get_config({base!r}).model\n"
        f"{assignment}\n"
    )
    return load_config(path)


def _small(cfg, *overrides):
    small = [text for text in SMALL_DETECTOR if "num_pos_feats" not in text]
    # A norm needs two values, and the last level of these pictures is a single pixel.
    small.append("model.neck.norm_layer.num_groups=8")
    return instantiate(apply_overrides(cfg, [*small, "model.device=cpu", *overrides]).model)


def _train_a_step(model):
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    first = [next(part.parameters()) for part in (model.neck, model.transformer.enc_output)]
    before = [parameter.detach().clone() for parameter in first]
    losses = model.train()(batch())
    sum(losses.values()).backward()
    optimizer.step()
    assert all(loss.isfinite() for loss in losses.values())
    assert all(not torch.equal(a, b) for a, b in zip(before, first, strict=True))
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.backbone.parameters())
    with torch.no_grad():
        assert [len(result["instances"]) for result in model.eval()(batch())] == [10, 10]


@pytest.mark.parametrize("name", BACKBONES)
def test_two_lines__train(name, tmp_path):
    line, backbone = BACKBONES[name]
    model = _small(_write(tmp_path, line, f"model.backbone = {backbone}"))
    shapes = model.backbone.output_shape()
    assert model.neck.in_features == sorted(shapes, key=lambda n: shapes[n].stride)
    assert tuple(model.pixel_mean.flatten().tolist()) == pytest.approx(
        model.backbone.preprocess.pixel_mean
    )
    assert len(model.neck.convs) + len(model.neck.extra_convs) == 4
    assert model.position_embedding.num_pos_feats == 16
    _train_a_step(model)


@pytest.mark.parametrize("base", ["dino/dino_vitdet_base_4scale_12ep.py", "dino/demo_shapes.py"])
def test_two_lines__swap_where_things_were_written_by_hand(base, tmp_path):
    line, backbone = BACKBONES["timm"]
    cfg = _write(tmp_path, line, f"swap_backbone(model, {backbone})", base)
    cfg.train = {"device": "cpu"}
    overrides = ["model.position_embedding.num_pos_feats=16", "model.neck.num_outs=4"]
    model = _small(cfg, *overrides)
    assert model.neck.in_features == ["res3", "res4", "res5"]
    _train_a_step(model)


def test_two_lines__saved_as_yaml_builds_the_same_model(tmp_path):
    line, backbone = BACKBONES["timm"]
    cfg = _write(tmp_path, line, f"model.backbone = {backbone}")
    LazyConfig.save(cfg, str(tmp_path / "saved.yaml"))
    first, second = (_small(config) for config in (cfg, load_config(tmp_path / "saved.yaml")))
    assert _shapes(first) == _shapes(second)
    assert torch.equal(first.pixel_std, second.pixel_std)


def _shapes(model):
    return [(name, tensor.shape) for name, tensor in model.state_dict().items()]


@pytest.mark.parametrize(
    ("overrides", "levels", "maps"),
    [
        (["model.neck.num_outs=5"], 5, ["res3", "res4", "res5"]),
        (["model.neck.in_features=[res4,res5]"], 4, ["res4", "res5"]),
        (["model.pixel_mean=[1,2,3]", "model.pixel_std=[4,5,6]"], 4, ["res3", "res4", "res5"]),
    ],
)
def test_overrides__from_the_command_line_win(overrides, levels, maps, tmp_path):
    line, backbone = BACKBONES["timm"]
    model = _small(_write(tmp_path, line, f"model.backbone = {backbone}"), *overrides)
    assert (model.neck.num_outs, model.neck.in_features) == (levels, maps)
    by_hand = "pixel_mean" in overrides[0]
    expected = (1.0, 2.0, 3.0) if by_hand else model.backbone.preprocess.pixel_mean
    assert tuple(model.pixel_mean.flatten().tolist()) == pytest.approx(expected)


def test_hand_written_sizes__give_the_same_network():
    shapes = []
    for by_hand in (False, True):
        model = load_config(configs_root() / BASE).model
        if by_hand:
            channels = {f"res{i}": ShapeSpec(channels=2 ** (i + 6)) for i in (3, 4, 5)}
            model.neck.input_shapes, model.neck.in_features = channels, list(channels)
            model.position_embedding.num_pos_feats = 128
            model.pixel_mean, model.pixel_std = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
        with torch.device("meta"):
            shapes.append(_shapes(instantiate(model)))
    assert shapes[0] == shapes[1]
