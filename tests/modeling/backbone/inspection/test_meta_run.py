import copy

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from detrex.errors import BackboneError
from detrex.modeling.backbone.inspection.meta_run import (
    SizeRefusedError,
    is_refusal,
    meta_twin,
    on_meta_or_cpu,
    run_on_meta,
    unused_parameters,
)


class ReadsValues(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x):
        return x * self.scale if x.sum().item() == 0 else None


class Square(nn.Conv2d):
    def forward(self, x):
        if x.shape[-2:] != (64, 64):
            raise ValueError("expected 64 x 64")
        return super().forward(x)


def test_meta_twin__shares_no_memory_and_keeps_the_original():
    network = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5))
    network[0].bias.requires_grad_(False)
    before = copy.deepcopy(network.state_dict())
    state = torch.get_rng_state()
    twin = meta_twin(network)
    assert all(tensor.is_meta for tensor in twin.state_dict().values())
    assert [p.requires_grad for p in twin.parameters()] == [True, False, True, True]
    assert network.training
    assert_close(torch.get_rng_state(), state)
    for name, tensor in network.state_dict().items():
        assert_close(tensor, before[name], rtol=0, atol=0)


def test_run_on_meta__tries_the_sizes_in_order():
    meta_run = run_on_meta(Square(3, 5, 3), [(64, 96), (64, 64)])
    assert meta_run.image_size == (64, 64)
    assert meta_run.outputs.shape == (2, 5, 62, 62)
    assert meta_run.outputs.is_meta


def test_run_on_meta__runs_on_zeros_what_reads_values():
    assert run_on_meta(ReadsValues(), [(8, 8)]).outputs.device.type == "cpu"


def test_run_on_meta__says_why_no_size_will_do():
    with pytest.raises(BackboneError, match=r"Square could not be run .*\(expected 64 x 64\)"):
        run_on_meta(Square(3, 5, 3), [(64, 96)])


def test_unused_parameters__names_those_without_gradient():
    network = nn.ModuleDict({"a": nn.Conv2d(3, 5, 1), "b": nn.Conv2d(3, 5, 1)})
    meta_run = run_on_meta(network, [(8, 8)], run=lambda twin, image: [twin["a"](image)])
    assert unused_parameters(meta_run.twin, meta_run.outputs) == ["b.weight", "b.bias"]


@pytest.mark.parametrize(
    ("error", "is_one"),
    [
        (AssertionError("size"), True),
        (RuntimeError("shape mismatch"), True),
        (ZeroDivisionError("1 // 0"), True),
        (SizeRefusedError("no"), True),
        (BackboneError("told already"), False),
        (TypeError("str"), False),
        (NotImplementedError("no kernel"), False),
        (torch.OutOfMemoryError("full"), False),
        (RuntimeError("Tensor.item() cannot be called on meta tensors"), False),
    ],
)
def test_is_refusal(error, is_one):
    assert is_refusal(error) == is_one


def test_run_on_meta__tells_faults_from_refusals():
    with pytest.raises(SizeRefusedError):
        run_on_meta(Square(3, 5, 3), [(64, 96)])
    broken = nn.Conv2d(3, 5, 3)
    broken.forward = lambda x: {}["colour"]
    with pytest.raises(BackboneError, match=r"KeyError \('colour'\)") as told:
        run_on_meta(broken, [(64, 64)])
    assert not isinstance(told.value, SizeRefusedError)


@pytest.mark.parametrize("error", [BackboneError, RuntimeError, NotImplementedError])
def test_on_meta_or_cpu__the_cpu_only_where_meta_fails(error):
    assert on_meta_or_cpu(lambda device: device) == "meta"

    def reads_values(device):
        if device == "meta":
            raise error("it reads values")
        return device

    assert on_meta_or_cpu(reads_values) == "cpu"
    with torch.device("meta"), pytest.raises(error, match="reads values"):
        on_meta_or_cpu(reads_values)
