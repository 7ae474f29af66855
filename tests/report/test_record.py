import json

import numpy as np
import pytest

from detrex.report import record


def test_record__a_process_that_resumes_is_added_and_another_run_begins_anew(tmp_path):
    record.begin(tmp_path, "a", 0, {"parameters": 3})
    record.end(tmp_path, {"ended": "stopped by a signal", "seconds": {"step": 1.5}}, {})
    record.begin(tmp_path, "a", 40, {"parameters": 4})
    held = record.read_record(tmp_path)
    assert held["parameters"] == 4
    assert [p["iteration"] for p in held["processes"]] == [0, 40]
    assert held["processes"][0]["seconds"] == {"step": 1.5}
    assert "ended" not in held["processes"][1]
    record.begin(tmp_path, "b", 40, {})
    assert [p["iteration"] for p in record.read_record(tmp_path)["processes"]] == [40]
    record.begin(tmp_path, "b", 0, {})
    assert len(record.read_record(tmp_path)["processes"]) == 1


def test_record__numbers_of_numpy_do_not_end_a_run(tmp_path):
    record.begin(tmp_path, "a", 0, {"scores": {"x": np.int64(3)}})
    assert record.read_record(tmp_path)["run"] == "a"


@pytest.mark.parametrize("content", ["", "{", "[1]", "[" * 100_000, "\x00"])
def test_read_record__a_damaged_one_counts_as_none(tmp_path, content):
    (tmp_path / record.RECORD).write_text(content)
    assert record.read_record(tmp_path) == {}
    record.end(tmp_path, {"ended": "finished"}, {})
    record.begin(tmp_path, "a", 0, {})
    assert json.loads((tmp_path / record.RECORD).read_text())["run"] == "a"


def test_begin__where_nothing_can_be_written_is_a_warning(tmp_path, caplog):
    record.begin(tmp_path / "none", "a", 0, {})
    assert "report.json cannot be written (No such file or directory)" in caplog.text


def test_environment__says_what_runs():
    assert {"Python", "torch", "detrex", "machine", "threads"} <= record.environment().keys()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"processes": 3}, "processes is 3"),
        ({"processes": [{}, 7]}, "processes.1 is 7"),
        ({"processes": [{"seconds": {"step": "x"}}]}, "processes.0.seconds.step is 'x'"),
        ({"processes": [{"started": 1e300}]}, "processes.0.started is 1e+300"),
        ({"processes": [{"iteration": float("nan")}]}, "processes.0.iteration is nan"),
        ({"parameters": True}, "parameters is True"),
        ({"scores": {"bbox": {"classes": {"a": 1}}}}, "scores.bbox.classes is {'a': 1}"),
        ({"data": []}, "data is []"),
        ({"data": None, "scores": {"bbox": {"total": {"AP": None}}}, "of_later": [1]}, ""),
    ],
)
def test_misfit__says_where(content, said):
    assert record.misfit(content) == said
