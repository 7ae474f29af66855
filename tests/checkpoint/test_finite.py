import logging

import pytest
import torch
from torch import nn

from detrex.checkpoint import load_weights
from detrex.checkpoint.finite import non_finite, require_finite
from detrex.errors import CheckpointError

INF, NAN = float("inf"), float("nan")
FLOATS = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e5m2]


@pytest.mark.parametrize("dtype", [*FLOATS, torch.complex64])
@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_non_finite__counts_by_name(dtype, value):
    bad = torch.tensor([[1, value, 2], [value, 0, 3]]).to(dtype)
    found = non_finite({"good": torch.ones(4).to(dtype), "bad": bad}.items())
    assert list(found) == ["bad"]
    assert found["bad"].startswith("2 NaN of" if value != value else "2 infinite of")


@pytest.mark.parametrize(
    "tensor",
    [
        torch.full((3, 3), -INF).triu(1),
        torch.full((5,), torch.finfo(torch.float32).max),
        torch.full((9,), 60000.0, dtype=torch.float16),
        torch.full((2, 2), -100.0),
        torch.tensor([2**31 - 1, -(2**31)]),
        torch.tensor([True]),
        torch.zeros(0),
        torch.zeros(0, 3, dtype=torch.float16),
        torch.empty(3, device="meta"),
        torch.ones(1).expand(7, 9),
        "text",
        None,
    ],
)
def test_non_finite__what_is_meant(tensor):
    assert non_finite([("a", tensor)]) == {}


@pytest.mark.parametrize(
    ("mask", "is_one"),
    [([0, -INF], True), ([-INF, -INF], False), ([1, -INF], False), ([0, INF], False)],
)
def test_non_finite__a_mask_is_zero_or_minus_infinity(mask, is_one):
    assert (non_finite([("m", torch.tensor(mask))]) == {}) == is_one


@pytest.mark.parametrize(
    ("value", "built", "meant"),
    [
        ([INF, 1], [INF, 2], True),
        ([INF, 1], [-INF, 2], False),
        ([INF, 1], [0, INF], False),
        ([NAN, 1], [NAN, 1], False),
        ([INF, 1], [INF, 1, 1], False),
    ],
)
def test_non_finite__where_the_model_was_built_so(value, built, meant):
    found = non_finite([("a", torch.tensor(value))], {"a": torch.tensor(built)})
    assert (found == {}) == meant


def test_require_finite__names_the_first_of_many_at_any_depth():
    content = {"model": {f"layer{i}.weight": torch.tensor([NAN, INF, 1]) for i in range(5)}}
    with pytest.raises(CheckpointError) as error:
        require_finite(content | {"good": torch.ones(2), "iteration": 3}, "w.pth")
    message = str(error.value)
    assert message.startswith("w.pth holds NaN or infinite values in 5 of its 6 tensors, ")
    assert "'model.layer0.weight' (1 NaN, 1 infinite of 3)" in message
    assert "and 2 more: take another copy" in message
    assert len(message) < 500


def norm():
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


@pytest.mark.parametrize("name", ["0.weight", "1.running_var", "1.bias"])
@pytest.mark.parametrize("value", [NAN, INF])
def test_load_weights__non_finite(name, value):
    module, tensors = norm(), norm().state_dict()
    before = {key: tensor.clone() for key, tensor in module.state_dict().items()}
    tensors[name].view(-1)[1] = value
    with pytest.raises(CheckpointError, match=f"the state dict holds NaN or .*'{name}'"):
        load_weights(module, tensors)
    torch.testing.assert_close(dict(module.state_dict()), before, rtol=0, atol=0)


def test_load_weights__non_finite_but_unused(caplog):
    tensors = dict(norm().state_dict()) | {"head.weight": torch.tensor([NAN])}
    with caplog.at_level(logging.WARNING):
        load_weights(norm(), tensors)
    assert "holds NaN or infinite values in tensors that are unused: 'head.weight'" in caplog.text


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.bool, torch.complex64])
def test_load_weights__numbers_of_another_kind(dtype):
    module, tensors = norm(), norm().state_dict()
    tensors["0.weight"] = tensors["0.weight"].to(dtype)
    with pytest.raises(CheckpointError, match=f"numbers of the type {dtype} for '0.weight', where"):
        load_weights(module, tensors)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float8_e4m3fn])
def test_load_weights__real_numbers_of_another_width(dtype):
    module, tensors = norm(), norm().state_dict()
    tensors["0.weight"] = torch.full((4, 3), 0.5).to(dtype)
    load_weights(module, tensors)
    assert module[0].weight.eq(0.5).all()


def test_require_finite__in_lists_and_of_what_is_no_table():
    require_finite(None, "w.pth")
    require_finite({"a": [1, "x", (torch.ones(2),)]}, "w.pth")
    with pytest.raises(CheckpointError, match=r"'state\.3\.exp_avg' \(1 NaN of 2\)"):
        require_finite({"state": [0, 1, 2, {"exp_avg": torch.tensor([NAN, 1])}]}, "w.pth")
