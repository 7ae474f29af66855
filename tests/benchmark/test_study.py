import json

import pytest

from detrex.benchmark import costs, study
from detrex.benchmark.candidates import NARROW_RESNET, Candidate
from detrex.benchmark.costs import Rounds, measure_all
from detrex.benchmark.study import Plan, train_all
from detrex.benchmark.study_files import Cost, Run, StudyFiles, read_rows
from detrex.benchmark.study_page import BEGIN, END, lines_of, table, write_page
from detrex.errors import ConfigError
from tests.reference.unregistered import unregistered

NAMES = [NARROW_RESNET, "mobilenetv3_small_050"]


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A whole study, of two backbones and few iterations, and what it told."""
    folder, told = tmp_path_factory.mktemp("study"), []
    files, candidates = StudyFiles(folder), [Candidate(name) for name in NAMES]
    with pytest.MonkeyPatch.context() as patch, unregistered():
        patch.setattr(study, "PICTURES", {"train": 9, "val": 3})
        patch.setattr(costs, "LARGE", 96)
        runs = train_all(candidates, Plan(2, seeds=1), files, told.append)
        measured = measure_all(candidates, files, Rounds(1, 1, 1))
        runs = train_all(candidates[:1], Plan(2, seeds=2), files, told.append)
    return files, runs, measured, told


def test_train_all__seeds_in_turn_and_nothing_twice(done):
    files, runs, _, told = done
    assert [(run.backbone, run.seed) for run in runs] == [
        *((name, 0) for name in NAMES),
        (NAMES[0], 1),
    ]
    assert [line.partition(":")[0] for line in told] == [
        f"{run.backbone}, seed {run.seed}" for run in runs
    ]
    assert read_rows(files.runs, Run) == runs
    assert all(0 <= run.ap <= run.ap50 <= 100 and run.iterations == 2 for run in runs)


def test_train_all__other_iterations_do_not_mix(done):
    with pytest.raises(ConfigError, match="holds runs of 2 iterations, and 3 are asked for"):
        train_all([Candidate(NARROW_RESNET)], Plan(3, 1), done[0])


def test_measure_all__a_row_for_each(done):
    files, _, measured, _ = done
    assert read_rows(files.costs, Cost) == measured
    assert [cost.backbone for cost in measured] == NAMES
    for cost in measured:
        assert 0 < cost.backbone_params < cost.params
        times = (cost.latency_ms, cost.optimized_ms, cost.large_ms, cost.step_ms)
        assert min(*times, cost.large_optimized_ms) > 0
    narrow, mobile = measured
    assert narrow.gflops > mobile.gflops > 0.001


def test_protocol__says_how(done):
    protocol = json.loads(done[0].protocol.read_text())
    assert protocol["runs"]["iterations"] == 2
    assert protocol["runs"]["shapes"]["image_size"] == [64, 64]
    assert protocol["costs"]["batch of a step"] == 8
    assert protocol["costs"]["environment"]["threads"] == "1"
    assert "torch" in protocol["runs"]["environment"]


def test_write_page__of_the_study(done, tmp_path):
    files, runs, measured, _ = done
    page = tmp_path / "page.md"
    page.write_text(f"before\n\n{BEGIN}\nold\n{END}\n\nafter\n")
    text = write_page(files, page)
    assert page.read_text() == f"before\n\n{BEGIN}\n\n{text}\n\n{END}\n\nafter\n"
    assert table(lines_of(runs, measured)) in text
    assert NARROW_RESNET in files.plot.read_text()
    beside = StudyFiles(tmp_path, "page").all
    assert [file.read_bytes() for file in beside] == [file.read_bytes() for file in files.all]
