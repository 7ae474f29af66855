"""Networks without random values: what they get of a file, and what becomes of the rest.

What is not drawn is NaN here, so that whatever is left of it shows.
"""

import functools
import math
from itertools import chain

import pytest
import torch
from torch import nn

from detrex.checkpoint import load_weights
from detrex.modeling.backbone import TimmBackbone, TorchvisionBackbone
from detrex.modeling.backbone.timm_backbone.builder import create_network
from detrex.modeling.backbone.torchvision_backbone.builder import build_classifier
from detrex.modeling.backbone.weights.late_init import LateInit, SkipRandomFills

# Kinds of constructors; keywords make them small.
TIMM = {
    "test_resnet": {},
    "test_convnext": {},
    "test_maxvit": {},
    "test_vit": {},
    "swinv2_tiny_window8_256": {"depths": (1, 1, 1, 1), "embed_dim": 24},
    "beit_base_patch16_224": {"depth": 4, "embed_dim": 48, "num_heads": 3},
    "vit_small_patch16_dinov3": {"depth": 4, "embed_dim": 96, "num_heads": 3},
}
TORCHVISION = ["resnet18", "swin_t"]


@pytest.fixture(autouse=True)
def _blank_is_nan(monkeypatch):
    def poison(self, tensor):
        with torch.no_grad():
            tensor.fill_(math.nan)
        self._note(tensor)

    monkeypatch.setattr(SkipRandomFills, "_skip", poison)


def tensors(module):
    return dict(chain(module.named_parameters(), module.named_buffers()))


def builder(library, name, keywords):
    if library == "timm":
        return functools.partial(create_network, name, keywords)
    return functools.partial(build_classifier, name, **keywords)


@pytest.mark.parametrize(
    ("library", "name", "keywords"),
    [*(("timm", n, k) for n, k in TIMM.items()), *(("torchvision", n, {}) for n in TORCHVISION)],
)
def test_late_init__network_is_the_one_that_was_initialised_first(library, name, keywords):
    build = builder(library, name, keywords)
    expected = build()
    with torch.no_grad():
        for value in expected.state_dict().values():
            if value.is_floating_point():
                value.add_(torch.rand_like(value) * 0.01)
    random_state = torch.get_rng_state()
    late = LateInit(build)
    assert load_weights(late.network, expected.state_dict()).share == 1
    assert late.fill_rest(late.network, late.network.state_dict(keep_vars=True).values()) == []
    assert torch.equal(torch.get_rng_state(), random_state), "random numbers were drawn"
    found = tensors(late.network)
    assert found.keys() == tensors(expected).keys()
    for key, value in tensors(expected).items():
        assert torch.equal(found[key], value), key


@pytest.mark.parametrize(("library", "name"), [("timm", "test_vit"), ("torchvision", "resnet18")])
def test_late_init__what_the_file_lacks_is_initialised(library, name):
    """Levels, channels of the image, and a layer that is not there."""
    state = builder(library, name, {})().state_dict()
    gone = next(
        key
        for key in reversed(state)
        if key.endswith("mlp.fc1.weight" if library == "timm" else "layer4.1.conv1.weight")
    )
    state = {
        key: value
        for key, value in state.items()
        if key not in (gone, gone.replace("conv1", "bn1"))
    }
    backbone_of = {"timm": TimmBackbone, "torchvision": TorchvisionBackbone}[library]
    backbone = backbone_of(name, out_strides=(4, 32), in_channels=5, weights=state)
    named = tensors(backbone)
    assert not any(value.isnan().any() for value in named.values() if value.is_floating_point())
    drawn = next(value for key, value in named.items() if key.endswith(gone))
    plain = tensors(builder(library, name, {})())[gone]
    assert drawn.std().item() == pytest.approx(plain.std().item(), rel=0.1)


class Odd(nn.Module):
    """Ways to come to a value of random ones."""

    def __init__(self):
        super().__init__()
        drawn = torch.empty(4, 4).normal_()
        self.scaled = nn.Parameter(drawn * 2)
        self.joined = nn.Parameter(torch.cat([torch.ones(1, 4), drawn]))
        self.register_buffer("written", torch.zeros(4, 4))
        self.written[1:] = drawn[1:]
        self.register_buffer("copied", torch.zeros(4, 4).copy_(drawn))
        self.register_buffer("by_data", torch.zeros(4))
        nn.init.uniform_(self.by_data.data[:2])
        self.register_buffer("overwritten", torch.empty(4).normal_().fill_(3))
        self.register_buffer("counted", torch.arange(4.0).add_(1).clamp_(max=3))
        nn.init.orthogonal_(self.scaled)


def test_late_init__what_is_computed_of_random_values_counts_as_random():
    late = LateInit(Odd)
    kept = {name: value.clone() for name, value in late.network.named_buffers()}
    names = late.fill_rest(late.network, [])
    assert {*names} == {"scaled", "joined", "written", "copied", "by_data"}
    for name in ("overwritten", "counted"):
        assert torch.equal(late.network.get_buffer(name), kept[name])
    assert not any(value.isnan().any() for value in tensors(late.network).values())
    torch.testing.assert_close(
        late.network.scaled @ late.network.scaled.T, torch.eye(4), rtol=0, atol=1e-5
    )


def test_late_init__buffers_without_random_values_build_nothing_again():
    built = []

    def build():
        built.append(nn.BatchNorm1d(3))
        return built[-1]

    late = LateInit(build)
    assert late.fill_rest(late.network, late.network.parameters()) == []
    assert len(built) == 1


class NeedsValues(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(3))
        nn.init.normal_(self.weight)
        if not self.weight.isfinite().all():
            raise ValueError("no value")


def test_late_init__constructor_that_computes_with_its_values_is_run_in_full():
    late = LateInit(NeedsValues)
    assert late.network.weight.isfinite().all()
    assert late.fill_rest(late.network, [late.network.weight]) == []


def test_skip_random_fills__on_meta_and_in_other_code():
    with SkipRandomFills() as skipped, torch.device("meta"):
        assert nn.Linear(3, 3).weight.is_meta
    assert not skipped.is_blank(torch.empty(3))
    assert not nn.Linear(3, 3).weight.isnan().any()


class _Loose(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = torch.empty(64).normal_()


def test_late_init__random_values_that_are_no_buffer():
    torch.manual_seed(0)
    expected = _Loose().table
    torch.manual_seed(0)
    assert torch.equal(LateInit(_Loose).network.table, expected)
