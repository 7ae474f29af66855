"""Where timm has its weights, and how it loads them itself."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import timm
import torch

from detrex.checkpoint.matching.input_conv import adapt_input_conv
from detrex.checkpoint.matching.key_matching import weight_names
from detrex.errors import BackboneError
from detrex.modeling.backbone import TimmBackbone
from detrex.modeling.backbone.timm_backbone.weights import (
    default_weights,
    load_by_timm,
    published_weights,
    tags,
    weights_of_tag,
)


def test_tags__default_first():
    assert tags("resnet50")[0] == timm.get_pretrained_cfg("resnet50").tag
    assert set(tags("resnet50")) == {
        name.partition(".")[2] for name in timm.list_pretrained("resnet50.*")
    }
    assert tags("resnet50.tv_in1k") == tags("resnet50")
    assert tags("hf-hub:owner/name") == []


def test_default_weights__hub_then_address():
    place = default_weights("resnet50")
    config = timm.get_pretrained_cfg("resnet50")
    assert place.addresses == (f"hf-hub:{config.hf_hub_id}", config.url)
    assert place.info == config.to_dict()
    assert default_weights("resnet50.tv_in1k") == weights_of_tag("resnet50.a1_in1k", "tv_in1k")


def test_default_weights__no_files_of_jax():
    place = default_weights("vit_base_patch16_224.augreg_in21k")
    assert all(not address.endswith(".npz") for address in place.addresses)
    assert place.addresses


def test_default_weights__network_that_describes_itself():
    network = torch.nn.Identity()
    network.pretrained_cfg = {
        "hf_hub_id": "owner/name",
        "hf_hub_filename": "w.bin",
        "file": "a.pth",
    }
    place = default_weights("hf-hub:owner/name", network)
    assert place.addresses == ("a.pth", "hf-hub:owner/name/w.bin")


def test_default_weights__no_weights():
    bare = next(name for name in timm.list_models() if not timm.is_model_pretrained(name))
    with pytest.raises(BackboneError, match=rf"no default weights for '{bare}' \(tags .*: none\)"):
        default_weights(bare)
    with pytest.raises(BackboneError, match=r"no default weights for 'hf-hub:owner/name' .*: give"):
        default_weights("hf-hub:owner/name", torch.nn.Identity())


SMALL_DINOV2 = {"depth": 2, "embed_dim": 48, "num_heads": 3}


def test_load_by_timm__is_timms_own_with_the_users_keywords(tmp_path):
    """DINOv2's patches of 14 pixels at 16: timm resamples kernel and table, and so it is here."""
    name, asked = "vit_small_patch14_dinov2", {"patch_size": 16, "img_size": 64} | SMALL_DINOV2
    file = timm.create_model(name, img_size=70, **SMALL_DINOV2).state_dict()
    torch.save(file, tmp_path / "w.pth")
    overlay = {"file": str(tmp_path / "w.pth"), "input_size": (3, 70, 70)}
    theirs = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, **asked)
    got = load_by_timm(name, asked, file)
    torch.testing.assert_close(got, dict(theirs.state_dict()), rtol=1e-5, atol=1e-6)


def test_load_by_timm__says_what_is_filled():
    """What the file lacks is not in the result, so that it cannot pass for loaded."""
    file = timm.create_model("test_resnet").state_dict()
    kept = {name: value for name, value in file.items() if not name.startswith("layer3")}
    got = load_by_timm("test_resnet", {"in_chans": 3}, kept | {"x": torch.zeros(1)})
    expected = set(weight_names(kept)) - {"fc.weight", "fc.bias"}
    assert set(weight_names(got)) == expected
    assert all(torch.equal(got[name], file[name]) for name in expected)


@pytest.mark.parametrize("prefix", ["", "backbone.", "model.backbone."])
@pytest.mark.parametrize("channels", [1, 3])
def test_weights__kernels_and_tables_behind_any_prefix(prefix, channels):
    """timm is given the network's own names, whatever stands before them in the file."""
    file = timm.create_model("test_vit", in_chans=channels).state_dict()
    named = {prefix + name: value for name, value in file.items()} | {"neck.x": torch.zeros(1)}
    options = {"in_channels": 5, "img_size": 96, "out_indices": (0,)}
    network = TimmBackbone("test_vit", weights=named, **options).timm_model.model
    kernel = adapt_input_conv(file["patch_embed.proj.weight"], 5)
    torch.testing.assert_close(network.patch_embed.proj.weight, kernel, rtol=0, atol=1e-7)
    table = timm.layers.resample_abs_pos_embed(file["pos_embed"], [6, 6])
    torch.testing.assert_close(network.pos_embed, table, rtol=1e-5, atol=1e-6)


def test_load_by_timm__lets_timm_say_nothing(caplog):
    load_by_timm("test_resnet", {}, {"of.another": torch.zeros(2), "network": torch.zeros(3)})
    assert not caplog.records


def test_load_by_timm__with_the_options_of_the_network():
    """DeiT III's authors name the scale of layers otherwise; timm's function needs an option."""
    name, small = "deit3_small_patch16_224", {"depth": 2}
    ours = timm.create_model(name, **small).state_dict()
    theirs = {
        key.replace("ls1.gamma", "gamma_1").replace("ls2.gamma", "gamma_2"): value
        for key, value in ours.items()
    }
    got = load_by_timm(name, small, theirs)
    assert got.keys() == {key for key in ours if not key.startswith("head")}
    assert all(torch.equal(value, ours[key]) for key, value in got.items())


