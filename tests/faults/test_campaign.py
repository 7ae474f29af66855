"""A few trials of each kind, the same each time; `make faults` runs many."""

import importlib
import json
import os
import subprocess
import sys

import pytest

from tests.faults.campaign import SAMPLE, has, line, table
from tests.faults.page import page
from tests.faults.trials import ROOT, Result

RESULTS = [
    Result("configs", "one", "sentence", "sentence", seconds=2.0),
    Result("configs", "two", "sentence", "silent", why="no sentence"),
    Result("kills", "three", "right", "right", facts={"resumed": True, "lines lost": 2}),
    Result("kills", "four", "right", "right", facts={"resumed": True}, junk=("a.unfinished",)),
]


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """What came of the sample, which runs in a process without threads."""
    file = tmp_path_factory.mktemp("faults") / "results.json"
    command = [sys.executable, "-m", "tests.faults", "--sample", "--jobs", "1", "--json", str(file)]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert file.is_file(), done.stdout + done.stderr
    return [Result(**result) for result in json.loads(file.read_text())]


@pytest.mark.parametrize("kind", [kind for kind in SAMPLE if SAMPLE[kind] and has(kind)])
def test_sample__ends_as_expected(sample, kind):
    of_kind = [result for result in sample if result.kind == kind]
    assert of_kind
    assert not [f"{r.name}: {r.outcome}, {r.why}\n{r.output}" for r in of_kind if not r.good]
    assert not [f"{r.name}: left {', '.join(r.junk)}" for r in of_kind if r.junk]


@pytest.mark.filterwarnings("ignore::UserWarning")  # of torch, on tensors that are rare
@pytest.mark.parametrize("kind", [kind for kind in SAMPLE if has(kind)])
def test_trials__have_names_of_their_own_that_stay(kind):
    module = importlib.import_module(f"tests.faults.{kind}")
    names = [[trial.name for trial in module.trials(8, 3)] for _ in range(2)]
    assert names[0] == names[1]
    assert len(set(names[0])) == len(names[0])


def test_table__counts_by_kind():
    assert table(RESULTS) == [
        "| kind | tried | right | one sentence | traceback | silent | hang | signal | junk "
        "| longest (s) |",
        "|:--|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
        "| configs | 2 | 0 | 1 | 0 | 1 | 0 | 0 | 0 | 2.0 |",
        "| kills | 2 | 2 | 0 | 0 | 0 | 0 | 0 | 1 | 0.0 |",
        "| all | 4 | 2 | 1 | 0 | 1 | 0 | 0 | 1 | 2.0 |",
    ]


def test_line__leaves_out_what_did_not_happen():
    assert line("configs", RESULTS[:2]).startswith("configs: 2 tried, 1 one sentence, 1 silent (")


def test_page__lists_failures_and_sums_up_the_kills():
    text = page(RESULTS, {"date": "2026-01-02", "torch": "2.9"}, "make faults", 5, 20.4)
    assert "`make faults` on 2026-01-02, seed 5, 20 minutes" in text
    assert "| resumed | 2 |\n| lines lost | 2 |" in text
    assert "- configs, `two`: silent. no sentence\n" in text
    assert "- kills, `four`: right. left a.unfinished;" in text
    assert "`one`" not in text


def test_page__says_that_all_is_well():
    text = page(RESULTS[:1], {}, "make faults", 0, 1)
    assert text.endswith("Nothing ended otherwise than expected.\n")
