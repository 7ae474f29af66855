import subprocess
import sys

import pytest

from detrex.cli import main

# What a search must not import, lest it takes seconds.
HEAVY = ("torch", "timm", "torchvision", "numpy", "detectron2")


def test_main__searches_without_importing_a_network_library():
    program = (
        "import sys; from detrex.cli import main; status = main(['backbones', '--limit', '2']);"
        f"print(status, [name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "0 []", done.stderr


def test_main__reader_that_stops_early_is_no_error():
    command = f"{sys.executable} -m detrex backbones --json | head -1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert done.stdout == "[\n"
    assert done.stderr == ""


def test_main__output_that_is_closed_is_no_error():
    command = f"{sys.executable} -m detrex backbones --limit 2 >&-"
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_main__full_disk_is_one_sentence():
    command = f"{sys.executable} -m detrex backbones --limit 2 > /dev/full"
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert done.returncode == 1
    sentence = "the standard output cannot be written (No space left on device): make room"
    assert done.stderr == f"detrex: {sentence}\n"


def test_main__mistake_is_one_sentence_and_status_1(capsys):
    assert main(["backbones", "show", "resnet5O"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("detrex: there is no architecture named 'resnet5O'. Did you")
    assert len(captured.err.splitlines()) == 1


def test_main__help_names_the_commands(capsys):
    with pytest.raises(SystemExit) as error:
        main(["--help"])
    assert error.value.code == 0
    text = capsys.readouterr().out
    assert "backbones" in text
    assert "check" in text


def test_main__unknown_command(capsys):
    with pytest.raises(SystemExit) as error:
        main(["backbone"])
    assert error.value.code == 2
    told = capsys.readouterr().err
    assert told.startswith("detrex: there is no command 'backbone'. Did you mean 'backbones'?")
