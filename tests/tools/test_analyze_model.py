import pytest

from tests.reference.stand_in_file import stand_in_file
from tools import analyze_model


def test_main__parameters_and_structure(tmp_path, capsys):
    tasks = ["--tasks", "parameter", "structure", "--config-file", stand_in_file(tmp_path)]
    analyze_model.main([*tasks, "model.width=3"])
    printed = capsys.readouterr().out
    assert "Parameters: 0.000 M, of which 0.000 M are trained" in printed
    assert "Conv2d(3, 3" in printed


def test_main__unknown_task_is_refused(capsys):
    with pytest.raises(SystemExit):
        analyze_model.main(["--tasks", "speed", "--config-file", "any.py"])
    assert "invalid choice: 'speed'" in capsys.readouterr().err
