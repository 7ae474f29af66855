import shlex

import pytest

from detrex.cli import main
from detrex.cli.main import parse
from tests.project.labelled import coco, yolo
from tests.reference.unregistered import unregistered

pytest.importorskip("supervision")


@pytest.fixture(autouse=True)
def forgotten():
    with unregistered():
        yield


def test_init__prints_what_there_is_and_three_commands(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yolo(tmp_path / "my data", {f"train/{n}": "0 0.5 0.5 0.5 0.5" for n in "abc"} | {"val/d": None})
    (tmp_path / "my data" / "labels" / "val" / "d.txt").write_text("1 0.5 0.5 0.2 0.2\n")
    words = ["init", "a project", "--data", "my data", "--backbone", "resnet10t"]
    words += ["--weights", "none", "--detector", "fcos", "--epochs", "2", "--batch-size", "2"]
    assert main(words) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    for told in ("images                      3           1", "0 cat                     3"):
        assert told in printed.out
    assert "fcos over resnet10t of timm" in printed.out
    assert "10 iterations of 2 pictures (2 passes over the data)" in printed.out
    commands = [line.strip() for line in printed.out.splitlines() if line.startswith("  detrex ")]
    assert [shlex.split(line)[1] for line in commands] == ["check", "train", "predict"]
    assert shlex.split(commands[0]) == ["detrex", "check", "a project/config.py"]
    # The first of them does what it says; the others' words are understood.
    assert main(shlex.split(commands[0])[1:]) == 0
    assert "no mistakes found" in capsys.readouterr().out


def test_init__what_was_mended_is_told_once(tmp_path, capsys, caplog):
    first = yolo(tmp_path / "a", {n: "0 0.5 0.5 0.5 0.5" for n in "ab"}, names=("cat", "dog"))
    second = yolo(tmp_path / "b", {"c": "1 0.5 0.5 0.5 0.5"}, names=("dog", "cat"))
    words = ["init", str(tmp_path / "my"), "--data", str(first), "--val", str(second)]
    assert main([*words, "--backbone", "resnet10t", "--weights", "none", "--detector", "fcos"]) == 0
    printed = capsys.readouterr()
    assert printed.out.count("brought together by name") == 1
    assert "brought together" not in caplog.text
    assert printed.err == ""


def test_init__mistake_is_one_sentence(tmp_path, capsys):
    source = coco(tmp_path / "data")
    arguments = ["init", str(tmp_path / "my"), "--data", str(source), "--backbone", "resnet5O"]
    assert main(arguments) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("detrex: there is no backbone 'resnet5O'")
    assert printed.err.count("\n") == 1
    assert not (tmp_path / "my").exists()


@pytest.mark.parametrize("words", [["my"], ["my", "--data", "x", "--detector", "yolo"]])
def test_init__bad_usage(words, capsys):
    with pytest.raises(SystemExit) as end:
        parse(["init", *words])
    assert end.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
