import logging
import sys
import types

import numpy as np
import pytest
import torch
from detectron2.utils.events import EventStorage, TensorboardXWriter
from omegaconf import OmegaConf

from detrex.errors import ConfigError
from detrex.utils.events import ProgressWriter, WandbWriter


@pytest.fixture
def wandb(monkeypatch):
    """A stand-in for the package wandb that keeps what it is given."""
    fake = types.SimpleNamespace(init_kwargs=None, logged=[], finished=False)
    run = types.SimpleNamespace(
        log=lambda values, step: fake.logged.append((step, values)),
        finish=lambda: setattr(fake, "finished", True),
    )

    def init(**kwargs):
        fake.init_kwargs = kwargs
        return run

    module = types.SimpleNamespace(init=init, Image=lambda array: ("image", array.shape))
    monkeypatch.setitem(sys.modules, "wandb", module)
    return fake


@pytest.fixture
def cfg(tmp_path):
    cfg = OmegaConf.create(flags={"allow_objects": True})
    params = {"dir": str(tmp_path / "runs"), "project": "detrex", "name": "a"}
    cfg.train = {"wandb": {"enabled": True, "params": params}, "link": "${nowhere}"}
    cfg.train.init = "https://user:secret@a.b/ü.pth?token=secret"
    cfg.model = {"_target_": torch.nn.Linear, "sizes": [1, 2], "norm": torch.nn.GELU()}
    return cfg


def test_wandb_writer__one_call_per_iteration_images_included(wandb, cfg, tmp_path):
    writer = WandbWriter(cfg, window_size=1)
    tensorboard = TensorboardXWriter(str(tmp_path), 1)
    with EventStorage(0) as storage:
        for iteration in range(3):
            storage.iter = iteration
            storage.put_scalars(total_loss=float(iteration), lr=0.5)
            storage.put_image("seen", np.zeros((3, 5, 7), dtype=np.uint8))
            writer.write()
            tensorboard.write()
    writer.close()
    tensorboard.close()
    assert [step for step, _ in wandb.logged] == [0, 1, 2]
    assert wandb.logged[2][1] == {"total_loss": 2.0, "lr": 0.5, "seen": ("image", (5, 7, 3))}
    assert wandb.finished


def test_wandb_writer__what_is_written_is_not_sent_again(wandb, cfg):
    writer = WandbWriter(cfg)
    with EventStorage(0) as storage:
        storage.put_scalar("total_loss", 1.0)
        writer.write()
        writer.write()
    assert len(wandb.logged) == 1


def test_wandb_writer__config_and_params_reach_init(wandb, cfg, tmp_path):
    WandbWriter(cfg, mode="offline")
    assert wandb.init_kwargs["project"] == "detrex"
    assert wandb.init_kwargs["mode"] == "offline"
    assert (tmp_path / "runs").is_dir()
    assert wandb.init_kwargs["config"]["model"]["_target_"] == "Linear"
    assert wandb.init_kwargs["config"]["model"]["sizes"] == [1, 2]
    assert wandb.init_kwargs["config"]["train"]["link"] == "${nowhere}"
    assert wandb.init_kwargs["config"]["train"]["init"] == "https://a.b/ü.pth?..."


def test_wandb_writer__missing_package(monkeypatch, cfg):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match=r"needs the package wandb.*pip install wandb"):
        WandbWriter(cfg)


def test_progress_writer__one_line_with_time_left(caplog):
    caplog.set_level(logging.INFO)
    writer = ProgressWriter(max_iter=200, window_size=2)
    names = ["loss_class", "loss_bbox_0", "loss_bbox_enc", "loss_bbox_dn", "loss_bbox_dn_1"]
    with EventStorage(0) as storage:
        for iteration in range(50):
            storage.iter = iteration
            storage.put_scalars(total_loss=3.0 + iteration, time=2.0, lr=1e-4, data_time=0.1)
            storage.put_scalars(**dict.fromkeys(names, 1.0))
        writer.write()
        storage.iter = 200
        writer.write()
    assert len(caplog.messages) == 1
    line = caplog.messages[0]
    assert "eta: 0:05:00" in line
    assert "iter: 50/200 (25%)" in line
    assert "total_loss: 51.5" in line
    assert "loss_class: 1" in line
    assert "lr: 0.0001" in line
    assert "loss_bbox" not in line


def test_progress_writer__nothing_known_yet(caplog):
    caplog.set_level(logging.INFO)
    with EventStorage(0) as storage:
        storage.put_scalar("loss_bbox_0", 1.0)
        ProgressWriter(max_iter=7).write()
    assert caplog.messages == ["iter: 1/7 (14%)  loss_bbox_0: 1"]
