"""Weights of networks of transformers: where they are, names of other versions, statistics."""

import json
import logging
import re

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from detrex.errors import BackboneError, CheckpointError
from detrex.modeling.backbone import HuggingFaceBackbone
from detrex.modeling.backbone.huggingface_backbone.builder import recipe_of
from detrex.modeling.backbone.huggingface_backbone.naming import named_network
from detrex.modeling.backbone.huggingface_backbone.weights import (
    find_weights,
    load_by_transformers,
    statistics_of,
)
from detrex.modeling.pixel_statistics import IMAGENET
from tests.reference.tiny_transformers import RESNET, SMALL_VIT, TYPES, built_by_transformers


@pytest.fixture(scope="module")
def vit():
    return built_by_transformers("vit", SMALL_VIT)


@pytest.fixture
def folder(vit, tmp_path):
    vit.save_pretrained(tmp_path)
    return tmp_path


def test_find_weights__of_a_folder(folder):
    named = named_network(folder)
    recipe = recipe_of(named, {}, 3)
    assert find_weights(True, named, recipe, ()).addresses == (str(folder),)
    other = find_weights("a/file.bin", named, recipe, ())
    assert other.addresses == ("a/file.bin",)
    with pytest.raises(BackboneError, match="has the weights"):
        find_weights("IMAGENET", named, recipe, ())


def test_backbone__reads_a_network_within_another(vit, folder):
    """Names as on the hub, of an older transformers, behind that of what the network is part of."""
    tensors = load_file(folder / "model.safetensors")
    whole = {f"module.backbone.{name}": value for name, value in tensors.items()}
    whole |= {"module.head.weight": torch.zeros(2, 16), "module.head.bias": torch.zeros(2)}
    found = HuggingFaceBackbone("vit", weights=whole, **SMALL_VIT).hf_model.model.state_dict()
    for name, value in found.items():
        assert_close(value, vit.state_dict()[name], rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["convnext", "swin", "hiera"])
def test_backbone__needs_no_norms_that_classifiers_lack(kind, tmp_path, caplog):
    """transformers puts a norm over each map that is taken."""
    config = transformers.CONFIG_MAPPING[kind](**TYPES[kind])
    classifier = transformers.AutoModel.from_config(config)
    classifier.save_pretrained(tmp_path)
    with caplog.at_level(logging.WARNING):
        backbone = HuggingFaceBackbone(tmp_path, weights=True, out_strides=(4, 8, 16, 32))
    assert "left as they were" not in caplog.text
    found, theirs = backbone.hf_model.model.state_dict(), classifier.state_dict()
    norms = {name for name in found if "hidden_states_norms." in name}
    assert len(norms) == 8
    for name in found.keys() - norms:
        assert_close(found[name], theirs[name.removeprefix("swin.")], rtol=0, atol=0)


def test_backbone__takes_neither_of_two_networks(folder):
    tensors = load_file(folder / "model.safetensors")
    both = {f"one.{name}": value for name, value in tensors.items()}
    both |= {f"other.{name}": value + 1 for name, value in tensors.items()}
    with pytest.raises(CheckpointError):
        HuggingFaceBackbone("vit", weights=both, **SMALL_VIT)


def test_backbone__resamples_positions_for_another_size(folder, vit, caplog):
    with caplog.at_level(logging.WARNING):
        larger = HuggingFaceBackbone(folder, weights=True, image_size=96)
    assert "position" not in caplog.text
    table = vit.embeddings.position_embeddings.detach()
    cells = table[:, 1:].unflatten(1, (4, 4)).permute(0, 3, 1, 2)
    cells = torch.nn.functional.interpolate(cells, (6, 6), mode="bicubic", antialias=True)
    expected = torch.cat([table[:, :1], cells.permute(0, 2, 3, 1).flatten(1, 2)], 1)
    assert_close(larger.hf_model.model.embeddings.position_embeddings.detach(), expected)


