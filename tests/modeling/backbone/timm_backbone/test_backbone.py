import sys

import pytest
import torch
import torchvision
from detectron2.layers import FrozenBatchNorm2d
from safetensors.torch import save_file
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.testing import assert_close

from detrex.errors import BackboneError, CheckpointError, DownloadError
from detrex.modeling.backbone import TimmBackbone

timm = pytest.importorskip("timm")

IMAGE = (2, 3, 64, 96)


def randomise(network):
    for name, tensor in network.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 2)
        elif tensor.dim() == 1:
            tensor.normal_(0.5, 0.2)
    return network


@pytest.mark.parametrize(
    "name", ["test_resnet", "test_convnext", "test_mambaout", "test_efficientnet"]
)
def test_forward__equals_plain_timm(name):
    plain = timm.create_model(name, features_only=True, out_indices=(1, 2)).eval()
    backbone = TimmBackbone(name, out_indices=(2, 1)).eval()
    backbone.timm_model.load_state_dict(plain.state_dict(), strict=True)
    image = torch.randn(IMAGE)
    p1, p2 = plain(image)
    if name == "test_mambaout":
        p1, p2 = p1.permute(0, 3, 1, 2), p2.permute(0, 3, 1, 2)
    outputs = backbone(image)
    assert list(outputs) == ["p2", "p1"]
    assert_close(outputs["p1"], p1, rtol=0, atol=0)
    assert_close(outputs["p2"], p2, rtol=0, atol=0)


def test_out_indices__unsorted_and_negative_keep_their_names():
    backbone = TimmBackbone("test_resnet", out_indices=(3, -1, 1))
    shapes = backbone.output_shape()
    assert backbone.out_indices == (3, -1, 1)
    assert {n: s.stride for n, s in shapes.items()} == {"p3": 16, "p-1": 32, "p1": 4}
    for name, output in backbone(torch.randn(IMAGE)).items():
        assert output.shape[1:] == (
            shapes[name].channels,
            64 // shapes[name].stride,
            96 // shapes[name].stride,
        )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("test_resnet", ["p0", "p1", "p2", "p3"]),
        ("levit_128s", ["p0", "p1", "p2"]),
        ("test_vit", ["p0", "p2", "p3", "p5"]),
    ],
)
def test_out_indices__left_out(name, expected):
    with torch.device("meta"):
        assert list(TimmBackbone(name).output_shape()) == expected


def test_out_indices__given_as_the_first_four_are_the_first_four():
    with torch.device("meta"):
        assert list(TimmBackbone("test_vit", out_indices=[0, 1, 2, 3]).output_shape())[1] == "p1"


@pytest.mark.parametrize("indices", [(5,), (-6, 1)])
def test_out_indices__names_what_there_is(indices):
    with pytest.raises(
        BackboneError, match=r"'test_resnet' has the feature indices 0 \(stride 2\)"
    ):
        TimmBackbone("test_resnet", out_indices=indices)


@pytest.mark.parametrize("norm", [FrozenBatchNorm2d, torchvision.ops.FrozenBatchNorm2d, "FrozenBN"])
@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet"])
def test_norm_layer__frozen_equals_evaluation_with_the_files_statistics(name, norm, tmp_path):
    plain = randomise(timm.create_model(name)).eval()
    torch.save(plain.state_dict(), tmp_path / "weights.pth")
    backbone = TimmBackbone(
        name, checkpoint_path=tmp_path / "weights.pth", out_indices=(-1,), norm_layer=norm
    )
    assert not any(isinstance(module, _BatchNorm) for module in backbone.modules())
    image = torch.randn(IMAGE)
    expected = plain.forward_intermediates(image, indices=[4], intermediates_only=True)[0]
    for mode in (True, False):
        assert_close(backbone.train(mode)(image)["p-1"], expected, rtol=1e-4, atol=1e-5)


