import pytest

from detrex.errors import ConfigError
from tools import benchmark

CONFIG = """
from tests.reference.stand_in import stand_in_config
cfg = stand_in_config({folder!r})
train, model, optimizer = cfg.train, cfg.model, cfg.optimizer
dataloader = cfg.dataloader
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "config.py"
    path.write_text(CONFIG.format(folder=str(tmp_path)))
    return str(path)


@pytest.mark.parametrize(
    ("task", "rows"),
    [
        ("train", ["train "]),
        ("eval", ["eval "]),
        ("data", ["data "]),
        ("data_advanced", ["records ", "mapper ", "0 workers "]),
    ],
)
def test_main__a_line_for_each_part(config, capsys, task, rows):
    benchmark.main(["--config-file", config, "--task", task, "-n", "3", "--warmup", "1"])
    lines = [line for line in capsys.readouterr().out.splitlines() if " s a " in line]
    assert len(lines) == len(rows)
    for line, row in zip(lines, rows, strict=True):
        assert line.startswith(row)
        assert "1 process(es)" in line


def test_seconds__leaves_the_warm_up_out():
    class Args:
        num_iters, warmup = 3, 2

    steps = iter(range(9))
    seconds = benchmark._seconds(steps, Args)
    assert len(seconds) == 3
    assert min(seconds) >= 0
    assert next(steps) == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-n", "0"], "--num-iters from 1"),
        (
            ["dataloader.train.mapper=null"],
            r"no dataloader\.train\.mapper, .* use --task data",
        ),
        (["dataloader.train=null"], r"no dataloader\.train\.dataset"),
    ],
)
def test_main__refuses(config, arguments, message):
    with pytest.raises(ConfigError, match=message):
        benchmark.main(["--config-file", config, "--task", "data_advanced", *arguments])


def test_kept__needs_a_batch():
    class Args:
        num_iters = 3

    with pytest.raises(ConfigError, match="The data set is empty"):
        benchmark._kept([], Args)
