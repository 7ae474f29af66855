import pytest
import torch
import torchvision
from detectron2.layers import FrozenBatchNorm2d, ShapeSpec
from detectron2.modeling.backbone import resnet as d2
from torch.testing import assert_close

from detrex.errors import BackboneError
from detrex.modeling.backbone import (
    BasicBlock,
    BasicStem,
    BottleneckBlock,
    DeformBottleneckBlock,
    ResNet,
    ResNetBlockBase,
    make_stage,
)

SMALL = {"in_channels": 8, "out_channels": 16, "width_per_group": 4}


def small(depth=50, freeze_at=0, num_classes=None, out_features=None, norm="BN", **stage):
    stages = make_stage(depth=depth, norm=norm, **(SMALL | stage))
    return ResNet(BasicStem(3, 8, norm=norm), stages, num_classes, out_features, freeze_at)


def test_module__is_detectron2s_where_that_is_right():
    assert (BasicBlock, BasicStem, BottleneckBlock) == (
        d2.BasicBlock,
        d2.BasicStem,
        d2.BottleneckBlock,
    )
    assert issubclass(ResNet, d2.ResNet)
    assert issubclass(DeformBottleneckBlock, ResNetBlockBase)


@pytest.mark.parametrize("depth", [18, 50])
@pytest.mark.parametrize("make", ["make_stage", "make_default_stages"])
def test_resnet__equals_torchvision(depth, make):
    if make == "make_stage":
        stages = make_stage(depth, norm="BN", out_channels=64 if depth < 50 else 256)
    else:
        stages = ResNet.make_default_stages(depth, stride_in_1x1=False, norm="BN")
    ours = ResNet(BasicStem(norm="BN"), stages, num_classes=1000, out_features=["res4", "linear"])
    theirs = getattr(torchvision.models, f"resnet{depth}")()
    ours.load_state_dict(_from_torchvision(theirs.state_dict(), ours.state_dict()), strict=True)
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        assert_close(ours.eval()(image)["linear"], theirs.eval()(image), rtol=1e-4, atol=1e-5)


def _from_torchvision(state, wanted):
    """Names by hand: layerN -> res(N+1), bnK -> convK.norm, downsample -> shortcut."""
    renamed = {}
    for key, value in state.items():
        for index in range(1, 5):
            key = key.replace(f"layer{index}.", f"res{index + 1}.")
            key = key.replace(f"bn{index}.", f"conv{index}.norm.")
        key = key.replace("downsample.0.", "shortcut.").replace("downsample.1.", "shortcut.norm.")
        key = f"stem.{key}" if key.startswith("conv1") else key.replace("fc.", "linear.")
        renamed[key] = value
    assert renamed.keys() == wanted.keys()
    return renamed


@pytest.mark.parametrize("depth", [18, 34, 50, 101, 152])
def test_make_default_stages__has_every_depth(depth):
    with torch.device("meta"):
        stages = ResNet.make_default_stages(depth=depth, stride_in_1x1=False, norm="FrozenBN")
    convolutions = 2 if depth < 50 else 3
    assert sum(map(len, stages)) * convolutions + 2 == depth
    assert stages[3][-1].out_channels == (512 if depth < 50 else 2048)


@pytest.mark.parametrize("option", [{"num_groups": 32}, {"dilation": 2}])
def test_make_default_stages__refuses_what_basic_blocks_lack(option):
    with pytest.raises(BackboneError, match=r"made of basic blocks, for which .* must be 1"):
        ResNet.make_default_stages(18, **option)


def test_make_stage__dc5_keeps_stride_16():
    net = small(res5_dilation=2, out_features=["res4", "res5"])
    assert {n: s.stride for n, s in net.output_shape().items()} == {"res4": 16, "res5": 16}
    assert net.res5[0].conv2.dilation == (2, 2)


