import os
import shutil
import subprocess
import sys

import pytest

from detrex.cli import main
from detrex.cli.completion import complete_backbones

# What argcomplete reads: the line and the place of the cursor; it answers on descriptor 8.
PROGRAM = """
import os, sys
os.dup2(1, 8)
from detrex.cli import main
try:
    main([])
finally:
    heavy = sorted({"torch", "detectron2", "timm", "rich.console"} & set(sys.modules))
    print("", *heavy, sep="|", file=sys.stderr, flush=True)
"""


def complete(line, tmp_path):
    """Ask as bash does; the answers and what was imported that takes long."""
    answer = tmp_path / "answer"
    variables = {
        **{"_ARGCOMPLETE": "1", "COMP_LINE": line, "COMP_POINT": str(len(line))},
        **{"_ARGCOMPLETE_IFS": "\n", "ARGCOMPLETE_USE_TEMPFILES": "1", "COMP_TYPE": "9"},
        "_ARGCOMPLETE_STDOUT_FILENAME": str(answer),
    }
    program = PROGRAM.replace("finally", "except SystemExit: pass\nfinally")
    program = "import os\nos._exit, leave = (lambda code: sys.exit(code)), os._exit\n" + program
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **variables},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    heavy = [part for part in done.stderr.strip().rpartition("|")[2:] if part]
    return [word.strip() for word in answer.read_text().split("\n")], heavy


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("detrex back", "backbones"),
        ("detrex check --si", "--size"),
        ("detrex check dino/dino_r50_5", "dino/dino_r50_5scale_12ep.py"),
        ("detrex check my_c", "my_config.py"),
        ("detrex backbones show vit_so400m_patch14_sig", "vit_so400m_patch14_siglip_224"),
    ],
)
def test_complete__answers_without_torch(line, word, tmp_path):
    (tmp_path / "my_config.py").touch()
    words, heavy = complete(line, tmp_path)
    assert word in words
    assert heavy == []


def test_complete_backbones__by_their_beginning():
    names = complete_backbones("resnet5")
    assert "resnet50" in names
    assert all(name.startswith("resnet5") for name in names)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion__prints_a_script(shell, capsys):
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert "detrex" in script
    if shell != "zsh" and shutil.which(shell):
        done = subprocess.run([shell, "-n"], input=script, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
