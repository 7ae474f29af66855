import json

import pytest

from detrex.benchmark.study_files import (
    Cost,
    Run,
    StudyFiles,
    read_protocol,
    read_rows,
    write_protocol,
    write_rows,
)
from detrex.errors import ConfigError

RUNS = [Run("resnet18", "random", 0, 300, 28.215, 48.9), Run("x, y", "ImageNet", 2, 300, 0.0, 1.5)]
COSTS = [Cost("resnet18", 11176512, 11427022, 0.1234, 8.5, 6.25, 90.0, 80.125, 150.0)]


@pytest.mark.parametrize(("rows", "kind"), [(RUNS, Run), (COSTS, Cost), ([], Run)])
def test_read_rows__as_written(tmp_path, rows, kind):
    file = tmp_path / "new" / "rows.csv"
    assert read_rows(file, kind) == []
    write_rows(file, rows, kind)
    assert read_rows(file, kind) == rows


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "is no table with the columns backbone, weights, seed"),
        ("a,b\n1,2\n", "is no table with the columns"),
        ("backbone,weights,seed,iterations,ap,ap50\nresnet18,random,0,300\n", "is no table"),
        ("backbone,weights,seed,iterations,ap,ap50\nr,random,zero,3,1,2\n", "no number .*zero"),
    ],
)
def test_read_rows__another_file_is_said(tmp_path, text, told):
    (tmp_path / "rows.csv").write_text(text)
    with pytest.raises(ConfigError, match=told):
        read_rows(tmp_path / "rows.csv", Run)


def test_write_protocol__keeps_other_parts(tmp_path):
    file = StudyFiles(tmp_path / "study").protocol
    assert read_protocol(file) == {}
    write_protocol(file, runs={"iterations": 3}, costs=1)
    write_protocol(file, costs=2)
    assert json.loads(file.read_text()) == {"runs": {"iterations": 3}, "costs": 2}


def test_study_files__are_named_alike(tmp_path):
    files = StudyFiles(tmp_path)
    names = [file.name for file in files.all]
    assert names == [f"which_backbone{end}" for end in (".csv", "_costs.csv", ".json", ".svg")]
