"""What the networks of four stages publish, refuse, and do with stages that no output needs."""

import math

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from detrex.errors import BackboneError
from detrex.modeling.backbone.staged import (
    StagedBackbone,
    check_builder,
    check_integer,
    check_number,
    check_stages,
    drop_path_rates,
)


class Stages(StagedBackbone):
    def forward(self, x):
        raise NotImplementedError


def test_staged_backbone__publishes_in_ascending_order():
    backbone = Stages([5, 7, 11, 13], 3, OmegaConf.create([3, 0]), 4)
    shapes = {name: (s.channels, s.stride) for name, s in backbone.output_shape().items()}
    assert list(shapes.items()) == [("p0", (5, 3)), ("p3", (13, 24))]
    assert backbone.out_indices == (0, 3)
    assert backbone.size_divisibility == 24
    assert backbone.preprocess.pixel_mean == (123.675, 116.28, 103.53, 123.675)


def test_staged_backbone__outputs_by_the_names_of_strides():
    backbone = Stages([5, 7, 11, 13], 8, (0, 1, 2, 3), 3, OmegaConf.create(["res5", "res3"]))
    shapes = {name: (s.channels, s.stride) for name, s in backbone.output_shape().items()}
    assert list(shapes.items()) == [("res3", (5, 8)), ("res5", (11, 32))]
    assert backbone.out_indices == (0, 2)
    assert backbone.output_names == {0: "res3", 2: "res5"}


@pytest.mark.parametrize(
    ("stride", "indices", "names", "message"),
    [
        (4, (0, 1, 2, 3), ["res6"], r"levels res2, res3, res4, res5, got out_features=\['res6'\]"),
        (4, (1, 2), ["res3"], r"out_features=\['res3'\] beside out_indices=\[1, 2\]"),
        (3, (0, 1, 2, 3), ["res3"], r"strides \(3, 6, 12, 24\), .* use out_indices"),
    ],
)
def test_staged_backbone__refuses_names(stride, indices, names, message):
    with pytest.raises(BackboneError, match=message):
        Stages([1] * 4, stride, indices, 3, names)


@pytest.mark.parametrize("wrong", [[], [4], [-1], [0, 0]])
def test_staged_backbone__refuses_indices(wrong):
    with pytest.raises(BackboneError, match=r"has the stages 0, 1, 2 and 3, got out_indices=\["):
        Stages([1] * 4, 4, wrong, 3)


@pytest.mark.parametrize(
    "wrong",
    [
        *(2, "012", ["p0"], [True], [1.0], None, b"\1\2", {0: 1}, {0, 1}, np.array(1)),
        *((i for i in (0, 1)), iter([0, 1]), map(int, "01")),
    ],
)
def test_staged_backbone__refuses_other_types(wrong):
    with pytest.raises(TypeError, match="takes a sequence of integers as out_indices, got"):
        Stages([1] * 4, 4, wrong, 3)


def test_with_idle__gives_a_gradient_of_zero_to_what_learns():
    backbone = Stages([1] * 4, 4, [0], 3)
    idle = nn.ModuleList([nn.Linear(3, 5), nn.Linear(5, 2).requires_grad_(False)])
    feature_map = torch.randn(2, 1, 3, 5, requires_grad=True)
    outputs = backbone._with_idle({"p0": feature_map}, idle)
    torch.testing.assert_close(outputs["p0"], feature_map, rtol=0, atol=0)
    outputs["p0"].sum().backward()
    assert not idle[0].weight.grad.any()
    assert idle[0].bias.grad is not None
    assert idle[1].weight.grad is None


@pytest.mark.parametrize(
    ("check", "value", "message"),
    [
        (lambda v: check_integer("Net", "width", v, 1), 0, "an integer of at least 1 as width"),
        (lambda v: check_integer("Net", "width", v, 1), True, "an integer of at least 1"),
        (lambda v: check_integer("Net", "n", v, -1, 4), 5, "an integer from -1 to 4 as n, got 5"),
        (lambda v: check_number("Net", "rate", v, 0, 1), 1.5, "a number from 0 to 1 as rate"),
        (lambda v: check_number("Net", "rate", v, 0, 1), float("nan"), "a number from 0 to 1"),
        (lambda v: check_number("Net", "rate", v, 0), "x" * 999, "a number of at least 0"),
        (lambda v: check_number("Net", "rate", v, 0), float("inf"), "at least 0 as rate, got inf"),
        (lambda v: check_number("Net", "x", v, -math.inf), None, "takes a number as x, got None"),
        (
            lambda v: check_stages("Net", "depths", v),
            [1, 2, 3],
            r"four integers .* got \[1, 2, 3\]",
        ),
        (lambda v: check_stages("Net", "depths", v), [1, 2, 0, 3], "four integers of at least 1"),
    ],
)
def test_checks__refuse_in_one_sentence(check, value, message):
    with pytest.raises(BackboneError, match=message) as caught:
        check(value)
    assert len(str(caught.value)) < 200


def test_checks__take_numpys_numbers():
    check_number("Net", "rate", np.float64(0.5), 0, 1)
    check_integer("Net", "width", np.int64(3), 1)
    numbers = check_stages("Net", "depths", np.array([1, 2, 3, 4]))
    assert numbers == [1, 2, 3, 4]
    assert {type(number) for number in numbers} == {int}


@pytest.mark.parametrize("layer", ["LN", None, nn.LayerNorm(4), nn.Sequential(nn.GELU())])
def test_check_builder__refuses_layers_themselves(layer):
    check_builder("Net", "norm_layer", nn.LayerNorm)
    with pytest.raises(
        TypeError, match=r"Net takes a class .* as norm_layer, .*, got .*$"
    ) as caught:
        check_builder("Net", "norm_layer", layer)
    assert "\n" not in str(caught.value)


def test_drop_path_rates__rise_linearly_over_all_blocks():
    assert drop_path_rates(0.5, [1, 2, 1, 2]) == [
        [0.0],
        [pytest.approx(0.1), pytest.approx(0.2)],
        [pytest.approx(0.3)],
        [pytest.approx(0.4), pytest.approx(0.5)],
    ]
    assert drop_path_rates(0.5, [1]) == [[0.0]]
