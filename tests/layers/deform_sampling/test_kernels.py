"""The choice of the kernel of deformable attention."""

import dataclasses

import pytest
import torch
from detectron2.config import LazyCall
from omegaconf import OmegaConf

from detrex.config.schema import Train
from detrex.engine import build_model
from detrex.errors import ConfigError
from detrex.layers import multi_scale_deformable_attn_pytorch
from detrex.layers.deform_sampling import (
    deformable_attention_kernel,
    kernels,
    set_deformable_attention_kernel,
)


def _attend(device="cpu"):
    value, locations, weights = torch.rand(1, 6, 2, 4), torch.rand(1, 3, 2, 1, 2, 2), torch.rand(12)
    inputs = (t.to(device) for t in (value, locations, weights.view(1, 3, 2, 1, 2)))
    value, locations, weights = inputs
    return multi_scale_deformable_attn_pytorch(value, [(2, 3)], locations, weights)


@pytest.fixture
def calls(monkeypatch):
    """Kernels that only note their names; the third is for a card."""
    noted = []

    def kernel(name, reason=lambda device: ""):
        class Kernel:
            @staticmethod
            def why_not(device, dtype):
                return reason(device)

            @staticmethod
            def attend(value, locations, weights, sizes):
                noted.append(name)
                return value

        return Kernel

    card = kernel("triton", lambda device: "" if device == "cuda" else "it needs a card")
    known = {"grid_sample": kernel("grid_sample"), "rows": kernel("rows"), "triton": card}
    monkeypatch.setattr(kernels, "_KERNELS", known)
    monkeypatch.setattr(kernels, "KERNEL_NAMES", ("auto", *known))
    monkeypatch.setattr(kernels, "_wanted", None)
    monkeypatch.delenv(kernels.VARIABLE, raising=False)
    kernels._chosen.cache_clear()
    yield noted
    kernels._chosen.cache_clear()


def test_attend__takes_the_fastest_and_logs_it_once(calls, caplog):
    with caplog.at_level("INFO", kernels.__name__):
        _attend()
        _attend()
        _attend("meta")
    assert calls == ["rows", "rows", "grid_sample"]
    assert [record.message for record in caplog.records] == [
        "Deformable attention runs by rows on cpu.",
        "Deformable attention runs by grid_sample on meta.",
    ]


def test_attend__falls_back_with_a_reason(calls, caplog, monkeypatch):
    monkeypatch.setattr(kernels, "_PREFERRED", {"cpu": "triton"})
    with caplog.at_level("INFO", kernels.__name__):
        _attend()
    assert calls == ["grid_sample"]
    assert "grid_sample: triton cannot, it needs a card" in caplog.text


def test_attend__function_goes_before_variable_and_block_before_both(calls, monkeypatch):
    monkeypatch.setenv(kernels.VARIABLE, "grid_sample")
    _attend()
    with deformable_attention_kernel("auto"):
        _attend()
    _attend()
    set_deformable_attention_kernel("rows")
    _attend()
    assert calls == ["grid_sample", "rows", "grid_sample", "rows"]


def test_attend__forced_kernel_that_cannot_run_is_refused(calls):
    with (
        deformable_attention_kernel("triton"),
        pytest.raises(ConfigError, match=r"'triton' .* cannot run on cpu in float32: it needs a"),
    ):
        _attend()


def test_set__unknown_names_are_refused(calls, monkeypatch):
    with pytest.raises(ConfigError, match=r"one of auto, .*, got 'trito'.* Did you mean 'triton'"):
        set_deformable_attention_kernel("trito")
    monkeypatch.setenv(kernels.VARIABLE, "row")
    with pytest.raises(ConfigError, match=rf"variable {kernels.VARIABLE} must be .* got 'row'"):
        _attend()


def test_names__are_the_choices_of_the_config():
    fields = {one.name: one for one in dataclasses.fields(Train)}
    choices = fields["deformable_attention_kernel"].metadata["rule"].choices
    assert choices == kernels.KERNEL_NAMES


def test_set__by_the_config(calls):
    model = LazyCall(torch.nn.Linear)(in_features=1, out_features=1)
    cfg = {"model": model, "train": {"device": "cpu", "deformable_attention_kernel": None}}
    cfg = OmegaConf.create(cfg)
    build_model(cfg, 0)
    _attend()
    cfg.train.deformable_attention_kernel = "grid_sample"
    build_model(cfg, 0)
    _attend()
    assert calls == ["rows", "grid_sample"]
