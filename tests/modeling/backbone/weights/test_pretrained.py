"""One keyword for weights of every origin; each gives the features of the network they are from."""

import pickle

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor

from detrex.errors import BackboneError, CheckpointError, DownloadError
from detrex.modeling.backbone.timm_backbone import weights as timm_weights
from detrex.modeling.backbone.torchvision_backbone import weights as torchvision_weights
from detrex.modeling.backbone.weights.pretrained import load_pretrained
from detrex.modeling.backbone.weights.source import WeightsSource
from detrex.modeling.pixel_statistics import CAFFE, IMAGENET
from tests.reference.file_server import serving

# Kinds of network, and what makes it small and quick.
KINDS = {
    "test_resnet": {},
    "test_convnext": {},
    "test_efficientnet": {},
    "test_nfnet": {},
    "test_maxvit": {},
    "test_coatnet": {},
    "test_vit": {},
    "test_vit_relpos": {},
    "test_mambaout": {},
    "swin_tiny_patch4_window7_224": {"depths": (1, 1, 1, 1), "embed_dim": 24},
    "swinv2_tiny_window8_256": {"depths": (1, 1, 1, 1), "embed_dim": 24},
    "beit_base_patch16_224": {"depth": 4, "embed_dim": 48, "num_heads": 3},
    "vit_small_patch16_dinov3": {"depth": 4, "embed_dim": 96, "num_heads": 3},
    "pvt_v2_b0": {},
    "densenet121": {"block_config": (1, 2, 1, 2)},
    "regnetx_002": {},
    "repvgg_a0": {},
    "hrnet_w18_small": {},
    "mobilevit_xxs": {},
    "edgenext_xx_small": {},
    "xcit_nano_12_p8_224": {"depth": 4},
}
FULL_SIZED = [
    "resnet50",
    "convnext_tiny",
    "swin_tiny_patch4_window7_224",
    "swinv2_tiny_window8_256",
    "efficientnet_b0",
    "vit_small_patch16_224",
    "vit_small_patch16_dinov3",
    "vit_small_patch14_dinov2",
    "beit_base_patch16_224",
    "regnety_008",
    "densenet121",
    "vgg11",
    "hrnet_w18",
    "repvgg_a0",
    "pvt_v2_b1",
    "maxvit_tiny_tf_224",
    "davit_tiny",
    "hiera_tiny_224",
    "mobileone_s0",
    "fastvit_t8",
    "xcit_nano_12_p8_224",
    "mvitv2_tiny",
]


def randomised(model):
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if value.is_floating_point() and "running" not in name:
                value.add_(torch.randn_like(value) * 0.01)
    return model.eval()


def find_weights(weights, library, model_name, network=None):
    if library == "timm":
        return timm_weights.find_weights(weights, model_name, network)
    return torchvision_weights.find_weights(weights, model_name)


def load(network, weights, library="timm", model_name="test_resnet", in_channels=3, min_share=0.9):
    source = find_weights(weights, library, model_name, network)
    return load_pretrained(network, source, in_channels, min_share)


