import pytest

from detrex.benchmark.timing import TASKS, Steps, Timing, seconds_of
from detrex.config.validation import settle
from detrex.errors import ConfigError
from tests.reference.stand_in import stand_in_config


@pytest.mark.parametrize(
    ("task", "parts", "pictures"),
    [
        ("train", ["train"], 4),
        ("eval", ["eval"], 1),
        ("data", ["data"], 4),
        ("data_advanced", ["records", "mapper", "0 workers"], 1),
    ],
)
def test_tasks__each_step_of_each_part(tmp_path, task, parts, pictures):
    timings = list(TASKS[task](settle(stand_in_config(str(tmp_path))), Steps(3, 1)))
    assert [timing.part for timing in timings] == parts
    assert all(len(timing.seconds) == 3 and min(timing.seconds) >= 0 for timing in timings)
    assert timings[0].pictures == pictures


def test_text__is_of_all_steps():
    text = Timing("train", [0.1, 0.2, 0.6], "step", 6).text(processes=2)
    assert text.startswith("train          0.3000 s a step (median 0.2000, greatest 0.6000), ")
    assert text.endswith("20.0 pictures a second in each of 2 process(es)")


def test_seconds_of__leaves_the_warm_up_out():
    source = iter(range(9))
    seconds = seconds_of(source, Steps(3, 2))
    assert len(seconds) == 3
    assert min(seconds) >= 0
    assert next(source) == 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mapper": None}, r"no dataloader\.train\.mapper, .* time data instead"),
        (None, r"no dataloader\.train\.dataset"),
    ],
)
def test_tasks__need_what_is_timed(tmp_path, change, message):
    cfg = settle(stand_in_config(str(tmp_path)))
    if change is None:
        cfg.dataloader.train = None
    else:
        cfg.dataloader.train.update(change)
    with pytest.raises(ConfigError, match=message):
        list(TASKS["data_advanced"](cfg, Steps(1, 0)))


def test_time_training__needs_a_batch(tmp_path):
    cfg = settle(stand_in_config(str(tmp_path)))
    cfg.dataloader.test = {"_target_": "builtins.list"}
    with pytest.raises(ConfigError, match="The data set is empty"):
        list(TASKS["eval"](cfg, Steps(1, 0)))
