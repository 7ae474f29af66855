import argparse
import sys
import types

import pytest
import torch

from detrex.engine import do_train
from detrex.errors import ConfigError
from tests.reference.stand_in import read_losses, stand_in_config

FRESH = argparse.Namespace(resume=False)


def test_build_hooks__writes_what_it_promises(tmp_path):
    do_train(FRESH, stand_in_config(str(tmp_path), eval_period=2))
    names = {file.name for file in tmp_path.iterdir()}
    assert {"metrics.json", "model_final.pth", "last_checkpoint"} <= names
    assert any(name.startswith("events.out.tfevents") for name in names)
    assert "model_0000001.pth" not in names, "max_to_keep=2"
    content = torch.load(tmp_path / "model_final.pth", weights_only=True)
    assert set(content) == {"model", "trainer", "iteration", "run"}
    assert content["iteration"] == 5
    assert content["trainer"]["seed"] == 3


def test_build_hooks__wandb_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match="pip install wandb"):
        do_train(FRESH, stand_in_config(str(tmp_path), wandb={"enabled": True}))


def test_build_hooks__wandb_gets_scalars(tmp_path, monkeypatch):
    logged = {}
    run = types.SimpleNamespace(
        log=lambda values, step: logged.setdefault(step, values), finish=lambda: None
    )
    module = types.SimpleNamespace(init=lambda **kwargs: run, Image=lambda array: array)
    monkeypatch.setitem(sys.modules, "wandb", module)
    params = {"dir": str(tmp_path / "wandb")}
    do_train(FRESH, stand_in_config(str(tmp_path), wandb={"enabled": True, "params": params}))
    assert logged[2]["total_loss"] == read_losses(tmp_path)[2]