def test_make_stage__resnext_and_deformable():
    stages = make_stage(50, num_groups=2, deform_on_per_stage=[False, True, False, True], **SMALL)
    assert stages[0][0].conv2.groups == 2
    assert stages[0][0].conv2.out_channels == 8
    kinds = [{type(block) for block in stage} for stage in stages]
    assert kinds == [{BottleneckBlock}, {DeformBottleneckBlock}] * 2


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"depth": 51}, "standard depths 18, 34, 50, 101, 152, got 51"),
        ({"depth": 18}, "out_channels must be 64, got 256"),
        ({"depth": 34, "out_channels": 64, "res5_dilation": 2}, "res5_dilation must be 1, got 2"),
        ({"depth": 18, "out_channels": 64, "num_groups": 2}, "num_groups must be 1, got 2"),
        (
            {"depth": 18, "out_channels": 64, "deform_on_per_stage": [True] * 4},
            "deform_on_per_stage must be False",
        ),
        ({"res5_dilation": 4}, "res5_dilation 1 or 2"),
        ({"deform_on_per_stage": [True]}, "four values in deform_on_per_stage"),
    ],
)
def test_make_stage__explains_what_it_lacks(options, match):
    with pytest.raises(BackboneError, match=match):
        make_stage(**options)


def test_resnet__gives_a_shape_to_linear():
    net = small(num_classes=7)
    assert net.output_shape() == {"linear": ShapeSpec(channels=7)}
    assert net(torch.randn(2, 3, 32, 32))["linear"].shape == (2, 7)


@pytest.mark.parametrize("outs", [["linear"], ["res5", "linear", "stem"], ["stem"], "res3"])
def test_resnet__orders_any_choice_of_outputs(outs):
    net = small(num_classes=7, out_features=outs)
    order = ["stem", "res2", "res3", "res4", "res5", "linear"]
    expected = sorted([outs] if isinstance(outs, str) else outs, key=order.index)
    assert list(net.output_shape()) == expected
    assert list(net(torch.randn(2, 3, 32, 32))) == expected


def test_resnet__gives_the_stem_alone():
    net = small(out_features=["stem"])
    assert list(net(torch.randn(2, 3, 32, 32))) == ["stem"]
    assert not hasattr(net, "res2")


def test_resnet__leaves_out_later_stages():
    assert not hasattr(small(out_features=["res2", "res3"]), "res4")


@pytest.mark.parametrize("outs", [["res6"], []])
def test_resnet__names_its_outputs(outs):
    with pytest.raises(BackboneError, match="ResNet has the outputs stem, res2, res3, res4, res5"):
        small(out_features=outs)


@pytest.mark.parametrize("freeze_at", [-1, 0, 1, 3])
def test_freeze__counts_the_stem_first(freeze_at):
    net = small(freeze_at=freeze_at).train()
    frozen = ("stem", "res2", "res3")[: max(freeze_at, 0)]
    assert net.frozen_modules == frozen
    for name, child in net.named_children():
        assert all(p.requires_grad is (name not in frozen) for p in child.parameters())
        assert child.training is (name not in frozen)
    if frozen:
        assert isinstance(net.stem.conv1.norm, FrozenBatchNorm2d)


def test_weights__from_a_file_of_torchvision(tmp_path):
    network = torchvision.models.resnet18(weights=None)
    torch.save(network.state_dict(), tmp_path / "r18.pth")
    stages = make_stage(depth=18, out_channels=64)
    ours = ResNet(
        BasicStem(in_channels=4, norm="FrozenBN"),
        stages,
        out_features=["res5"],
        weights=tmp_path / "r18.pth",
    )
    assert torch.equal(ours.res3[0].conv1.weight, network.layer2[0].conv1.weight)
    kernel = network.conv1.weight[:, [0, 1, 2, 0]] * 3 / 4
    torch.testing.assert_close(ours.stem.conv1.weight, kernel, rtol=1e-6, atol=1e-7)
    assert len(ours.preprocess.pixel_mean) == 4
