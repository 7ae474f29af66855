"""What a user may name, and the description that is found of it."""

import json

import pytest
import torch
import transformers
from huggingface_hub import constants

from detrex.checkpoint.download import http_download
from detrex.errors import BackboneError, CheckpointError, DownloadError
from detrex.modeling.backbone.huggingface_backbone.naming import named_network, read_description
from detrex.modeling.backbone.huggingface_backbone.weights import statistics_of
from tests.reference.file_server import serving

OF_TIMM = ("timm_backbone", "timm_wrapper", {"model_type": "timm_wrapper", "architecture": "vit"})
DESCRIPTION = {"model_type": "vit", "hidden_size": 16, "architectures": ["ViTModel"]}


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A repository ``owner/name`` of the hub, with a config in it."""
    for proxy in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(proxy, raising=False)
    monkeypatch.setattr(http_download, "WAITS_SECONDS", (0.01, 0.01))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
    path = "/owner/name/resolve/main/config.json"
    with serving() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url(""))
        server.files[path] = json.dumps(DESCRIPTION).encode()
        server.headers[path] = {"ETag": '"1"', "X-Repo-Commit": "0" * 40}
        yield server


@pytest.mark.parametrize("name", ["owner/name", "hf-hub:owner/name"])
def test_named_network__of_the_hub(hub, name):
    named = named_network(name)
    assert named.description == {"model_type": "vit", "hidden_size": 16}
    assert named.home == "hf-hub:owner/name"


def test_named_network__that_the_hub_has_not(hub):
    with pytest.raises(DownloadError, match=r"fetch hf-hub:owner/other/config\.json") as info:
        named_network("owner/other")
    assert len(str(info.value)) < 500
    assert "\n" not in str(info.value)


def test_named_network__of_a_folder(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(DESCRIPTION))
    for name in (tmp_path, str(tmp_path), f"local-dir:{tmp_path}"):
        named = named_network(name)
        assert named.home == str(tmp_path)
        assert named.description["hidden_size"] == 16


def test_named_network__of_images_and_text_is_that_of_images():
    whole = transformers.CLIPConfig(vision_config={"hidden_size": 48})
    named = named_network(whole)
    assert named.description["model_type"] == "clip_vision_model"
    assert named.description["hidden_size"] == 48


@pytest.mark.parametrize(
    "given",
    [
        transformers.ViTConfig(hidden_size=16),
        {"model_type": "vit", "hidden_size": 16},
    ],
)
def test_named_network__of_a_config(given):
    named = named_network(given)
    assert (named.name, named.home) == ("vit", None)
    assert named.description["hidden_size"] == 16


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("swim", "no folder 'swim', and .* Did you mean"),
        ("./not/there", "there is no folder"),
        ("a/b/c", "there is no folder"),
        ({"model_type": "vitt"}, "model_type 'vitt', .* Did you mean"),
        ({"hidden_size": 3}, "model_type None"),
        ({"architecture": "resnet18"}, "is a network of timm: use TimmBackbone"),
        *((kind, "is a network of timm: use TimmBackbone") for kind in OF_TIMM),
    ],
)
def test_named_network__that_is_not_there(name, match):
    with pytest.raises(BackboneError, match=match):
        named_network(name)


@pytest.mark.parametrize("name", [3, None, "", ["vit"], torch.nn.Sequential(torch.nn.Tanh())])
def test_named_network__of_a_wrong_type(name):
    with pytest.raises(TypeError, match=r"model_name must be a repository such as") as info:
        named_network(name)
    assert "\n" not in str(info.value)


@pytest.mark.parametrize(
    ("text", "match"),
    [("{", "is no JSON"), ("[1]", "holds a list"), (None, "cannot be read")],
)
def test_read_description__damaged(text, match, tmp_path):
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=f"config.json .*{match}"):
        read_description(str(tmp_path), "config.json")


def test_named_network__of_a_folder_of_timm(tmp_path):
    (tmp_path / "config.json").write_text('{"architecture": "resnet18", "pretrained_cfg": {}}')
    with pytest.raises(BackboneError, match=rf"use TimmBackbone\('local-dir:{tmp_path}'\)"):
        named_network(tmp_path)


def test_made_config__lets_transformers_say_nothing(capfd):
    named_network({"model_type": "siglip", "vision_config": {"hidden_size": 16}})
    assert capfd.readouterr() == ("", "")


def test_statistics_of__a_repository_asks_for_the_second_file_where_the_first_is_not(hub):
    said = {"image_processor": {"image_mean": [0.5] * 3, "image_std": [0.25] * 3}}
    path = "/owner/name/resolve/main/processor_config.json"
    hub.files[path] = json.dumps(said).encode()
    hub.headers[path] = {"ETag": '"2"', "X-Repo-Commit": "0" * 40}
    assert statistics_of("hf-hub:owner/name").pixel_std == (63.75,) * 3
