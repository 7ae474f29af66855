import json
import multiprocessing

import pytest
import torch

from detrex.engine import launch
from detrex.errors import ConfigError
from tests.reference.stand_in import MeanScore, StandIn, evaluation_batches
from tests.reference.two_ranks import stand_in_runs


def test_launch__one_process_runs_here():
    assert launch(lambda a, b: a + b, 1, args=(2, 3)) == 5


def test_launch__two_processes(tmp_path, monkeypatch):
    """One launch for all that needs two: they cost seconds."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with pytest.raises(ConfigError, match="raised on both ranks of gloo"):
        launch(stand_in_runs, 2, args=(str(tmp_path),), device="cpu")
    assert not multiprocessing.active_children()

    seen = [(tmp_path / f"rank{rank}.txt").read_text().splitlines() for rank in (0, 1)]
    for lines in seen:
        assert lines[:2] == ["device cpu", "told by rank 0"]
        assert lines[3].startswith("stopped Training stopped at iteration 2: the loss loss_bbox")
        assert "on rank 1" in lines[3]
        in_use, full, well, damaged = lines[4:]
        assert "shared is in use by process 1 on node7 since noon" in in_use
        assert "model_0000001.pth cannot be written: the disk is full" in full
        assert well == "well"
        assert damaged.startswith("CheckpointError: none of the 2 checkpoints in ")
    assert seen[1][2] == "metrics {}"

    model = StandIn()
    state = torch.load(tmp_path / "run" / "model_final.pth", weights_only=True)
    model.load_state_dict(state["model"])
    evaluator = MeanScore()
    evaluator.reset()
    with torch.no_grad():
        for batch in evaluation_batches():
            evaluator.process(batch, model.eval()(batch))
    lines = (tmp_path / "run" / "metrics.json").read_text().splitlines()
    assert json.loads(lines[-1])["bbox/AP"] == pytest.approx(evaluator.evaluate()["bbox"]["AP"])
    assert json.loads(lines[-1])["bbox/images"] == 5


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"num_gpus_per_machine": 0}, "--num-gpus 0 .* do not fit"),
        ({"num_machines": 2, "machine_rank": 2}, "--machine-rank 2 do not fit"),
        ({"num_machines": 2, "dist_url": "auto"}, "give all machines the same --dist-url"),
    ],
)
def test_launch__numbers_that_do_not_fit(numbers, message):
    with pytest.raises(ConfigError, match=message):
        launch(print, device="cpu", **numbers)


def test_launch__more_processes_than_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ConfigError, match=r"--num-gpus 3 asks for more GPUs than the 2.*=cpu"):
        launch(print, 3, device="cuda")


@pytest.mark.parametrize("name", ["RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"])
def test_launch__torchrun_variable_that_is_no_number(monkeypatch, name):
    right = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    for key, value in {**right, "MASTER_ADDR": "127.0.0.1", name: "x"}.items():
        monkeypatch.setenv(key, value)
    with pytest.raises(ConfigError, match=f"variable {name} is 'x', expected a whole number"):
        launch(print, device="cpu")
