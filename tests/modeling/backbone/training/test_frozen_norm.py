import copy
import functools
import sys

import pytest
import torch
import torchvision
from detectron2.layers import FrozenBatchNorm2d, NaiveSyncBatchNorm
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.testing import assert_close

from detrex.catalog.table import packaged_file, read_catalog
from detrex.errors import BackboneError
from detrex.modeling.backbone.timm_backbone.spec import inspect_network
from detrex.modeling.backbone.training.frozen_norm import (
    FrozenBatchNormAct,
    convert_frozen_norm,
    freeze_norms,
    frozen_norm_class,
)

timm = pytest.importorskip("timm")

KEY_CONVERSIONS = {
    "test_resnet": 64,
    "test_byobnet": 64,
    "test_efficientnet": 64,
    "mobilenetv3_small_050": 64,
    "hardcorenas_a": 64,
    "lcnet_050": 64,
    "regnetx_002": 64,
    "ese_vovnet19b_slim_dw": 64,
    "densenet121": 64,
    "cs3darknet_focus_s": 64,
    "dpn48b": 64,
    "inception_v3": 96,
    "mobilevit_xxs": 64,
    "ghostnet_050": 64,
    "efficientvit_m0": 224,
    "levit_128s": 224,
}


def randomise(module):
    """Give the batch norms statistics and weights that are far from their first values."""
    for norm in module.modules():
        if isinstance(norm, _BatchNorm):
            norm.running_mean.normal_(0, 0.5)
            norm.running_var.uniform_(0.5, 2)
            if norm.affine:
                nn.init.normal_(norm.weight, 1, 0.2)
                nn.init.normal_(norm.bias, 0, 0.2)
    return module


@pytest.mark.parametrize("name", KEY_CONVERSIONS)
def test_convert_frozen_norm__equals_timm_in_evaluation(name):
    network = randomise(timm.create_model(name, features_only=True)).double().eval()
    frozen = convert_frozen_norm(copy.deepcopy(network))
    image = torch.randn(2, 3, KEY_CONVERSIONS[name], KEY_CONVERSIONS[name], dtype=torch.float64)
    assert not any(isinstance(module, _BatchNorm) for module in frozen.modules())
    assert frozen.state_dict().keys() == network.state_dict().keys()
    with torch.no_grad():
        for expected, actual in zip(network(image), frozen(image), strict=True):
            assert_close(actual, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("frozen_class", [FrozenBatchNorm2d, torchvision.ops.FrozenBatchNorm2d])
@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize("affine", [False, True])
def test_convert_frozen_norm__is_exact_in_training_mode(frozen_class, requires_grad, affine):
    network = randomise(nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5, 1e-3, affine=affine)))
    image = torch.randn(2, 3, 7, 11, requires_grad=requires_grad)
    expected = network.eval()(image)
    frozen = convert_frozen_norm(network.train(), frozen_class)
    assert isinstance(frozen[1], frozen_class)
    assert_close(frozen(image), expected, rtol=1e-5, atol=1e-6)
    assert not list(frozen[1].parameters())


@pytest.mark.parametrize(
    ("norm", "shape"),
    [
        (nn.BatchNorm1d(5), (3, 5)),
        (nn.BatchNorm1d(5), (3, 5, 7)),
        (nn.BatchNorm3d(5), (2, 5, 3, 2, 7)),
        (NaiveSyncBatchNorm(5), (2, 5, 3, 7)),
        (timm.layers.BatchNormAct2d(5, act_layer=nn.SiLU), (2, 5, 3, 7)),
    ],
)
def test_convert_frozen_norm__keeps_axes_and_activation(norm, shape):
    x = torch.randn(shape, requires_grad=True)
    expected = randomise(norm).eval()(x)
    frozen = convert_frozen_norm(norm)
    assert isinstance(frozen, FrozenBatchNormAct)
    assert_close(frozen(x), expected, rtol=1e-5, atol=1e-6)
    assert_close(frozen.train()(x), expected, rtol=1e-5, atol=1e-6)


class _Shift(nn.Module):
    def __init__(self, *_, **__):
        super().__init__()

    def forward(self, x):
        return x - 1


def test_convert_frozen_norm__drops_before_it_activates():
    norm = timm.layers.BatchNormAct2d(5, act_layer=nn.ReLU, drop_layer=_Shift)
    x = torch.randn(2, 5, 3, 7)
    plain = nn.functional.batch_norm(x, norm.running_mean, norm.running_var, eps=norm.eps)
    assert_close(convert_frozen_norm(norm)(x), (plain - 1).relu(), rtol=1e-5, atol=1e-6)


