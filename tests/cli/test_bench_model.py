import re

import pytest

from detrex.cli import main
from detrex.config import find_config, load_config
from detrex.engine.dry_run import dry_run

CONFIG = """
from detectron2.config import LazyCall as L
from tests.benchmark.test_analysis import OneConvolution
model = L(OneConvolution)(width=5)
train = dict(device="cpu")
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "config.py"
    path.write_text(CONFIG)
    return str(path)


def test_bench_model__counts_parameters_where_nothing_else_is_asked_for(config, capsys):
    assert main(["bench", "model", config, "model.width=10"]) == 0
    assert f"Parameters: {276 / 1e6:.3f} M, of which 0.000 M" in capsys.readouterr().out


def test_bench_model__tasks_in_their_order(config, capsys):
    words = ["--tasks", "structure", "flop", "-n", "2", "--input-size", "7", "11"]
    assert main(["bench", "model", config, *words]) == 0
    printed = capsys.readouterr().out
    assert printed.index("(conv): Conv2d(3, 5") < printed.index("Mean of 2 pictures: 0.000 +-")


def test_bench_model__refuses_in_one_sentence(config, capsys):
    assert main(["bench", "model", config, "--tasks", "flop"]) == 1
    told = capsys.readouterr().err
    assert "no dataloader.test" in told
    assert len(told.splitlines()) == 1


def test_bench_model__counts_dino_as_check_does(capsys):
    words = ["dino/demo_shapes.py", "--tasks", "flop", "-n", "1"]
    assert main(["bench", "model", *words, "--input-size", "96", "128"]) == 0
    (mean,) = re.findall(r"Mean of 1 pictures: (\S+) \+- \S+ GFLOPs", capsys.readouterr().out)
    expected = dry_run(load_config(find_config("dino/demo_shapes.py")).model, (96, 128)).gflops
    assert float(mean) == pytest.approx(expected, rel=0.05)
