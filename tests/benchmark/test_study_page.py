import re
from pathlib import Path

import pytest

from detrex.benchmark.candidates import CANDIDATES
from detrex.benchmark.study_files import Cost, Run, StudyFiles, read_protocol, read_rows, write_rows
from detrex.benchmark.study_page import (
    BEGIN,
    END,
    conditions,
    lines_of,
    summary,
    table,
    write_page,
)
from detrex.errors import ConfigError

DOCS = Path(__file__).resolve().parents[2] / "docs"


def _runs(**ap):
    return [
        Run(name, "random", seed, 300, value, 2 * value)
        for name, values in ap.items()
        for seed, value in enumerate(values)
    ]


COST = Cost("resnet18", 11_200_000, 11_450_000, 0.1234, 8.54, 6.25, 90.4, 80.1, 150.0)


def test_lines_of__best_mean_first_with_all_seeds():
    runs = _runs(resnet18=[20.0, 30.0], mine=[40.0])
    runs.append(Run("resnet18", "ImageNet", 0, 300, 60.0, 70.0))
    lines = lines_of(runs, [COST])
    assert [line.candidate.title for line in lines] == ["resnet18, ImageNet", "mine", "resnet18"]
    assert lines[2].ap == (20.0, 30.0)
    assert lines[2].candidate.kind == "convolutions"
    assert [line.cost for line in lines] == [COST, None, COST]


def test_table__a_row_for_each_line():
    head, rule, first, second = table(
        lines_of(_runs(resnet18=[20.0, 30.0], mine=[4.0]), [COST])
    ).split("\n")
    assert first == (
        "| resnet18 | convolutions | 2 | 25.0 (20.0 to 30.0) | 50.0 (40.0 to 60.0) | "
        "11.20 M, 11.45 M | 0.123 | 8.5 | 6.2 | 90 | 80 | 15.0 | 45 |"
    )
    assert second.count("not measured") == 8
    assert {row.count("|") for row in (head, rule, first, second)} == {14}


def test_summary__seeds_beside_backbones():
    told = summary(lines_of(_runs(a=[20.0, 30.0], b=[4.0, 5.0], c=[9.0, 11.0]), []))
    assert (
        "reaches from 4.5 to 25.0; the seeds of one differ by 2.0 AP (median), at most by 10.0"
        in told
    )
    assert summary(lines_of(_runs(a=[20.0], b=[4.0]), [])).startswith("One seed of each: ")
    assert summary(lines_of(_runs(a=[20.0, 1.0]), [])) == ""


def test_conditions__name_processor_and_versions():
    found = {"processor": "P", "busy": "3 %", "torch": "2.6", "threads": "1"}
    told = conditions({"costs": {"environment": found}})
    assert told == ("Times: one thread of P, of whose cores other programs used 3 %; torch 2.6.")
    assert conditions({}) == ""


@pytest.mark.parametrize(
    "text", ["", f"{BEGIN}\n", f"{END}\n{BEGIN}\n", f"{BEGIN}{END}{BEGIN}{END}"]
)
def test_write_page__needs_its_marks_once(tmp_path, text):
    files = StudyFiles(tmp_path)
    write_rows(files.runs, _runs(a=[1.0]), Run)
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(ConfigError, match="has no place for the table"):
        write_page(files, page)
    assert page.read_text() == text


def test_docs__table_is_that_of_the_files():
    files = StudyFiles(DOCS)
    page = (DOCS / "which_backbone.md").read_text()
    lines = lines_of(read_rows(files.runs, Run), read_rows(files.costs, Cost))
    (between,) = re.findall(f"{BEGIN}(.*){END}", page, re.DOTALL)
    assert table(lines) in between
    assert summary(lines) in between
    assert conditions(read_protocol(files.protocol)) in between
    assert {line.candidate for line in lines} == set(CANDIDATES)
    assert all(line.cost for line in lines)
    assert all(line.candidate.name in files.plot.read_text() for line in lines)
