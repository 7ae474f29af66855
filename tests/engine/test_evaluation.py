import contextlib

import pytest
import torch
from detectron2.config import LazyCall as L
from torch import nn

from detrex.engine import do_test, evaluation
from detrex.engine.evaluation import evaluation_mode, progress_bar
from detrex.errors import ConfigError
from detrex.modeling import ema
from tests.reference.stand_in import StandIn, evaluation_batches, stand_in_config


@pytest.fixture
def cfg(tmp_path):
    return stand_in_config(str(tmp_path))


def mean_score(model: nn.Module) -> float:
    model.eval()
    with torch.no_grad():
        outputs = [model(batch)[0]["instances"].scores for batch in evaluation_batches()]
    return float(torch.cat(outputs).mean())


def test_do_test__metrics_equal_a_naive_loop(cfg):
    model = StandIn()
    metrics = do_test(cfg, model)
    assert metrics["bbox"]["images"] == 5
    assert metrics["bbox"]["AP"] == pytest.approx(mean_score(model), abs=1e-6)


def test_do_test__each_module_keeps_its_mode(cfg):
    model = StandIn().train()
    model.backbone.eval()
    do_test(cfg, model)
    assert model.training
    assert model.head.training
    assert not model.backbone.training
    assert not model.backbone[1].training


def test_evaluation_mode__restores_after_an_error():
    model = StandIn().train()
    with contextlib.suppress(KeyError), evaluation_mode(model):
        assert not model.dropout.training
        raise KeyError
    assert model.dropout.training


def test_do_test__ema_beside_plain_and_weights_come_back(cfg):
    cfg.train.model_ema.enabled = True
    model = StandIn()
    ema.may_build_model_ema(cfg, model)
    model.ema_state.save_from(model)
    averaged = mean_score(model)
    nn.init.constant_(model.head.bias, 7.0)
    metrics = do_test(cfg, model)
    assert metrics["bbox"]["AP"] == pytest.approx(mean_score(model), abs=1e-6)
    assert metrics["ema/bbox"]["AP"] == pytest.approx(averaged, abs=1e-6)
    assert model.head.bias.item() == 7.0
    assert set(do_test(cfg, model, eval_only=True)) == {"bbox"}
    cfg.train.model_ema.use_ema_weights_for_eval_only = True
    only = do_test(cfg, model, eval_only=True)
    assert only == {"bbox": metrics["ema/bbox"]}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_do_test__runs_under_autocast(cfg, dtype):
    seen = []

    class Probe(StandIn):
        def forward(self, batch):
            seen.append((torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")))
            return super().forward(batch)

    do_test(cfg, Probe())
    cfg.train.amp = {"enabled": True, "dtype": dtype}
    do_test(cfg, Probe())
    assert seen[:5] == [(False, seen[0][1])] * 5
    assert seen[5:] == [(True, getattr(torch, dtype))] * 5


def test_do_test__without_evaluator(cfg):
    del cfg.dataloader.evaluator
    assert do_test(cfg, StandIn()) == {}
    with pytest.raises(ConfigError, match=r"--eval-only needs dataloader\.evaluator"):
        do_test(cfg, StandIn(), eval_only=True)


@pytest.mark.parametrize("names", ["coco_2017_vall", ["coco_2017_val", "coco_2017_vall"]])
def test_do_test__unregistered_dataset(cfg, names):
    cfg.dataloader.test = L(evaluation_batches)(dataset={"names": names})
    with pytest.raises(
        ConfigError, match=r"names=coco_2017_vall is not a registered.*'coco_2017_val'"
    ):
        do_test(cfg, StandIn())


def test_do_test__unknown_amp_dtype(cfg):
    cfg.train.amp.dtype = "bfloat61"
    with pytest.raises(ConfigError, match=r"bfloat61 is unknown.*Did you mean 'bfloat16'"):
        do_test(cfg, StandIn())


def test_progress_bar__only_where_somebody_watches(monkeypatch, capsys):
    batches = [1, 2, 3]
    assert progress_bar(batches) is batches
    monkeypatch.setattr(evaluation.sys.stderr, "isatty", lambda: True, raising=False)
    shown = progress_bar(batches)
    assert len(shown) == 3
    assert list(shown) == batches
    assert "evaluation" in capsys.readouterr().err