def test_backbone__names_a_tensor_of_another_shape(folder, caplog):
    tensors = load_file(folder / "model.safetensors")
    name = next(
        n for n in tensors if re.search(r"layers?\.1\..*(intermediate\.dense|fc1)\.weight", n)
    )
    tensors[name] = torch.zeros(7, 16)
    with caplog.at_level(logging.WARNING):
        HuggingFaceBackbone("vit", weights=tensors, **SMALL_VIT)
    assert "its shape is (7, 16) in the file and (24, 16) here" in caplog.text


def test_find_weights__of_a_repository_have_its_statistics(monkeypatch):
    def read(home, file):
        assert home == "hf-hub:owner/name@main"
        return {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}

    monkeypatch.setattr(f"{find_weights.__module__}.read_description", read)
    named = named_network("vit")
    found = find_weights("hf-hub:owner/name@main", named, recipe_of(named, {}, 3), ())
    assert found.addresses == ("hf-hub:owner/name@main",)
    assert_close(found.statistics.pixel_mean, (127.5,) * 3)


def test_load_by_transformers__renames_what_lies_on_the_hub(folder, vit):
    tensors = load_file(folder / "model.safetensors")
    recipe = recipe_of(named_network("vit"), SMALL_VIT, 1)
    loaded = load_by_transformers(recipe, {f"vit.{name}": t for name, t in tensors.items()})
    assert loaded.keys() == vit.state_dict().keys()
    for name, value in vit.state_dict().items():
        assert_close(loaded[name], value, rtol=0, atol=0)
    del tensors["layernorm.weight"]
    assert "layernorm.weight" not in load_by_transformers(recipe, tensors)


@pytest.mark.parametrize("form", ["shards", "bin", "classifier"])
def test_backbone__reads_weights_of_every_form(form, vit, tmp_path):
    if form == "shards":
        vit.save_pretrained(tmp_path, max_shard_size="8KB")
        assert (tmp_path / "model.safetensors.index.json").is_file()
    else:
        vit.save_pretrained(tmp_path)
        tensors = load_file(tmp_path / "model.safetensors")
        (tmp_path / "model.safetensors").unlink()
        if form == "bin":
            torch.save(tensors, tmp_path / "pytorch_model.bin")
        else:
            tensors = {f"vit.{name}": value for name, value in tensors.items()}
            tensors |= {"classifier.weight": torch.zeros(2, 16), "classifier.bias": torch.zeros(2)}
            save_file(tensors, tmp_path / "model.safetensors")
    found = HuggingFaceBackbone(tmp_path, weights=True).hf_model.model.state_dict()
    for name, value in found.items():
        assert_close(value, vit.state_dict()[name], rtol=0, atol=0)


def test_backbone__takes_a_file_a_state_dict_and_its_own_state(folder, vit):
    by_file = HuggingFaceBackbone("vit", weights=folder / "model.safetensors", **SMALL_VIT)
    by_tensors = HuggingFaceBackbone("vit", weights=vit.state_dict(), **SMALL_VIT)
    by_own = HuggingFaceBackbone("vit", weights=by_file.state_dict(), **SMALL_VIT)
    for name, value in by_file.hf_model.state_dict().items():
        for other in (by_tensors, by_own):
            assert_close(other.hf_model.state_dict()[name], value, rtol=0, atol=0)


def test_backbone__refuses_weights_of_another_network(folder):
    with pytest.raises(CheckpointError, match="does not fit HuggingFaceBackbone"):
        HuggingFaceBackbone("resnet", weights=folder / "model.safetensors", **RESNET)


