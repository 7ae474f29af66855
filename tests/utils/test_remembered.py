import pytest
import torch
from torch._subclasses import FakeTensorMode

from detrex.utils.remembered import remembered

CPU = torch.device("cpu")


@pytest.fixture
def ramp():
    @remembered(2)
    def ramp(length, device):
        ramp.calls += 1
        return torch.arange(length, device=device) * 0.5

    ramp.calls = 0
    return ramp


def test_remembered__the_last_values_are_kept(ramp):
    first = ramp(3, CPU)
    assert ramp(3, CPU) is first
    ramp(4, CPU)
    ramp(5, CPU)
    assert ramp(3, CPU) is not first
    assert ramp.calls == 4


def test_remembered__keep(ramp):
    first = ramp(3, CPU)
    assert ramp(3, CPU, keep=False) is not first
    assert ramp(3, CPU) is first


def test_remembered__made_in_inference_mode_serves_gradients(ramp):
    with torch.inference_mode():
        ramp(3, CPU)
    weight = torch.ones(3, requires_grad=True)
    (weight * ramp(3, CPU)).sum().backward()
    assert weight.grad.tolist() == [0.0, 0.5, 1.0]


def test_remembered__fake_tensors_stay_in_their_mode(ramp):
    with FakeTensorMode():
        assert ramp(3, CPU).device == CPU
    assert ramp(3, CPU).tolist() == [0.0, 0.5, 1.0]
    with FakeTensorMode():
        (torch.ones(3) * ramp(3, CPU)).sum()


def test_remembered__export_and_trace_see_the_operations():
    @remembered(2)
    def ramp(length, device):
        return torch.arange(length, device=device) * 0.5

    class Adds(torch.nn.Module):
        def forward(self, x):
            return x + ramp(x.shape[0], x.device)

    ramp(3, CPU)
    length = torch.export.Dim("length", min=2, max=64)
    exported = torch.export.export(
        Adds(), (torch.zeros(3),), dynamic_shapes={"x": {0: length}}
    ).module()
    assert exported(torch.zeros(5)).tolist() == [0.0, 0.5, 1.0, 1.5, 2.0]


def test_remembered__default_dtype_is_told_apart(ramp):
    assert ramp(3, CPU).dtype == torch.float32
    try:
        torch.set_default_dtype(torch.float64)
        assert ramp(3, CPU).dtype == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