def test_norm_layer__other_norms_go_to_timm():
    backbone = TimmBackbone("test_resnet", norm_layer=timm.layers.GroupNorm1)
    assert any(isinstance(module, nn.GroupNorm) for module in backbone.modules())


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("name", ["test_convnext", "test_vit"])
def test_checkpoint_path__drops_the_classifier(name, suffix, tmp_path, monkeypatch):
    plain = timm.create_model(name).eval()
    path = tmp_path / f"weights{suffix}"
    save_file(plain.state_dict(), path) if suffix == ".safetensors" else torch.save(
        plain.state_dict(), path
    )
    monkeypatch.setattr(timm.models, "load_pretrained", None)
    backbone = TimmBackbone(name, pretrained=True, checkpoint_path=str(path), out_indices=(-1,))
    image = torch.randn(2, 3, 160, 160)
    expected = plain.forward_intermediates(image, intermediates_only=True, norm=False)[-1]
    assert_close(backbone.eval()(image)["p-1"], expected, rtol=1e-5, atol=1e-5)


def test_checkpoint_path__names_the_wrapper_of_torchvisions_mobilenet(tmp_path):
    torch.save(torchvision.models.mobilenet_v2().state_dict(), tmp_path / "weights.pth")
    with pytest.raises(
        CheckpointError, match=r"torchvision's 'mobilenet_v2', so use TorchvisionBackbone\('mobil"
    ):
        TimmBackbone("mobilenetv2_100", checkpoint_path=tmp_path / "weights.pth")


def test_checkpoint_path__fails_when_nothing_fits(tmp_path):
    torch.save({"something.weight": torch.zeros(3)}, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError):
        TimmBackbone("test_resnet", checkpoint_path=tmp_path / "weights.pth")


def test_freeze_at__freezes_stem_and_stage():
    backbone = TimmBackbone("test_resnet", freeze_at=2).train()
    frozen = [n for n, p in backbone.named_parameters() if not p.requires_grad]
    assert {name.split(".")[1] for name in frozen} == {"conv1", "bn1", "layer1"}
    assert not backbone.timm_model.layer1.training
    assert backbone.timm_model.layer2.training


def test_kwargs__reach_timm():
    backbone = TimmBackbone(
        "test_resnet", in_channels=5, output_stride=16, drop_path_rate=0.1, out_indices=(-1,)
    )
    assert backbone.output_shape()["p-1"].stride == 16
    assert backbone(torch.randn(1, 5, 64, 64))["p-1"].shape[-2:] == (4, 4)


def test_kwargs__let_a_vit_take_any_size():
    backbone = TimmBackbone("test_vit", out_indices=(-1,), dynamic_img_size=True)
    assert backbone(torch.randn(1, 3, 64, 96))["p-1"].shape == (1, 64, 4, 6)


def test_kwargs__are_named_when_unknown():
    with pytest.raises(TypeError, match=r"'drop_pth_rate'\. Did you mean 'drop_path_rate'"):
        TimmBackbone("test_resnet", drop_pth_rate=0.1)


def test_unused_parameters__need_no_gradient():
    with torch.device("meta"):
        backbone = TimmBackbone("hrnet_w18_small", out_indices=(1,))
    frozen = [n for n, p in backbone.named_parameters() if not p.requires_grad]
    assert any("incre_modules" in name for name in frozen)


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("resnet5O", "no model named 'resnet5O'. Did you mean 'resnet50'"),
        ("qqqqqqqq", r"no model named 'qqqqqqqq'. See timm.list_models\(\)"),
        ("resnet50.a1_in2k", "no weights tagged 'a1_in2k'. Did you mean 'a1_in1k'"),
    ],
)
def test_model_name__is_answered_with_near_ones(name, match):
    with pytest.raises(BackboneError, match=match):
        TimmBackbone(name)


def test_features_only__must_be_true():
    with pytest.raises(BackboneError, match=r"features_only=False: leave it out"):
        TimmBackbone("test_resnet", features_only=False)


def test_pretrained__must_be_a_bool():
    with pytest.raises(TypeError, match=r"pretrained must be True or False, got 'weights\.pth'"):
        TimmBackbone("test_resnet", pretrained="weights.pth")


def test_pretrained__says_what_to_do_without_a_network(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(DownloadError, match=r"cannot fetch hf-hub:timm/test_resnet\.r160_in1k"):
        TimmBackbone("test_resnet", pretrained=True)


def test_network__without_feature_info(monkeypatch):
    def fail(*args, **kwargs):
        raise AttributeError("'Net' object has no attribute 'feature_info'")

    monkeypatch.setattr(timm, "create_model", fail)
    with pytest.raises(BackboneError, match="does not say which features it has"):
        TimmBackbone("test_resnet")


def test_timm__is_asked_for_when_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ImportError, match="pip install timm"):
        TimmBackbone("test_resnet")