@pytest.mark.parametrize(
    ("said", "mean", "std", "order"),
    [
        ({"image_mean": [0.5] * 3, "image_std": [0.5] * 3}, 127.5, 127.5, "RGB"),
        ({"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "do_normalize": False}, 0, 255, "RGB"),
        (
            {"image_mean": [2.0] * 3, "image_std": [3.0] * 3, "do_rescale": False},
            *(2, 3, "RGB"),
        ),
        (
            {"image_mean": [0] * 3, "image_std": [1] * 3, "rescale_factor": 1 / 127.5}
            | {"do_flip_channel_order": True},
            *(0, 127.5, "BGR"),
        ),
    ],
)
def test_statistics_of__a_folder(said, mean, std, order, tmp_path):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(said))
    found = statistics_of(str(tmp_path))
    assert_close(torch.tensor(found.pixel_mean), torch.full((3,), float(mean)))
    assert_close(torch.tensor(found.pixel_std), torch.full((3,), float(std)))
    assert found.channel_order == order


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("ViTImageProcessor", {}),
        ("CLIPImageProcessor", {"image_mean": [0.1, 0.2, 0.3], "rescale_factor": 1 / 128}),
        ("EfficientNetImageProcessor", {"image_std": [0.2, 0.3, 0.4]}),
        ("EfficientNetImageProcessor", {"rescale_offset": True, "rescale_factor": 1 / 127.5}),
        ("MobileViTImageProcessor", {}),
        ("GLPNImageProcessor", {}),
        ("PPLCNetImageProcessor", {}),
        ("UVDocImageProcessor", {}),
    ],
)
def test_statistics_of__what_an_image_processor_does(kind, changes, tmp_path):
    if not hasattr(transformers, kind):
        pytest.skip("newer transformers")
    processor = getattr(transformers, kind)(**changes)
    processor.save_pretrained(tmp_path)
    image = torch.randint(256, (3, 64, 64), dtype=torch.uint8)
    as_it_is = {"do_resize": False, "do_center_crop": False, "return_tensors": "pt"}
    (expected,) = processor(image.permute(1, 2, 0).numpy(), **as_it_is)["pixel_values"]
    found = statistics_of(str(tmp_path))
    seen = image.flip(0) if found.channel_order == "BGR" else image
    mean, std = (torch.tensor(v)[:, None, None] for v in (found.pixel_mean, found.pixel_std))
    assert_close((seen - mean) / std, expected.float(), rtol=1e-4, atol=1e-4)


def test_statistics_of__a_file_that_leaves_steps_to_the_class(tmp_path):
    said = {"feature_extractor_type": "MobileViTFeatureExtractor", "do_flip_channel_order": True}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(said))
    found = statistics_of(str(tmp_path))
    assert (found.pixel_mean, found.channel_order) == ((0, 0, 0), "BGR")
    assert_close(torch.tensor(found.pixel_std), torch.full((3,), 255.0))


@pytest.mark.parametrize("value", [0.5, [0.5] * 3])
def test_statistics_of__a_processor_of_images_and_text(value, tmp_path):
    said = {"image_processor": {"image_mean": value, "image_std": value}, "tokenizer": {}}
    (tmp_path / "processor_config.json").write_text(json.dumps(said))
    assert_close(torch.tensor(statistics_of(str(tmp_path)).pixel_std), torch.full((3,), 127.5))


def test_statistics_of__what_says_none(tmp_path):
    assert statistics_of(None) is None
    assert statistics_of(str(tmp_path)) is None
    (tmp_path / "processor_config.json").write_text('{"processor_class": "CLIPProcessor"}')
    assert statistics_of(str(tmp_path)) is None
    (tmp_path / "preprocessor_config.json").write_text('{"image_mean": [0.5], "image_std": ["a"]}')
    with pytest.raises(CheckpointError, match=r"correct its image_mean, image_std"):
        statistics_of(str(tmp_path))


def test_backbone__publishes_the_statistics_of_its_weights(folder):
    assert HuggingFaceBackbone(folder, weights=True).preprocess == IMAGENET
    said = {"image_mean": [0.5] * 3, "image_std": [0.25] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(said))
    for weights in (True, None, folder / "model.safetensors"):
        found = HuggingFaceBackbone(folder, weights=weights).preprocess
        assert found.pixel_std == (63.75,) * 3
