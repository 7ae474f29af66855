import pytest
import torch
import torchvision
from detectron2.modeling.backbone import Backbone
from torch.testing import assert_close

from detrex.errors import BackboneError
from detrex.modeling.backbone.torchvision_resnet import FrozenBatchNorm2d, TorchvisionResNet


def test_forward__equals_plain_torchvision():
    backbone = TorchvisionResNet("resnet18", True, {"layer4": "res5", "layer1": "res2"})
    plain = torchvision.models.resnet18(norm_layer=FrozenBatchNorm2d)
    plain.load_state_dict(backbone.body.state_dict(), strict=False)
    image = torch.randn(2, 3, 64, 96)
    x = plain.layer1(plain.maxpool(plain.relu(plain.bn1(plain.conv1(image)))))
    outputs = backbone(image)
    assert list(outputs) == list(backbone.output_shape()) == ["res2", "res5"]
    assert_close(outputs["res2"], x, rtol=0, atol=0)
    assert_close(outputs["res5"], plain.layer4(plain.layer3(plain.layer2(x))), rtol=0, atol=0)


def test_state_dict__has_the_keys_of_the_original():
    backbone = TorchvisionResNet("resnet18", True)
    keys = backbone.state_dict().keys()
    assert isinstance(backbone, Backbone)
    assert {"body.conv1.weight", "body.bn1.running_var", "body.layer4.1.bn2.bias"} <= set(keys)
    assert not any("num_batches_tracked" in key or "fc" in key for key in keys)
    live = {f"body.{k}": v for k, v in torchvision.models.resnet18().state_dict().items()}
    backbone.load_state_dict({k: v for k, v in live.items() if ".fc." not in k}, strict=True)


@pytest.mark.parametrize(
    ("train_backbone", "frozen"),
    [(True, {"conv1", "layer1"}), (False, {"conv1", "layer1", "layer2", "layer3", "layer4"})],
)
def test_train_backbone__trains_layers_2_to_4(train_backbone, frozen):
    backbone = TorchvisionResNet("resnet18", train_backbone).train()
    found = {n.split(".")[1] for n, p in backbone.named_parameters() if not p.requires_grad}
    assert found == frozen
    assert backbone.body.layer4.training is train_backbone
    assert not backbone.body.layer1.training


@pytest.mark.parametrize(("name", "channels"), [("resnet34", 512), ("resnet50", 2048)])
def test_output_shape__channels(name, channels):
    with torch.device("meta"):
        backbone = TorchvisionResNet(name, False, {f"layer{i}": f"c{i}" for i in range(1, 5)})
    assert backbone.num_channels == channels
    found = [(s.channels, s.stride) for s in backbone.output_shape().values()]
    assert found == [(channels >> (4 - i), 2 ** (i + 1)) for i in range(1, 5)]


def test_out_features__are_the_layers_of_detectron2s_names():
    with torch.device("meta"):
        backbone = TorchvisionResNet("resnet18", False, out_features=["stem", "res2", "res5"])
        outputs = backbone(torch.empty(1, 3, 64, 96))
    assert list(outputs) == ["stem", "res2", "res5"]
    for name, spec in backbone.output_shape().items():
        assert outputs[name].shape == (1, spec.channels, 64 // spec.stride, 96 // spec.stride)


def test_dilation__keeps_stride_16():
    backbone = TorchvisionResNet("resnet50", False, dilation=True)
    assert backbone.output_shape()["res5"].stride == 16
    assert backbone(torch.randn(1, 3, 32, 64))["res5"].shape == (1, 2048, 2, 4)


def test_weights__from_a_file(tmp_path):
    plain = torchvision.models.resnet18()
    torch.save(plain.state_dict(), tmp_path / "weights.pth")
    backbone = TorchvisionResNet("resnet18", True, weights=tmp_path / "weights.pth")
    assert_close(backbone.body.layer3[0].conv1.weight, plain.layer3[0].conv1.weight)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"name": "mobilenet_v2"}, "takes a ResNet such as 'resnet50', got 'mobilenet_v2'"),
        ({"name": "resnet81"}, "no classifier named 'resnet81'"),
        ({"name": "resnet18", "dilation": True}, "basic blocks, which cannot be dilated"),
        ({"name": "resnet18", "return_layers": {"layr4": "x"}}, "'layr4' .*Did you mean 'layer4'"),
        ({"name": "resnet18", "return_layers": {}}, "return_layers is empty"),
        ({"name": "resnet18", "out_features": ["re5"]}, "levels stem, res2.*Did you mean 'res5'"),
        (
            {"name": "resnet18", "out_features": ["res5"], "return_layers": {"layer4": "a"}},
            "leave one of them out",
        ),
    ],
)
def test_constructor__explains_what_will_not_do(options, match):
    with pytest.raises(BackboneError, match=match):
        TorchvisionResNet(train_backbone=True, **options)


def test_in_channels__adapts_pretrained_kernels(tmp_path):
    network = torchvision.models.resnet18(weights=None)
    torch.save(network.state_dict(), tmp_path / "r18.pth")
    ours = TorchvisionResNet("resnet18", True, weights=tmp_path / "r18.pth", in_channels=1)
    kernel = network.conv1.weight.sum(1, keepdim=True)
    torch.testing.assert_close(ours.body.conv1.weight, kernel, rtol=1e-6, atol=1e-7)
    assert ours(torch.randn(2, 1, 64, 96))["res5"].shape == (2, 512, 2, 3)
    assert len(ours.preprocess.pixel_mean) == 1
