import os

import pytest
import torch

from detrex.checkpoint.runs import PERIODIC, Origin, earlier_name, origin_of, run_in


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"model": {}, "run": {"id": "ab"}, "iteration": 3}, Origin(True, True, "ab")),
        ({"model": {}, "trainer": {}, "iteration": 3}, Origin(True, True, "")),
        ({"model": {}, "optimizer": {}}, Origin(True, True, "")),
        ({"model": {}, "run": 7}, Origin(True, False, "")),
        ({"model": {}, "run": {"id": [1]}}, Origin(True, False, "")),
        ({"weight": torch.zeros(2)}, Origin(True, False, "")),
    ],
)
def test_origin_of__what_a_file_tells(tmp_path, content, expected):
    torch.save(content, tmp_path / "a.pth")
    assert origin_of(tmp_path / "a.pth") == expected


def test_origin_of__is_of_the_present_content(tmp_path):
    file = tmp_path / "a.pth"
    assert origin_of(file) == Origin()
    for run in ("ab", "cd"):
        torch.save({"run": {"id": run}, "iteration": 1}, file)
        os.utime(file, ns=(1, ord(run[0])))
        assert origin_of(file).run == run
    file.unlink()
    assert origin_of(file) == Origin()
    file.mkdir()
    assert origin_of(file) == Origin()


def test_run_in__what_is_none():
    contents = [{}, {"run": None}, {"run": {}}, {"run": {"id": 3}}, {"run": {"id": "../x"}}]
    assert [run_in(content) for content in contents] == [""] * 5


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("model_0000099", True),
        ("model_12345678", True),
        ("x_final", True),
        ("swin_tiny_patch4_window7_224", False),
        ("model_best", False),
        ("model_final.ab12", False),
        ("final", False),
    ],
)
def test_periodic__names_of_checkpoints(name, expected):
    assert bool(PERIODIC.search(name)) == expected


def test_earlier_name__is_free(tmp_path):
    file = tmp_path / "metrics.json"
    for expected in ("metrics.ab.json", "metrics.ab-2.json", "metrics.ab-3.json"):
        assert earlier_name(file, "ab").name == expected
        (tmp_path / expected).touch()
    assert earlier_name(file, "").name == "metrics.earlier.json"
    assert earlier_name(tmp_path / "events", "ab").name == "events.ab"
