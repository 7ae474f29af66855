"""Weights of other libraries, written to a file and loaded by name, give the same features."""

import pickle
import re

import pytest
import timm
import torch
import torchvision
from detectron2.modeling.backbone import BasicStem, ResNet
from detectron2.modeling.backbone.resnet import BasicBlock
from safetensors.torch import save_file
from torch import nn

from detrex.checkpoint import fit_state_dict, load_init_checkpoint, load_weights
from detrex.errors import CheckpointError


def randomised(model):
    """Give every tensor values of its own, statistics of norms included."""
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                value.copy_(torch.rand_like(value) * 0.2 + (0.9 if "var" in name else 0.0))
    return model.eval()


def detectron2_resnet(norm="FrozenBN"):
    widths = [(64, 64, 1), (64, 128, 2), (128, 256, 2), (256, 512, 2)]
    stages = [
        ResNet.make_stage(
            BasicBlock,
            1,
            stride_per_block=[stride],
            in_channels=before,
            out_channels=after,
            norm=norm,
        )
        for before, after, stride in widths
    ]
    return ResNet(BasicStem(norm=norm), stages, out_features=["res3", "res5"]).eval()


def torchvision_resnet():
    block = torchvision.models.resnet.BasicBlock
    return torchvision.models.resnet.ResNet(block, [1, 1, 1, 1])


def torchvision_features(model, x):
    x = model.maxpool(model.relu(model.bn1(model.conv1(x))))
    res3 = model.layer2(model.layer1(x))
    return {"res3": res3, "res5": model.layer4(model.layer3(res3))}


class Wrapped(nn.Module):
    """A wrapper as those of this package are: the network under an attribute."""

    def __init__(self, name, net):
        super().__init__()
        self.add_module(name, net)


@pytest.fixture
def image():
    return torch.randn(2, 3, 64, 96)


@pytest.fixture(scope="module")
def resnet():
    torch.manual_seed(1)
    return randomised(torchvision_resnet())


@pytest.mark.parametrize("norm", ["FrozenBN", "BN"])
@pytest.mark.parametrize("prefix", ["", "module.", "backbone.0.body.", "module.encoder_q."])
def test_load_weights__torchvision_resnet_in_detectron2(tmp_path, resnet, image, norm, prefix):
    torch.save({prefix + k: v for k, v in resnet.state_dict().items()}, tmp_path / "w.pth")
    model = detectron2_resnet(norm)
    report = load_weights(model, tmp_path / "w.pth")
    assert report.share == 1
    assert not report.mismatched
    assert {name.rpartition("fc.")[2] for name in report.unexpected} == {"weight", "bias"}
    torch.testing.assert_close(
        model(image), torchvision_features(resnet, image), rtol=1e-5, atol=1e-5
    )


def test_load_weights__detectron2_resnet_in_torchvision(tmp_path, image):
    source = randomised(detectron2_resnet())
    arrays = {name: value.numpy() for name, value in source.state_dict().items()}
    (tmp_path / "R-18.pkl").write_bytes(pickle.dumps({"model": arrays, "__author__": "x"}))
    model = torchvision_resnet().eval()
    report = load_weights(model, tmp_path / "R-18.pkl")
    assert report.missing == ("fc.weight", "fc.bias")
    torch.testing.assert_close(
        torchvision_features(model, image), source(image), rtol=1e-5, atol=1e-5
    )