def test_load_by_timm__archive_of_jax(tmp_path):
    """Weights of the Vision Transformer's authors, which timm alone can read."""
    network = timm.create_model("vit_tiny_patch16_224", depth=1, img_size=32)
    rng = np.random.default_rng(0)
    width, block = 192, "Transformer/encoderblock_0"
    shapes = {
        "embedding/kernel": (16, 16, 3, width),
        "embedding/bias": (width,),
        "cls": (1, 1, width),
        "Transformer/posembed_input/pos_embedding": (1, 5, width),
        f"{block}/MultiHeadDotProductAttention_1/out/kernel": (3, 64, width),
        f"{block}/MultiHeadDotProductAttention_1/out/bias": (width,),
        f"{block}/MlpBlock_3/Dense_0/kernel": (width, 4 * width),
        f"{block}/MlpBlock_3/Dense_0/bias": (4 * width,),
        f"{block}/MlpBlock_3/Dense_1/kernel": (4 * width, width),
        f"{block}/MlpBlock_3/Dense_1/bias": (width,),
    }
    for norm in (f"{block}/LayerNorm_0", f"{block}/LayerNorm_2", "Transformer/encoder_norm"):
        shapes |= {f"{norm}/scale": (width,), f"{norm}/bias": (width,)}
    for part in ("query", "key", "value"):
        start = f"{block}/MultiHeadDotProductAttention_1/{part}"
        shapes |= {f"{start}/kernel": (width, 3, 64), f"{start}/bias": (3, 64)}
    arrays = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    np.savez(tmp_path / "w.npz", **arrays)
    network.load_pretrained(str(tmp_path / "w.npz"))
    backbone = TimmBackbone(
        "vit_tiny_patch16_224",
        depth=1,
        img_size=32,
        out_indices=(0,),
        weights=tmp_path / "w.npz",
    )
    got, expected = backbone.timm_model.model.state_dict(), network.state_dict()
    unused = ("norm.", "head.")  # a feature network has neither
    assert {name for name in expected if not name.startswith(unused)} <= got.keys()
    assert all(torch.equal(value, expected[name]) for name, value in got.items())


def test_load_by_timm__leaves_other_threads_alone(tmp_path):
    """While weights are loaded here, ``pretrained=True`` elsewhere gives pretrained weights."""
    file = timm.create_model("test_resnet").state_dict()
    torch.save(file, tmp_path / "w.pth")
    overlay = {"file": str(tmp_path / "w.pth")}

    def here(_):
        return load_by_timm("test_resnet", {}, file)["conv1.0.weight"]

    def there(_):
        options = {"pretrained": True, "pretrained_cfg_overlay": overlay}
        return timm.create_model("test_resnet", **options).conv1[0].weight

    with ThreadPoolExecutor(4) as threads:
        work = [threads.submit(do, i) for i in range(6) for do in (here, there)]
        for done in work:
            torch.testing.assert_close(done.result(), file["conv1.0.weight"], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("overlay", "addresses"),
    [
        ({"file": "a.pth"}, ("a.pth",)),
        ({"url": "https://a/b.pth"}, ("https://a/b.pth",)),
        ({"hf_hub_id": "owner/name"}, ("hf-hub:owner/name",)),
        ({"hf_hub_id": "owner/name", "hf_hub_filename": "w.bin"}, ("hf-hub:owner/name/w.bin",)),
    ],
)
def test_default_weights__source_of_an_overlay_stands_alone(overlay, addresses):
    keywords = {"pretrained_cfg_overlay": overlay | {"std": (0.1, 0.2, 0.3)}}
    network = timm.create_model("test_resnet", **keywords)
    place = default_weights("test_resnet", network, keywords)
    assert place.addresses == addresses
    assert place.info["std"] == (0.1, 0.2, 0.3)


def test_weights_of_tag__statistics_of_an_overlay():
    keywords = {"pretrained_cfg_overlay": {"file": "a.pth", "mean": (0.5, 0.5, 0.5)}}
    plain = weights_of_tag("resnet50", "a1_in1k")
    place = weights_of_tag("resnet50", "a1_in1k", keywords)
    assert place.addresses == plain.addresses
    assert place.info == plain.info | {"mean": (0.5, 0.5, 0.5)}


CONFIG = timm.get_pretrained_cfg("tf_efficientnet_b0.aa_in1k")


@pytest.mark.parametrize(
    "source",
    [
        CONFIG.url,
        f"some/folder/{CONFIG.url.rpartition('/')[2]}",
        f"hf-hub:{CONFIG.hf_hub_id}",
        f"hub/models--{CONFIG.hf_hub_id.replace('/', '--')}/snapshots/0/model.safetensors",
    ],
)
def test_published_weights__of_another_network(source, caplog):
    """Its norms have eps 1e-3 and its padding depends on the image; no tensor shows that."""
    place = published_weights(source, "tf_efficientnet_b0")
    assert place.addresses == (source,)
    assert place.info["mean"] == CONFIG.mean
    assert not caplog.text
    published_weights(source, "efficientnet_b0")
    assert "is published for timm's 'tf_efficientnet_b0.aa_in1k' and given to" in caplog.text


@pytest.mark.parametrize("source", ["mine.pth", "hf-hub:me/mine", "a/model.safetensors", ""])
def test_published_weights__of_nobody_known(source):
    assert published_weights(source, "resnet18") is None
