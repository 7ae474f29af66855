"""The optimizer of a run: its parameters, and the implementation of its step."""

import copy

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.solver import get_default_optimizer_params
from omegaconf import OmegaConf
from torch import nn

from detrex.engine import Trainer, build_model, build_optimizer
from detrex.engine.optimizer import require_settings
from detrex.errors import ConfigError
from tests.reference.stand_in import stand_in_config


def test_build_optimizer__learning_rate_factors_see_plain_names(tmp_path):
    cfg = stand_in_config(str(tmp_path))
    cfg.optimizer.params.lr_factor_func = lambda name: 0.1 if "backbone" in name else 1.0
    optimizer = build_optimizer(cfg, build_model(cfg, 0))
    assert {round(group["lr"], 6) for group in optimizer.param_groups} == {0.01, 0.001}


def test_build_optimizer__params_must_be_a_call(tmp_path):
    cfg = stand_in_config(str(tmp_path))
    cfg.optimizer.params = OmegaConf.create({"lr": 1})
    with pytest.raises(ConfigError, match=r"optimizer\.params must be a call"):
        build_optimizer(cfg, torch.nn.Linear(1, 1))


def _config(target, **options):
    params = L(get_default_optimizer_params)(weight_decay_norm=0.0)
    return OmegaConf.create(
        {"optimizer": L(target)(params=params, lr=0.01, weight_decay=0.1, **options)},
        flags={"allow_objects": True},
    )


def _trained(optimizer, model, steps=3):
    for step in range(steps):
        torch.manual_seed(step)
        for parameter in model.parameters():
            parameter.grad = torch.randn_like(parameter)
        optimizer.step()
    return list(model.parameters())


@pytest.mark.parametrize("target", [torch.optim.AdamW, torch.optim.Adam, torch.optim.SGD])
def test_build_optimizer__fused_step_is_that_of_the_loop(target):
    model = nn.Sequential(nn.Linear(5, 7), nn.LayerNorm(7))
    twin = copy.deepcopy(model)
    fused = build_optimizer(_config(target), model)
    loop = build_optimizer(_config(target, foreach=False), twin)
    assert {group["fused"] for group in fused.param_groups} == {True}
    assert {group["fused"] for group in loop.param_groups} == {None}
    torch.testing.assert_close(_trained(fused, model), _trained(loop, twin), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("target", "options", "device"),
    [
        (torch.optim.AdamW, {"fused": False}, "cpu"),
        (torch.optim.AdamW, {"foreach": True}, "cpu"),
        (torch.optim.AdamW, {}, "meta"),
        (torch.optim.RMSprop, {}, "cpu"),
        (torch.optim.Adagrad, {}, "cpu"),
    ],
)
def test_build_optimizer__implementation_that_is_given_or_must_be(target, options, device):
    optimizer = build_optimizer(_config(target, **options), nn.Linear(5, 7, device=device))
    assert not any(group.get("fused") for group in optimizer.param_groups)


MODELS = {
    "sparse gradients": lambda: nn.Embedding(4, 3, sparse=True),
    "another memory format": lambda: nn.Conv2d(4, 5, 3).to(memory_format=torch.channels_last),
}


@pytest.mark.parametrize("build", MODELS.values(), ids=MODELS)
def test_build_optimizer__parameters_that_a_fused_step_does_not_suit(build):
    optimizer = build_optimizer(_config(torch.optim.SGD), build())
    assert not optimizer.defaults.get("fused")


@pytest.mark.parametrize("saved_with", [{"foreach": False}, {"fused": True}])
@pytest.mark.parametrize("resumed_with", [{}, {"foreach": False}])
def test_load_state_dict__keeps_the_implementation_of_the_run(saved_with, resumed_with):
    """A file written before, or by another program, has another one."""
    model = nn.Linear(5, 7)
    saved = build_optimizer(_config(torch.optim.AdamW, **saved_with), model)
    _trained(saved, model)
    twin = copy.deepcopy(model)
    optimizer = build_optimizer(_config(torch.optim.AdamW, **resumed_with), twin)
    saved.param_groups[0]["lr"] = 0.005
    state = {"iteration": 3, "optimizer": copy.deepcopy(saved.state_dict())}
    Trainer(twin, [], optimizer).load_state_dict(state)
    assert optimizer.param_groups[0]["fused"] == (None if resumed_with else True)
    assert optimizer.param_groups[0]["lr"] == 0.005
    torch.testing.assert_close(
        _trained(optimizer, twin), _trained(saved, model), rtol=1e-5, atol=1e-6
    )


def test_require_settings__of_another_kind_and_of_an_older_version():
    adam = torch.optim.AdamW(nn.Linear(2, 3).parameters())
    sgd = torch.optim.SGD(nn.Linear(2, 3).parameters())
    old = adam.state_dict()
    for name in ("decoupled_weight_decay", "maximize", "capturable", "differentiable", "fused"):
        old["param_groups"][0].pop(name, None)
    adam.load_state_dict(old)
    require_settings(adam, adam.defaults)
    sgd.load_state_dict(old)
    with pytest.raises(ConfigError, match="SGD needs dampening, momentum"):
        require_settings(sgd, sgd.defaults)
