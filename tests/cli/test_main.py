import os
import shlex
import subprocess
import sys

import pytest

from detrex.cli import completion, main
from detrex.cli.main import build_parser, parse
from tests.reference.forked import ROOT
from tests.reference.versions import since

QUIET = """
import warnings
from detrex.errors import DetrexWarning
from tests.reference.stand_in import stand_in_config

warnings.warn("a remark of ours", DetrexWarning)
cfg = stand_in_config({folder!r}, max_iter=1)
model, optimizer, lr_multiplier = cfg.model, cfg.optimizer, cfg.lr_multiplier
dataloader, train = cfg.dataloader, cfg.train
del cfg
"""
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
    remark = "detrex: the table was made with"  # of other versions than are installed
    said = [line for line in done.stderr.splitlines() if not line.startswith(remark)]
    assert (done.returncode, said) == (0, [])


def test_main__names_that_the_terminal_cannot_write_are_escaped():
    program = (
        "import sys; from detrex.cli import main, completion\n"
        "completion.run = lambda _: print('\\u65e5\\u672c \\udcff') or 0\n"
        "sys.exit(main(['completion', 'bash']))"
    )
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "\\u65e5\\u672c \\udcff\n"


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


PARSER, PARSERS = build_parser()


def _with_commands(parser):
    """A parser, and those of the commands behind it."""
    yield parser
    for action in parser._actions:
        if isinstance(action.choices, dict):
            for inner in action.choices.values():
                yield from _with_commands(inner)


ALL = {parser.prog: parser for parser in _with_commands(PARSER)}
EXAMPLES = [line for parser in ALL.values() for line in parser.examples]
# What takes neither weights, data nor a run.
CHEAP = [
    line
    for line in EXAMPLES
    if line.startswith(("detrex train --list", "detrex backbones")) and "rebuild" not in line
]


@pytest.mark.parametrize("prog", ALL)
def test_help__has_two_examples(prog):
    parser = ALL[prog]
    assert len(parser.examples) >= 2
    assert all(line.startswith(prog) for line in parser.examples)
    text = parser.format_help()
    assert text.startswith(f"usage: {prog} ")
    assert all(line.split()[-1] in text for line in parser.examples)


@pytest.mark.parametrize("line", EXAMPLES)
def test_examples__are_taken_by_the_parser(line):
    words = shlex.split(line.partition(" > ")[0])
    assert callable(parse(words[1:]).run)


@pytest.mark.slow
@pytest.mark.parametrize("line", CHEAP)
def test_examples__that_are_cheap_run(line, capsys):
    assert main(shlex.split(line)[1:]) == 0
    printed = capsys.readouterr()
    assert printed.out
    told = [line for line in printed.err.splitlines() if "the table was made with" not in line]
    assert told == [], "of other versions of the libraries, the table says so"


def test_main__help_of_all_commands_imports_no_torch():
    program = (
        "import contextlib, io, sys\nfrom detrex.cli.main import build_parser, main\n"
        "for name in (*build_parser()[1], ''):\n"
        "    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):\n"
        "        main([*filter(None, [name]), '--help'])\n"
        "with contextlib.suppress(SystemExit): main(['--version'])\n"
        "with contextlib.redirect_stdout(io.StringIO()): main(['train', '--list'])\n"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    version, heavy = done.stdout.splitlines()
    assert version.split()[0] == "detrex"
    assert heavy == "[]", done.stderr


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (LookupError("a"), 1, "this is a bug of detrex: please report it with all these lines"),
        (OSError("a"), 1, "this is a bug of detrex"),
        (PermissionError(13, "Permission denied", "a\nb"), 1, "detrex: a\\nb cannot be used: Perm"),
        (OSError(28, "No space left on device", "a"), 1, "a cannot be written (No space left"),
        (KeyboardInterrupt(), 130, "detrex: Interrupted."),
    ],
)
def test_main__what_a_command_raises(error, status, told, monkeypatch, capsys):
    def fail(_):
        raise error

    monkeypatch.setattr(completion, "run", fail)
    monkeypatch.setattr(sys.modules["detrex.cli.main"], "_drop_output", lambda: None)
    assert main(["completion", "bash"]) == status
    lines = capsys.readouterr().err.splitlines()
    assert told in lines[-1]
    assert (len(lines) > 1) == ("bug" in told), "a traceback for bugs alone"


def test_main__near_options_are_suggested(capsys):
    for words, told in (
        (["check", "a.py", "--siez", "3"], "check: nothing takes --siez 3. Did you mean '--size'?"),
        (["--versoin"], "detrex: nothing takes --versoin. Did you mean '--version'?"),
        (["merge", "a", "b", "--output", "c"], "merge: nothing takes b; `detrex merge --help`"),
    ):
        with pytest.raises(SystemExit) as end:
            main(words)
        assert end.value.code == 2
        assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["eval", "run", "--weights", ""], "eval: --weights is empty"),
        (["eval", "run", "--json="], "eval: --json is empty"),
        (["predict", "run", "a.png", "--output", " "], "predict: --output is empty"),
        (["predict", "run", ""], "predict: an argument is empty"),
        (["bench", "train", "", "-n", "1"], "bench: an argument is empty"),
    ],
)
def test_main__a_variable_that_was_never_set_is_not_a_default(words, told, capsys):
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2
    assert told in capsys.readouterr().err


def test_main__help_is_a_command_too(capsys):
    for words in (["help"], ["help", "merge"]):
        with pytest.raises(SystemExit) as end:
            main(words)
        assert end.value.code == 0
        assert capsys.readouterr().out.startswith(f"usage: detrex {' '.join(words[1:])}")


def test_main__without_a_command_shows_the_help(capsys):
    with pytest.raises(SystemExit) as end:
        main([])
    assert end.value.code == 2
    assert capsys.readouterr().out.startswith("usage: detrex")


@pytest.mark.parametrize(
    "words",
    [
        ["-m", "detrex", "train", "{config}"],
        *(
            pytest.param(words, marks=pytest.mark.slow)
            for words in (
                ["-m", "detrex", "check", "{config}", "--size", "64x96"],
                ["-m", "detrex", "eval", "{config}"],
                ["tools/train_net.py", "--config-file", "{config}"],
                ["tools/hydra_train_net.py", "config_file={config}"],
                ["tools/analyze_model.py", "--tasks", "parameter", "--config-file", "{config}"],
            )
        ),
    ],
)
@since("torch", 2, 7, reason="torch 2.6 prints where it has seen a compiler without its runtime")
def test_terminal__holds_no_remarks_of_other_libraries(words, tmp_path):
    config = tmp_path / "config.py"
    config.write_text(QUIET.format(folder=str(tmp_path / "out")))
    done = subprocess.run(
        [sys.executable, *(word.format(config=config) for word in words)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "a remark of ours" in done.stderr
    others = [line for line in done.stderr.splitlines() if "a remark of ours" not in line]
    assert [line for line in others if not line.startswith("detrex: ")] == []