def test_convert_frozen_norm__keeps_half_precision():
    frozen = convert_frozen_norm(nn.BatchNorm1d(5))
    assert frozen(torch.randn(2, 5, 7, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_convert_frozen_norm__converts_a_shared_norm_once():
    norm = nn.BatchNorm2d(5)
    network = convert_frozen_norm(nn.ModuleList([nn.Sequential(norm), nn.Sequential(norm)]))
    assert network[0][0] is network[1][0]
    assert isinstance(network[0][0], FrozenBatchNorm2d)


def test_convert_frozen_norm__takes_the_checkpoint_of_the_live_network():
    network = randomise(nn.Sequential(nn.BatchNorm2d(5), nn.BatchNorm1d(5)))
    frozen = convert_frozen_norm(nn.Sequential(nn.BatchNorm2d(5), nn.BatchNorm1d(5)))
    frozen.load_state_dict(network.state_dict(), strict=True)
    assert_close(frozen[0].running_var, network[0].running_var)


def test_convert_frozen_norm__refuses_a_norm_without_statistics():
    with pytest.raises(BackboneError, match="no running statistics to freeze"):
        convert_frozen_norm(nn.BatchNorm2d(5, track_running_stats=False))


def test_convert_frozen_norm__refuses_unknown_arithmetic():
    class Twice(nn.BatchNorm2d):
        def forward(self, x):
            return 2 * super().forward(x)

    with pytest.raises(BackboneError, match="Twice is a batch norm with a forward of its own"):
        convert_frozen_norm(Twice(5))


@pytest.mark.parametrize(
    ("norm_layer", "expected"),
    [
        (None, None),
        ("BN", None),
        (nn.BatchNorm2d, None),
        (functools.partial(nn.GroupNorm, 4), None),
        ("FrozenBN", FrozenBatchNorm2d),
        (FrozenBatchNorm2d, FrozenBatchNorm2d),
        (functools.partial(FrozenBatchNorm2d, eps=1e-3), FrozenBatchNorm2d),
        (torchvision.ops.FrozenBatchNorm2d, torchvision.ops.FrozenBatchNorm2d),
    ],
)
def test_frozen_norm_class(norm_layer, expected):
    assert frozen_norm_class(norm_layer) is expected


def test_freeze_norms__warns_where_there_is_nothing_to_freeze(caplog):
    freeze_norms(nn.Conv2d(3, 3, 1), FrozenBatchNorm2d, "net", (4, 4))
    assert "net has no batch norm" in caplog.text


def test_freeze_norms__leaves_no_norm_live():
    network = nn.Sequential(nn.BatchNorm2d(3), nn.InstanceNorm2d(3, track_running_stats=True))
    with pytest.raises(BackboneError, match="net keeps the running statistics of 1 of class Inst"):
        freeze_norms(network, FrozenBatchNorm2d, "net", (4, 4))


def test_freeze_norms__proves_itself_in_debug_mode(monkeypatch, caplog):
    monkeypatch.setenv("DETREX_DEBUG", "1")
    caplog.set_level("INFO")
    network = randomise(timm.create_model("test_efficientnet", features_only=True)).train()
    before = copy.deepcopy(network.state_dict())
    freeze_norms(network, FrozenBatchNorm2d, "net", (64, 64))
    assert "net: frozen norms proved equal" in caplog.text
    assert network.training
    for name, tensor in network.state_dict().items():
        assert_close(tensor, before[name], rtol=0, atol=0)


def test_freeze_norms__debug_mode_finds_a_wrong_conversion(monkeypatch):
    class Wrong(FrozenBatchNorm2d):
        def forward(self, x):
            return super().forward(x) * 1.001

    monkeypatch.setenv("DETREX_DEBUG", "1")
    network = randomise(timm.create_model("test_resnet", features_only=True))
    with pytest.raises(BackboneError, match=r"changed its features by .* expected at most 1e-05"):
        freeze_norms(network, Wrong, "net", (64, 64))


def smallest_of_each_module(library):
    """For each module of a library the name of its smallest architecture that has batch norms."""
    entries = [e for e in read_catalog(packaged_file()).entries if e.library == library]
    modules = {}
    for entry in sorted(entries, key=lambda e: e.params):
        if library == "timm":
            module = timm.model_entrypoint(entry.name).__module__
        else:
            module = torchvision.models.get_model_builder(entry.name).__module__
        modules.setdefault(module, []).append(entry.name)
    for names in modules.values():
        for name in names:
            if any(isinstance(m, _BatchNorm) for m in build(name, library, "meta").modules()):
                yield name
                break


def build(name, library, device):
    with torch.device(device):
        if library == "timm":
            return timm.create_model(name, features_only=True)
        with torch.device("cpu"):  # its RegNets compute with values
            return torchvision.models.get_model(name, weights=None)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_convert_frozen_norm__one_architecture_of_every_module(library):
    worst = {}
    for name in smallest_of_each_module(library):
        torch.manual_seed(0)
        size = inspect_network(name, {}).example_size if library == "timm" else (224, 224)
        network = randomise(build(name, library, "cpu")).double().eval()
        image = torch.randn(2, 3, *size, dtype=torch.float64)
        with torch.no_grad():
            expected = network(image)
            frozen = convert_frozen_norm(network)
            outputs = frozen.train(False)(image)
        assert not any(isinstance(m, _BatchNorm) for m in frozen.modules()), name
        pairs = zip(*([o] if torch.is_tensor(o) else o for o in (outputs, expected)), strict=True)
        worst[name] = max(
            float((a - b).abs().max() / b.abs().max().clamp_min(1e-12)) for a, b in pairs
        )
        sys.stdout.write(f"{name:<36} {worst[name]:.1e}\n")
    assert len(worst) > 10
    assert max(worst.values()) <= 1e-5, worst