@pytest.mark.parametrize("name", KINDS)
def test_load_pretrained__features_are_plain_timms(tmp_path, name):
    check_features(tmp_path, name, {"num_classes": 3} | KINDS[name], KINDS[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", FULL_SIZED)
def test_load_pretrained__features_are_plain_timms_in_full_size(tmp_path, name):
    check_features(tmp_path, name, {}, {})


def check_features(tmp_path, name, plain_keywords, keywords):
    plain = randomised(timm.create_model(name, **plain_keywords))
    torch.save(plain.state_dict(), tmp_path / "w.pth")
    network = timm.create_model(name, features_only=True, **keywords).eval()
    used = load(network, tmp_path / "w.pth", model_name=name)
    assert used.report.exact == used.report.matched
    assert used.report.share == 1
    image = torch.randn(2, 3, *plain.pretrained_cfg["input_size"][1:])
    indices = list(network.feature_info.out_indices)
    with torch.no_grad():
        got = network(image)
        expected = plain.forward_intermediates(image, indices=indices, intermediates_only=True)
    assert len(got) == len(expected) == len(indices)
    for ours, theirs in zip(got, expected, strict=True):
        ours = ours if ours.shape == theirs.shape else ours.permute(0, 3, 1, 2)
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("name", "node"), [("resnet18", "layer4"), ("swin_t", "features.7")])
def test_load_pretrained__torchvision_graph(tmp_path, name, node):
    plain = randomised(torchvision.models.get_model(name))
    torch.save(plain.state_dict(), tmp_path / "w.pth")
    builder = torchvision.models.get_model(name)
    network = create_feature_extractor(builder, [node]).eval()
    used = load(network, tmp_path / "w.pth", "torchvision", name)
    assert used.report.share == 1
    image = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        expected = create_feature_extractor(plain, [node])(image)[node]
        torch.testing.assert_close(network(image)[node], expected, rtol=0, atol=0)


def table(prefix="", nest=None):
    torch.manual_seed(1)
    source = timm.create_model("test_resnet").state_dict()
    renamed = {prefix + name: value for name, value in source.items()}
    for key in reversed(nest or ()):
        renamed = {key: renamed}
    return renamed


def save_pkl(content, path):
    path.write_bytes(pickle.dumps({name: value.numpy() for name, value in content.items()}))


@pytest.mark.parametrize(
    ("suffix", "save"),
    [
        (".pth", torch.save),
        (".pt", torch.save),
        (".bin", torch.save),
        (".pkl", save_pkl),
        (".safetensors", save_file),
    ],
)
@pytest.mark.parametrize("kind", [str, "path"])
def test_load_pretrained__every_kind_of_file(tmp_path, suffix, save, kind):
    file = tmp_path / f"w{suffix}"
    save(table(), file)
    network = timm.create_model("test_resnet", features_only=True)
    used = load(network, str(file) if kind is str else file)
    assert used.source == str(file)
    assert used.report.share == 1
    assert used.statistics is None
    expected = {name: table()[name] for name in used.report.matched}
    got = {name: network.state_dict()[name] for name in used.report.matched}
    torch.testing.assert_close(got, expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("prefix", "nest"),
    [
        ("", ["state_dict"]),
        ("", ["model"]),
        ("", ["model", "state_dict"]),
        ("module.", ["state_dict"]),
        ("backbone.", ["teacher"]),
        ("module.backbone.", ["teacher"]),
        ("module.encoder.", ["model"]),
        ("timm_model.", ["model"]),
    ],
)
def test_load_pretrained__every_nest_and_prefix(tmp_path, prefix, nest):
    content = table(prefix, nest)
    torch.save(content, tmp_path / "w.pth")
    network = timm.create_model("test_resnet", features_only=True)
    assert load(network, tmp_path / "w.pth").report.share == 1


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    with serving() as running:
        running.files["/w.pth"] = _bytes(table(), tmp_path)
        yield running


def _bytes(content, folder):
    torch.save(content, folder / "served.pth")
    return (folder / "served.pth").read_bytes()


def test_load_pretrained__tag_by_the_second_of_its_addresses(server, monkeypatch, caplog):
    url = server.url("/w.pth")
    config = timm.get_pretrained_cfg("test_resnet")
    config.url, config.hf_hub_id, config.file = url, "owner/name", None
    monkeypatch.setattr(timm, "get_pretrained_cfg", lambda name: config)
    monkeypatch.setenv("HF_ENDPOINT", server.url(""))
    network = timm.create_model("test_resnet", features_only=True, in_chans=1)
    used = load(network, True, in_channels=1)
    assert used.source == url
    assert used.report.share == 1
    assert len(used.report.adapted) == 1
    assert used.info["url"] == url
    assert len(used.statistics.pixel_mean) == 1
    assert "trying the next address of the same weights" in caplog.text
    server.files.clear()
    assert load(network, "r160_in1k", in_channels=1).report.share == 1


def test_load_pretrained__on_meta_are_described_and_not_fetched(server, monkeypatch):
    config = timm.get_pretrained_cfg("test_resnet")
    config.url, config.hf_hub_id, config.mean = server.url("/absent.pth"), None, (0.1, 0.2, 0.4)
    monkeypatch.setattr(timm, "get_pretrained_cfg", lambda name: config)
    with torch.device("meta"):
        used = load(timm.create_model("test_resnet", features_only=True), True)
    assert used.statistics.pixel_mean == pytest.approx((25.5, 51, 102))


def test_load_pretrained__on_meta_a_file_is_held_against_the_network(tmp_path):
    torch.save(timm.create_model("test_resnet").state_dict(), tmp_path / "resnet.pth")
    with torch.device("meta"):
        network = timm.create_model("test_resnet", features_only=True)
        assert load(network, tmp_path / "resnet.pth").report.share == 1
        with pytest.raises(CheckpointError, match="does not fit"):
            load(timm.create_model("test_vit"), tmp_path / "resnet.pth", model_name="test_vit")


def test_load_pretrained__no_address_answers(server, monkeypatch):
    config = timm.get_pretrained_cfg("test_resnet")
    config.url, config.hf_hub_id = server.url("/absent.pth"), None
    monkeypatch.setattr(timm, "get_pretrained_cfg", lambda name: config)
    network = timm.create_model("test_resnet", features_only=True)
    with pytest.raises(DownloadError, match=r"absent.pth \(HTTP 404"):
        load(network, True)


def test_load_pretrained__torchvision_member(server, monkeypatch, tmp_path):
    plain = torchvision.models.resnet18()
    server.files["/r.pth"] = _bytes(plain.state_dict(), tmp_path)
    member = torchvision.models.ResNet18_Weights.IMAGENET1K_V1
    place = WeightsSource((server.url("/r.pth"),), info=member, statistics=IMAGENET)
    monkeypatch.setattr(torchvision_weights, "_source", lambda *_: place)
    network = torchvision.models.resnet18()
    used = load(network, "IMAGENET1K_V1", "torchvision", "resnet18")
    assert used.info is member
    assert used.statistics.pixel_mean == (123.675, 116.28, 103.53)
    torch.testing.assert_close(network.conv1.weight, plain.conv1.weight, rtol=0, atol=0)


def test_load_pretrained__caffe2_means_bgr(tmp_path, caplog):
    """Detectron's names are detectron2's; torchvision's ResNet gets them."""
    shapes = torchvision.models.resnet18().state_dict()
    arrays = {"conv1_w": shapes["conv1.weight"].numpy()}
    for stage in range(1, 5):
        for block in range(2):
            start = f"res{stage + 1}_{block}_branch2"
            for conv, letter in enumerate("ab", 1):
                name = f"layer{stage}.{block}"
                arrays[f"{start}{letter}_w"] = shapes[f"{name}.conv{conv}.weight"].numpy()
                for end, kind in (("s", "weight"), ("b", "bias")):
                    value = shapes[f"{name}.bn{conv}.{kind}"].numpy()
                    arrays[f"{start}{letter}_bn_{end}"] = value
    (tmp_path / "R-18.pkl").write_bytes(pickle.dumps({"blobs": arrays}))
    network = torchvision.models.resnet18()
    used = load(network, tmp_path / "R-18.pkl", "torchvision", "resnet18", min_share=0.7)
    assert used.origin.statistics == CAFFE
    assert used.statistics == CAFFE
    assert "trained with Caffe2, on images in BGR" in caplog.text


@pytest.mark.parametrize("library", ["timm", "torchvision"])
@pytest.mark.parametrize(
    "weights", ["https://a/b.pth", "hf-hub:a/b", "detectron2://a.pkl", "a/b.pth", "b.safetensors"]
)
def test_find_weights__paths_and_addresses(library, weights):
    source = find_weights(weights, library, "resnet18")
    assert source == WeightsSource((weights,))


def test_find_weights__tags_and_enums():
    by_tag = find_weights("a1_in1k", "timm", "resnet50.tv_in1k")
    assert by_tag == find_weights("resnet50.a1_in1k", "timm", "resnet50")
    assert by_tag.info["tag"] == "a1_in1k"
    found = find_weights("IMAGENET1K_V1", "torchvision", "resnet50")
    assert found.info.name == "IMAGENET1K_V1"


@pytest.mark.parametrize(
    ("library", "weights", "match"),
    [
        (
            "timm",
            "a1_in2k",
            r"timm's 'resnet50' has the weights a1_in1k, .*got 'a1_in2k': use one .*"
            r"Did you mean 'a1_in1k'",
        ),
        ("torchvision", "IMAGENET1K_V3", "IMAGENET1K_V2, DEFAULT, got .*mean 'IMAGENET1K_V2'"),
    ],
)
def test_find_weights__unknown_names(library, weights, match):
    with pytest.raises(BackboneError, match=match):
        find_weights(weights, library, "resnet50")


@pytest.mark.parametrize("library", ["timm", "torchvision"])
@pytest.mark.parametrize("weights", [7, None, ["a.pth"], nn.Sequential(nn.ReLU())])
def test_find_weights__types(library, weights):
    with pytest.raises(
        TypeError, match="weights must be True, a name, a path, an address or"
    ) as error:
        find_weights(weights, library, "resnet50")
    assert "\n" not in str(error.value)
    assert isinstance(weights, nn.Module) == ("give its state_dict()" in str(error.value))


@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_load_pretrained__name_that_no_file_can_have(library):
    with pytest.raises(CheckpointError, match=r"cannot be read \(File name too long\)") as error:
        load(nn.Linear(2, 3), f"{'x' * 3000}.pth", library, "resnet18")
    assert len(str(error.value)) < 500


def test_load_pretrained__half_a_network_is_an_error(tmp_path):
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "r18.pth")
    network = torchvision.models.resnet34()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"r18.pth does not fit ResNet: .*at least 90% must"):
        load(network, tmp_path / "r18.pth", "torchvision", "resnet34")
    torch.testing.assert_close(dict(network.state_dict()), before, rtol=0, atol=0)