def test_load_weights__caffe2_resnet_in_detectron2(tmp_path, image):
    source = randomised(detectron2_resnet())
    arrays = {}
    for name, value in source.state_dict().items():
        name = name.replace("stem.conv1.norm", "res.conv1.bn").replace("stem.conv1", "conv1")
        for number, letter in zip("12", "ab", strict=True):
            name = re.sub(rf"\.conv{number}\.norm", f".branch2{letter}.bn", name)
            name = re.sub(rf"^(res\d\.\d)\.conv{number}\.", rf"\1.branch2{letter}.", name)
        name = name.replace("shortcut.norm", "branch1.bn").replace("shortcut", "branch1")
        name = name.replace("bn.weight", "bn.s").replace("bn.bias", "bn.b")
        name = name.replace("running_mean", "rm").replace("running_var", "riv")
        name = re.sub(r"\.weight$", ".w", name)
        arrays[name.replace(".", "_")] = value.numpy()
    (tmp_path / "R-18.pkl").write_bytes(pickle.dumps({"blobs": arrays}))
    model = detectron2_resnet()
    assert load_weights(model, tmp_path / "R-18.pkl").share == 1
    torch.testing.assert_close(model(image), source(image), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("resnet18d", {"layers": (1, 1, 1, 1)}),
        ("convnext_atto", {}),
        ("swin_tiny_patch4_window7_224", {"depths": (1, 1, 2, 1), "embed_dim": 24}),
        ("vit_tiny_patch16_224", {"depth": 3}),
        ("regnetx_002", {}),
        ("efficientnet_lite0", {}),
        ("twins_svt_small", {"depths": (1, 1, 1, 1)}),
        ("densenet121", {"block_config": (1, 2, 1, 2)}),
        ("edgenext_xx_small", {}),
    ],
)
def test_load_weights__timm_classifier_in_its_feature_network(tmp_path, name, sizes):
    source = randomised(timm.create_model(name, **sizes))
    save_file(
        {k: v.contiguous() for k, v in source.state_dict().items()}, tmp_path / "w.safetensors"
    )
    model = Wrapped("timm_model", timm.create_model(name, features_only=True, **sizes))
    report = load_weights(model, tmp_path / "w.safetensors")
    assert report.share == 1
    flat = {re.sub(r"[._]", "", k): v for k, v in source.state_dict().items()}
    for key, value in model.state_dict().items():
        key = re.sub(r"[._]", "", key.removeprefix("timm_model."))
        expected = flat[key if key in flat else key.removeprefix("model")]
        torch.testing.assert_close(value, expected, rtol=0, atol=0)


def test_load_weights__timm_features_are_those_of_the_file(tmp_path, image):
    source = randomised(timm.create_model("convnext_atto"))
    torch.save({"state_dict": source.state_dict()}, tmp_path / "w.pth")
    model = timm.create_model("convnext_atto", features_only=True).eval()
    load_weights(model, tmp_path / "w.pth")
    x = source.stages(source.stem(image))
    torch.testing.assert_close(model(image)[-1], x, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("torchvision_name", "timm_name"),
    [("mobilenet_v2", "mobilenetv2_100"), ("mobilenet_v3_small", "mobilenetv3_small_100")],
)
def test_load_weights__never_by_position(torchvision_name, timm_name):
    """Shapes agree in order, but the norms' eps or the order of parts may not."""
    file = torchvision.models.get_model(torchvision_name).state_dict()
    model = timm.create_model(timm_name, features_only=True)
    with pytest.raises(CheckpointError, match=r"does not fit .*: 0 of its"):
        load_weights(model, file)


def test_fit_state_dict__value_key_query_are_not_query_key_value():
    ours = nn.ModuleDict({name: nn.Linear(4, 4) for name in ("q", "k", "v")})
    theirs = nn.ModuleDict({name: nn.Linear(4, 4) for name in ("value", "key", "query")})
    assert fit_state_dict(ours, theirs.state_dict())[1].share < 0.5


def test_load_weights__no_network_fits_by_accident(tmp_path):
    torch.save(timm.create_model("convnext_atto").state_dict(), tmp_path / "w.pth")
    model = torchvision_resnet()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(
        CheckpointError,
        match=r"w\.pth does not fit ResNet: 0 of its 62 tensors got a value and at least 50% "
        r"must; the model has 'conv1\.weight', .* the file has 'stem\.0\.weight', .*same",
    ):
        load_weights(model, tmp_path / "w.pth")
    torch.testing.assert_close(dict(model.state_dict()), before, rtol=0, atol=0)


