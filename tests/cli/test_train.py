import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from detrex.cli import main
from tests.reference.forked import ROOT
from tests.reference.stand_in_file import stand_in_file


@pytest.fixture
def config(tmp_path):
    """A config of a detector that trains in milliseconds."""
    return stand_in_file(tmp_path, "out", max_iter=2)


def test_train__list_is_a_table(capsys):
    assert main(["train", "--list", "swin"]) == 0
    head, *rows, last = capsys.readouterr().out.splitlines()
    assert head.split() == ["CONFIG", "BOX", "AP", "DETECTOR", "BACKBONE", "TRAINED", "BY"]
    (row,) = (row for row in rows if "swin_tiny_224" in row)
    assert row.split()[0] == "dino/dino_swin_tiny_224_4scale_12ep.py"
    assert "51.3" in row
    assert row.endswith("the original detrex")
    assert last.startswith("3 configs.")


def test_train__list_of_nothing_is_status_1(capsys):
    assert main(["train", "no_such_detector", "--list"]) == 1
    assert "No config fits 'no_such_detector'" in capsys.readouterr().out


def test_train__list_as_json(capsys):
    assert main(["train", "--list", "dino/dino_r*", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["box_ap"] for row in rows] == [50.0, 49.2, 50.6, 49.6]
    assert all(Path(row["path"]).is_file() for row in rows)


def test_train__into_a_folder_and_on(config, tmp_path, capsys):
    folder = tmp_path / "it's a 'run'"
    words = ["train", config.removesuffix(".py"), "--output", str(folder)]
    assert main([*words, "train.max_iter=3"]) == 0
    *_, task, row, last = capsys.readouterr().out.splitlines()
    assert (task.split()[0], row.split()[0]) == ("TASK", "bbox")
    assert last.startswith(f"The run is in {folder}: ")
    assert (folder / "model_final.pth").is_file()
    assert not (tmp_path / "out").exists()
    trusted = ["--trust", "tests.reference.stand_in"]
    assert main(["train", str(folder), *trusted, "--resume", "train.max_iter=5"]) == 0
    assert "iter: 5/5" in (folder / "log.txt").read_text()
    lines = [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]
    assert [line["iteration"] for line in lines if "lr" in line] == list(range(5))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["{config}", "train.max_itr=5"], "Did you mean 'max_iter'"),
        (["{config}", "model.nan_at=0"], "iteration 0: the loss loss_bbox"),
        (["{config}", "--num-gpus", "0"], "do not fit"),
        (["{config}", "--num-gpus", "2", "--num-machines", "2"], "needs a place to meet"),
        (["dino/dino_r5_4scale_12ep"], "Did you mean 'dino/dino_r50_4scale_12ep'"),
        (
            ["dino/dino_r50_4scale_12ep", "train.device=cpu"],
            "set DETECTRON2_DATASETS to the folder above coco/",
        ),
        (["{config}", "--output", "/dev/null/x"], "/dev/null is a file"),
    ],
)
def test_train__a_mistake_is_one_sentence(words, told, config, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", *(word.format(config=config) for word in words)]) == 1
    sentence = capsys.readouterr().err.splitlines()[-1]
    assert sentence.startswith("detrex: ")
    assert told in sentence


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "train: name a config; --list shows those of the package"),
        (["{folder}"], "is the folder of a run, which --resume continues"),
        (["{config}", "--json"], "--json belongs to --list"),
        (["{config}", "--list", "swin"], "--list takes one pattern"),
        (["{config}", "--resumee"], "Did you mean '--resume'"),
        (["{config}", "--num-gpus", "many"], "invalid int value: 'many'"),
    ],
)
def test_train__bad_usage_is_status_2(words, told, config, tmp_path, capsys):
    (tmp_path / "config.yaml").touch()
    with pytest.raises(SystemExit) as end:
        main(["train", *(word.format(config=config, folder=tmp_path) for word in words)])
    assert end.value.code == 2
    assert told in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        [sys.executable, "-m", "detrex", "train", "--num-gpus", "2"],
        [sys.executable, "tools/train_net.py", "--num-gpus", "2", "--config-file"],
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"),
            *("--master-port", "29611", "-m", "detrex", "train"),
        ],
    ],
)
def test_train__two_processes(command, config, tmp_path):
    done = subprocess.run(
        [*command, config, "train.device=cpu"],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "model_final.pth").is_file()
    assert "Rank 1 of 2" in (tmp_path / "out" / "log.txt.rank1").read_text()
    assert "Warning" not in done.stderr
    if "detrex" in command:
        assert done.stdout.count("The run is in") == 1
        assert done.stdout.count("TASK") == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("signum", "status", "told"),
    [
        (signal.SIGTERM, 75, "--resume"),
        (signal.SIGUSR1, 75, "--resume"),
        (signal.SIGINT, 130, "Stopped by Ctrl-C (SIGINT) after iteration"),
    ],
)
def test_train__status_after_a_signal(signum, status, told, config, tmp_path):
    command = [sys.executable, "-m", "detrex", "train", config, "train.max_iter=1000000"]
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=ROOT, **pipes) as process:
        metrics = tmp_path / "out" / "metrics.json"
        while process.poll() is None and not (metrics.is_file() and metrics.stat().st_size):
            time.sleep(0.2)
        process.send_signal(signum)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == status
    last = errors.splitlines()[-1]
    assert last.startswith("detrex: ")
    assert told in last
    assert "Traceback" not in errors
