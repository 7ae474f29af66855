"""Norms by name: which classes come out, and that converted ones compute what they stand for."""

import copy
import functools
import logging

import pytest
import timm.layers
import torch
from detectron2.layers import FrozenBatchNorm2d, NaiveSyncBatchNorm
from detectron2.layers.batch_norm import LayerNorm
from torch import nn
from torch.testing import assert_close

from detrex.errors import BackboneError
from detrex.modeling.backbone import TimmBackbone, TorchvisionBackbone
from detrex.modeling.backbone.training.norms import Norm, chosen_norm, norm_kind


def norms_of(backbone):
    """Classes of the modules that normalise."""
    modules = [m for m in backbone.modules() if not list(m.children())]
    return {type(m) for m in modules if "Norm" in type(m).__name__}


def chosen(norm_layer, library="timm", frozen_norm=False, native="batch"):
    return chosen_norm(norm_layer, frozen_norm, library, lambda: native)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("BN", nn.BatchNorm2d),
        ("SyncBN", nn.SyncBatchNorm),
        ("nnSyncBN", nn.SyncBatchNorm),
        ("naiveSyncBN", NaiveSyncBatchNorm),
        ("naiveSyncBN_N", NaiveSyncBatchNorm),
        ("FrozenBN", FrozenBatchNorm2d),
        ("GN", timm.layers.GroupNorm),
        ("LN", timm.layers.LayerNorm2d),
        ("groupnorm1", timm.layers.GroupNorm1),
    ],
)
def test_norm_layer__name_in_a_network_of_timm(name, expected):
    backbone = TimmBackbone("resnet18", out_indices=(1,), norm_layer=name)
    assert norms_of(backbone) == {expected}


@pytest.mark.parametrize(
    ("name", "expected"),
    [("SyncBN", nn.SyncBatchNorm), ("GN", nn.GroupNorm), ("naiveSyncBN", NaiveSyncBatchNorm)],
)
def test_norm_layer__name_in_a_network_of_torchvision(name, expected):
    backbone = TorchvisionBackbone("resnet18", return_nodes=["layer1"], norm_layer=name)
    assert norms_of(backbone) == {expected}
    backbone.train()(torch.randn(2, 3, 32, 32))["layer1"].sum().backward()


@pytest.mark.parametrize("name", ["SyncBN", "naiveSyncBN"])
@pytest.mark.parametrize("training", [True, False])
def test_convert__computes_what_the_batch_norm_does(name, training):
    plain = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5, eps=1e-2, momentum=0.3))
    nn.init.uniform_(plain[1].weight, 0.5, 2)
    nn.init.uniform_(plain[1].running_var, 0.5, 2)
    synced = copy.deepcopy(plain)
    Norm(synced=name).convert(synced, "net", (8, 8))
    assert type(synced[1]) is not nn.BatchNorm2d
    image = torch.randn(4, 3, 7, 11)
    expected, output = plain.train(training)(image), synced.train(training)(image)
    assert_close(output, expected, rtol=1e-5, atol=1e-5)
    for key, tensor in plain.state_dict().items():
        assert_close(synced.state_dict()[key], tensor, rtol=1e-5, atol=1e-6)


def test_convert__fused_norms_of_timm():
    backbone = TimmBackbone("test_efficientnet", norm_layer="SyncBN")
    fused = [m for m in backbone.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert {type(module) for module in fused} == {timm.layers.SyncBatchNormAct}
    with pytest.raises(BackboneError, match="class BatchNormAct2d, which naiveSyncBN cannot"):
        TimmBackbone("test_efficientnet", norm_layer="naiveSyncBN")


def test_convert__warns_where_there_is_no_batch_norm(caplog):
    with caplog.at_level(logging.WARNING, logger="detrex"):
        Norm(synced="SyncBN").convert(nn.Conv2d(3, 5, 1), "net", (8, 8))
    assert "net has no batch norm, so SyncBN changes nothing" in caplog.text


def test_chosen_norm__own_norms_are_left_as_they_are():
    assert chosen("LN", native="layer").keywords == chosen("BN", native="batch").keywords == {}
    assert chosen("LN", "torchvision").keywords == {"norm_layer": LayerNorm}
    assert chosen("BN", native="layer").keywords == {"norm_layer": nn.BatchNorm2d}
    assert chosen("").keywords == {"norm_layer": nn.Identity}


def test_chosen_norm__classes_and_functions_are_passed_on():
    make = functools.partial(nn.GroupNorm, 4)
    assert chosen(make).keywords == {"norm_layer": make}
    assert chosen(None) == Norm()
    assert chosen(None, frozen_norm=True) == chosen("FrozenBN") == Norm(frozen=FrozenBatchNorm2d)


@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_chosen_norm__unknown_name(library):
    with pytest.raises(BackboneError, match=r"no norm is named 'SyncBM'. Did you mean 'SyncBN'"):
        chosen("SyncBM", library)


def test_chosen_norm__neither_name_nor_function():
    with pytest.raises(TypeError, match=r"norm_layer must be a class, .* got 3"):
        chosen(3)


def test_chosen_norm__frozen_and_synchronised():
    with pytest.raises(BackboneError, match="'SyncBN' beside frozen_norm=True"):
        chosen("SyncBN", frozen_norm=True)


@pytest.mark.parametrize(
    ("name", "norm"), [("test_efficientnet", "GN"), ("test_vit", "BN"), ("test_convnext", "GN")]
)
def test_norm_layer__that_does_not_fit_is_named(name, norm):
    with pytest.raises(BackboneError, match=f"norm_layer='{norm}' does not fit: timm's") as error:
        TimmBackbone(name, norm_layer=norm)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize(
    ("build", "norm", "word"),
    [
        (lambda **norm: TimmBackbone("test_vit", **norm), nn.BatchNorm2d, "BatchNorm2d"),
        (lambda **norm: TorchvisionBackbone("swin_t", out_strides=(8,), **norm), "GN", "'GN'"),
        (
            lambda **norm: TorchvisionBackbone("swin_t", out_strides=(8,), **norm),
            functools.partial(nn.GroupNorm, 32),
            "functools",
        ),
    ],
)
def test_norm_layer__that_does_not_run_is_named(build, norm, word):
    with pytest.raises(BackboneError, match=f"norm_layer={word}.* does not fit") as error:
        build(norm_layer=norm)
    assert len(str(error.value)) < 500
    assert "\n" not in str(error.value)


def test_norm_kind():
    assert norm_kind(nn.Sequential(nn.LayerNorm(3), nn.BatchNorm2d(3), nn.LayerNorm(3))) == "layer"
    assert norm_kind(nn.GroupNorm(1, 3)) == "group"
    assert norm_kind(nn.Conv2d(3, 3, 1)) == "none"
