import pytest
import torch
import torchvision
from detectron2.layers import FrozenBatchNorm2d
from torch.nn.modules.batchnorm import _BatchNorm
from torch.testing import assert_close
from torchvision.models.feature_extraction import create_feature_extractor

from detrex.errors import BackboneError
from detrex.modeling.backbone import TorchvisionBackbone

IMAGE = (2, 3, 64, 96)


def test_forward__equals_plain_torchvision():
    plain = torchvision.models.resnet18().eval()
    backbone = TorchvisionBackbone("resnet18", return_nodes={"layer4": "res5", "layer2": "res3"})
    backbone.feature_extractor.load_state_dict(
        {k: v for k, v in plain.state_dict().items() if not k.startswith("fc.")}, strict=True
    )
    image = torch.randn(IMAGE)
    x = plain.maxpool(plain.relu(plain.bn1(plain.conv1(image))))
    expected = {"res3": plain.layer2(plain.layer1(x))}
    expected["res5"] = plain.layer4(plain.layer3(expected["res3"]))
    outputs = backbone.eval()(image)
    assert list(outputs) == list(backbone.output_shape()) == ["res3", "res5"]
    for name in outputs:
        assert_close(outputs[name], expected[name], rtol=0, atol=0)


def test_return_nodes__default_gives_the_four_stages():
    shapes = TorchvisionBackbone("resnet18").output_shape()
    expected = {"res2": (64, 4), "res3": (128, 8), "res4": (256, 16), "res5": (512, 32)}
    assert {name: (s.channels, s.stride) for name, s in shapes.items()} == expected


def test_return_nodes__lays_tokens_on_their_grid():
    nodes = {"encoder.layers.encoder_layer_3": "p4", "conv_proj": "stem"}
    with torch.device("meta"):
        backbone = TorchvisionBackbone("vit_b_16", return_nodes=nodes, image_size=64)
        raw = backbone.feature_extractor(torch.empty(2, 3, 64, 64))
        outputs = backbone(torch.empty(2, 3, 64, 64))
    assert raw["p4"].shape == (2, 17, 768)
    assert outputs["p4"].shape == outputs["stem"].shape == (2, 768, 4, 4)
    assert [spec.stride for spec in backbone.output_shape().values()] == [16, 16]


@pytest.mark.parametrize(
    ("nodes", "match"),
    [
        ({"layr2": "a"}, r"has no node 'layr2'\. Did you mean 'layer2'.*get_graph_node_names"),
        ({"zzzzzz": "a"}, "has no node 'zzzzzz'. Its outermost nodes are x, conv1, bn1"),
        ({"avgpool": "a"}, "whatever the size of the image"),
        ({"flatten": "a"}, "which is no feature map: choose a node before the pooling"),
        ({}, "must name at least one output"),
        ({"layer1": "a", "layer2": "a"}, "each output once"),
    ],
)
def test_return_nodes__explains_what_will_not_do(nodes, match):
    with pytest.raises(BackboneError, match=match):
        TorchvisionBackbone("resnet18", return_nodes=nodes)


def test_return_nodes__by_mode():
    backbone = TorchvisionBackbone(
        "resnet18", train_return_nodes={"layer1": "a"}, eval_return_nodes={"layer1.1.bn2": "a"}
    )
    assert list(backbone.train()(torch.randn(IMAGE))) == ["a"]
    assert list(backbone.eval()(torch.randn(IMAGE))) == ["a"]
    assert backbone.output_shape()["a"].stride == 4


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"train_return_nodes": ["layer1"]}, "belong together"),
        (
            {"train_return_nodes": ["layer1"], "eval_return_nodes": ["layer2"]},
            "must give the same output names",
        ),
        (
            {"train_return_nodes": {"layer1": "a"}, "eval_return_nodes": {"layer2": "a"}},
            "maps of equal channels and strides",
        ),
        (
            {
                "return_nodes": ["layer1"],
                "train_return_nodes": ["layer1"],
                "eval_return_nodes": ["layer1"],
            },
            "leave one kind out",
        ),
    ],
)
def test_return_nodes__by_mode_must_agree(options, match):
    with pytest.raises(BackboneError, match=match):
        TorchvisionBackbone("resnet18", **options)


@pytest.mark.parametrize("norm", [FrozenBatchNorm2d, torchvision.ops.FrozenBatchNorm2d, "FrozenBN"])
def test_norm_layer__frozen_equals_evaluation(norm, tmp_path):
    plain = torchvision.models.mobilenet_v2().eval()
    for module in plain.modules():
        if isinstance(module, _BatchNorm):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
    torch.save(plain.state_dict(), tmp_path / "weights.pth")
    backbone = TorchvisionBackbone(
        "mobilenet_v2",
        weights=str(tmp_path / "weights.pth"),
        return_nodes=["features.6"],
        norm_layer=norm,
    )
    assert not any(isinstance(module, _BatchNorm) for module in backbone.modules())
    image = torch.randn(IMAGE)
    expected = create_feature_extractor(plain, ["features.6"])(image)["features.6"]
    assert_close(backbone.train()(image)["features.6"], expected, rtol=1e-4, atol=1e-5)


def test_load_state_dict__takes_checkpoints_of_the_original():
    backbone = TorchvisionBackbone("resnet18", return_nodes=["layer2"])
    part = {
        k: torch.randn_like(v.float()) for k, v in backbone.feature_extractor.state_dict().items()
    }
    whole = part | {"fc.weight": torch.zeros(3, 5), "layer3.0.conv1.weight": torch.zeros(3)}
    old = {f"model.{k}": v for k, v in whole.items()}
    backbone.load_state_dict(old, strict=True)
    assert_close(backbone.feature_extractor.state_dict()["conv1.weight"], part["conv1.weight"])
    backbone.load_state_dict(old | {f"feature_extractor.{k}": v for k, v in part.items()})
    holder = torch.nn.ModuleDict({"backbone": backbone})
    holder.load_state_dict({f"backbone.{k}": v for k, v in old.items()}, strict=True)
    del old["model.conv1.weight"]
    with pytest.raises(RuntimeError, match=r"Missing key.*feature_extractor\.conv1\.weight"):
        backbone.load_state_dict(old, strict=True)


def test_freeze_at__freezes_the_first_blocks():
    backbone = TorchvisionBackbone(
        "mobilenet_v2", return_nodes=["features.6", "features.13"], freeze_at=3
    ).train()
    frozen = {f"feature_extractor.features.{index}" for index in range(7)}
    assert set(backbone.frozen_modules) == frozen
    trained = {n.rsplit(".", 3)[0] for n, p in backbone.named_parameters() if p.requires_grad}
    assert not any(name.startswith(tuple(f"{f}." for f in frozen)) for name in trained)
    assert backbone.get_submodule("feature_extractor.features.7.conv.0.1").training
    assert not backbone.get_submodule("feature_extractor.features.6.conv.0.1").training


def test_get_graph_node_names__lists_both_modes():
    train, evaluation = TorchvisionBackbone.get_graph_node_names("resnet18")
    assert "layer2.0.conv1" in train
    assert train[-1] == evaluation[-1] == "fc"