def test_load_weights__min_share_is_asked_for(resnet):
    half = {k: v for k, v in resnet.state_dict().items() if not k.startswith("layer4")}
    assert load_weights(torchvision_resnet(), half, min_share=0.6).share < 0.8
    with pytest.raises(CheckpointError, match="at least 90% must"):
        load_weights(torchvision_resnet(), half, min_share=0.9)
    with pytest.raises(CheckpointError, match="0 of its 2 tensors"):
        load_weights(nn.Linear(2, 3), {"x.y": torch.zeros(1)}, min_share=0)


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_load_weights__min_share_is_a_share(share):
    with pytest.raises(ValueError, match=r"min_share=.* is no share, expected a number"):
        load_weights(nn.Linear(2, 3), {"weight": torch.zeros(3, 2)}, min_share=share)


def test_load_weights__counters_count_for_nothing():
    model = nn.BatchNorm2d(5)
    frozen = {k: v for k, v in model.state_dict().items() if "num_batches" not in k}
    report = load_weights(model, frozen)
    assert report.share == 1
    assert not report.missing
    counted = frozen | {"num_batches_tracked": torch.tensor(9)}
    assert load_weights(model, counted).unexpected == ()
    assert model.num_batches_tracked == 9


def test_load_weights__missing_and_mismatched_are_warned_of(caplog):
    model = nn.ModuleDict({"a": nn.Linear(3, 5), "b": nn.Linear(3, 7), "c": nn.Linear(2, 2)})
    file = nn.ModuleDict({"a": nn.Linear(3, 5), "b": nn.Linear(3, 11), "d": nn.Linear(2, 2)})
    before = model["b"].weight.clone()
    report = load_weights(model, file.state_dict(), min_share=0.3)
    assert report.matched == ("a.weight", "a.bias")
    assert report.mismatched == ("b.weight", "b.bias")
    assert report.shapes == (((11, 3), (7, 3)), ((11,), (7,)))
    assert report.missing == ("c.weight", "c.bias")
    assert report.unexpected == ("d.weight", "d.bias")
    assert "skipped b.weight: its shape is (11, 3) in the file and (7, 3) here" in caplog.text
    assert "left as they were: 'c.weight', 'c.bias'" in caplog.text
    torch.testing.assert_close(model["b"].weight, before, rtol=0, atol=0)
    torch.testing.assert_close(model["a"].weight, file["a"].weight, rtol=0, atol=0)


def test_fit_state_dict__an_alias_is_not_missing():
    model = nn.ModuleDict({"head": nn.Linear(3, 5), "body": nn.Linear(3, 3)})
    model["decoder"] = nn.ModuleDict({"head": model["head"]})
    file = {k: v for k, v in model.state_dict().items() if not k.startswith("head")}
    report = fit_state_dict(model, file)[1]
    assert report.share == 1
    assert not report.missing


def test_fit_state_dict__ambiguous_separators_need_the_exact_name():
    model = nn.ParameterDict({"a_b_c": nn.Parameter(torch.zeros(2))})
    model.register_module("a_b", nn.ParameterDict({"c": nn.Parameter(torch.zeros(2))}))
    file = {"a_b_c": torch.full((2,), 1.0), "a_b.c": torch.full((2,), 2.0)}
    values, report = fit_state_dict(model, file)
    assert report.share == 1
    torch.testing.assert_close(values, file, rtol=0, atol=0)


def test_load_weights__half_precision_file():
    model, source = nn.Linear(3, 5), nn.Linear(3, 5)
    load_weights(model, {k: v.half() for k, v in source.state_dict().items()})
    assert model.weight.dtype == torch.float32
    torch.testing.assert_close(model.weight, source.weight, rtol=1e-3, atol=1e-3)


class Detector(nn.Module):
    """The parts of a detector that names could be confused in."""

    def __init__(self, num_classes=7, backbone=None):
        super().__init__()
        self.backbone = backbone or Wrapped(
            "timm_model",
            timm.create_model(
                "vit_tiny_patch16_224", features_only=True, depth=2, out_indices=(0, 1)
            ),
        )
        self.neck = nn.Sequential(nn.Conv2d(192, 8, 1), nn.GroupNorm(2, 8))
        self.transformer = nn.Module()
        self.transformer.encoder = nn.TransformerEncoderLayer(8, 2, 16)
        self.transformer.decoder = nn.Module()
        self.transformer.decoder.norm = nn.LayerNorm(192)
        self.class_embed = nn.ModuleList([nn.Linear(8, num_classes) for _ in range(3)])
        self.transformer.decoder.class_embed = self.class_embed


