"""What a lazy call calls, read without calling it."""

import collections

import pytest
from detectron2.config import LazyCall as L
from omegaconf import OmegaConf
from torch import nn

from detrex.config.lazy_call import is_call, parameters_of, plain, target_name, target_of

BY_NAME = OmegaConf.create({"_target_": "torch.nn.Conv2d", "bias": False})


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        (L(nn.Conv2d)(), True),
        (BY_NAME, True),
        (OmegaConf.create({"bias": False}), False),
        (OmegaConf.create(["_target_"]), False),
        ({"_target_": nn.Conv2d}, False),
        (nn.Conv2d, False),
        (None, False),
    ],
)
def test_is_call__of_each_kind(node, expected):
    assert is_call(node) is expected


@pytest.mark.parametrize("call", [L(nn.Conv2d)(bias=False), BY_NAME])
def test_target_of__by_class_or_by_name(call):
    assert target_of(call) is nn.Conv2d
    assert target_name(call) == "Conv2d"
    assert list(parameters_of(call))[:3] == ["in_channels", "out_channels", "kernel_size"]


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        (L(collections.Counter.fromkeys)(), "Counter.fromkeys"),
        (OmegaConf.create({"_target_": "${absent}"}), "DictConfig"),
        (nn.Identity(), "Identity"),
        (None, "NoneType"),
    ],
)
def test_target_name__of_each_kind(node, expected):
    assert target_name(node) == expected


def test_plain__of_each_kind():
    got = plain(OmegaConf.create({"a": [1, {"b": "${a}"}]}))
    assert got == {"a": [1, {"b": "${a}"}]}
    assert type(got) is dict
    assert type(got["a"]) is list
    assert plain((1, 2)) == (1, 2)