def test_load_pretrained__names_of_a_networks_authors(tmp_path):
    """Swin's authors put the patch merging of a stage at its end, timm at the next one's start."""
    name, small = "swin_tiny_patch4_window7_224", {}
    with torch.device("meta"):
        plain = timm.create_model(name, **small)
    theirs = {}
    for key, value in plain.state_dict().items():
        stage, _, rest = key.removeprefix("layers.").partition(".")
        if rest.startswith("downsample"):
            key = f"layers.{int(stage) - 1}.{rest}"
        theirs[key.replace("head.fc", "head")] = torch.randn(value.shape)
    torch.save({"model": theirs}, tmp_path / "w.pth")
    network = timm.create_model(name, features_only=True)
    report = load(network, tmp_path / "w.pth", model_name=name).report
    assert report.share == 1
    assert report.names.startswith("timm's own loading")
    state = network.state_dict()
    torch.testing.assert_close(
        state["layers_1.downsample.reduction.weight"],
        theirs["layers.0.downsample.reduction.weight"],
        rtol=0,
        atol=0,
    )


def test_load_pretrained__masked_autoencoder(tmp_path):
    """A file of MAE's: the encoder under timm's names, and a decoder that is passed over."""
    plain = timm.create_model("test_vit")
    file = {k: v for k, v in plain.state_dict().items() if not k.startswith(("head", "fc_norm"))}
    file |= {"mask_token": torch.zeros(1, 1, 64), "decoder_embed.weight": torch.zeros(8, 64)}
    file |= {f"decoder_blocks.{i}.norm1.weight": torch.zeros(8) for i in range(3)}
    torch.save({"model": file, "epoch": 9}, tmp_path / "mae.pth")
    network = timm.create_model("test_vit", features_only=True)
    report = load(network, tmp_path / "mae.pth", model_name="test_vit").report
    assert report.share == 1
    assert "decoder_embed.weight" in report.unexpected


def test_load_pretrained__position_tables_and_channels(tmp_path):
    plain = timm.create_model("test_vit")
    torch.save(plain.state_dict(), tmp_path / "w.pth")
    network = timm.create_model("test_vit", features_only=True, img_size=(96, 224), in_chans=5)
    report = load(network, tmp_path / "w.pth", model_name="test_vit", in_channels=5).report
    assert report.share == 1
    assert [len(report.resized), len(report.adapted)] == [1, 1]
    expected = timm.layers.resample_abs_pos_embed(plain.pos_embed, [6, 14])
    torch.testing.assert_close(network.model.pos_embed, expected, rtol=1e-5, atol=1e-6)


def test_load_pretrained__on_another_kind_of_module(tmp_path):
    torch.save(nn.Linear(3, 5).state_dict(), tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="does not fit"):
        load(timm.create_model("test_resnet", features_only=True), tmp_path / "w.pth")