def test_load_init_checkpoint__bare_backbone_touches_nothing_else(tmp_path):
    source = randomised(timm.create_model("vit_tiny_patch16_224", depth=2))
    torch.save({"model": source.state_dict()}, tmp_path / "w.pth")
    model = Detector()
    before = {k: v.clone() for k, v in model.state_dict().items() if "backbone" not in k}
    report = load_init_checkpoint(model, tmp_path / "w.pth")
    assert report.share == 1
    assert all(name.startswith("timm_model.model.") for name in report.matched)
    assert {"norm.weight", "head.weight"} <= set(report.unexpected)
    after = {k: v for k, v in model.state_dict().items() if "backbone" not in k}
    torch.testing.assert_close(after, before, rtol=0, atol=0)
    torch.testing.assert_close(
        model.backbone.timm_model.model.blocks[1].mlp.fc1.weight,
        source.blocks[1].mlp.fc1.weight,
        rtol=0,
        atol=0,
    )


def test_load_init_checkpoint__detector(tmp_path):
    source, model = randomised(Detector()), Detector()
    torch.save({"model": source.state_dict(), "iteration": 3, "trainer": {}}, tmp_path / "w.pth")
    report = load_init_checkpoint(model, tmp_path / "w.pth")
    assert report.share == 1
    assert report.unexpected == ()
    torch.testing.assert_close(dict(model.state_dict()), dict(source.state_dict()), rtol=0, atol=0)


def test_load_init_checkpoint__detector_of_other_classes(tmp_path, caplog):
    torch.save({"model": Detector(num_classes=80).state_dict()}, tmp_path / "w.pth")
    report = load_init_checkpoint(Detector(), tmp_path / "w.pth")
    assert {name for name in report.mismatched if name.startswith("class_embed")} == {
        f"class_embed.{i}.{kind}" for i in range(3) for kind in ("weight", "bias")
    }
    assert not report.missing
    assert "skipped class_embed.0.weight: its shape is (80, 8) in the file" in caplog.text


def test_load_init_checkpoint__backbone_of_another_detector():
    source = {"backbone.bottom_up." + k: v for k, v in detectron2_resnet().state_dict().items()}
    source |= {f"head.{i}.weight": torch.zeros(3) for i in range(200)}
    report = load_init_checkpoint(Detector(backbone=detectron2_resnet()), source)
    assert report.share == 1
    assert all(name.startswith(("stem", "res")) for name in report.matched)


def test_load_init_checkpoint__nothing_fits(tmp_path):
    torch.save(torchvision_resnet().state_dict(), tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=r"w\.pth does not fit Wrapped: 0 of its .*at least"):
        load_init_checkpoint(Detector(), tmp_path / "w.pth")


def test_load_init_checkpoint__model_without_a_backbone():
    model, source = nn.Linear(3, 5), nn.Linear(3, 5)
    assert load_init_checkpoint(model, source.state_dict()).share == 1


def test_load_weights__says_what_was_loaded(caplog):
    model = nn.Linear(3, 5)
    with caplog.at_level("INFO"):
        load_weights(model, model.state_dict() | {"fc.weight": torch.zeros(1)})
    assert "the state dict: 2 of 2 tensors loaded by same names" in caplog.text
    assert "part    matched  missing  mismatched" in caplog.text
    assert "unused in the state dict: 'fc.weight'" in caplog.text


def test_load_weights__larger_network_of_the_same_family_is_warned_of(caplog):
    small = torchvision_resnet()
    block = torchvision.models.resnet.BasicBlock
    large = torchvision.models.resnet.ResNet(block, [1, 2, 1, 1])
    assert 0.8 < load_weights(large, small.state_dict()).share < 1
    assert "left as they were: 'layer2.1.conv1.weight'" in caplog.text
