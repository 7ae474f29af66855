import pytest

from detrex.cli.help import Parser, require_known


@pytest.fixture
def parser():
    parser = Parser(
        prog="detrex train",
        description="Train [a detector].",
        examples="detrex train a.py model.x=[1,2] \\\n    --resume\n"
        "detrex train b.py  # a remark\n",
    )
    parser.add_argument("--num-gpus", type=int)
    parser.add_argument("--kind", choices=["pyramid", "flat"])
    return parser


def test_parser__help_ends_with_its_examples(parser, capsys):
    parser.print_help()
    text = capsys.readouterr().out
    assert text.endswith(
        "examples:\n  detrex train a.py model.x=[1,2] \\\n      --resume\n"
        "  detrex train b.py  # a remark\n"
    )
    assert "Train [a detector]." in text, "brackets are no markup"
    assert "\x1b" not in text, "no colours where there is no terminal"


def test_parser__examples_are_command_lines(parser):
    first, second = parser.examples
    assert first.split() == ["detrex", "train", "a.py", "model.x=[1,2]", "--resume"]
    assert second == "detrex train b.py"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--num-gpus", "two"], "argument --num-gpus: invalid int value: 'two'; `detrex train"),
        (["--kind", "flot"], "argument --kind: invalid choice: 'flot' (choose from "),
        (["--num-gpus"], "argument --num-gpus: expected one argument; `detrex train --help`"),
    ],
)
def test_parser__refuses_in_one_sentence(parser, words, told, capsys):
    with pytest.raises(SystemExit) as end:
        parser.parse_args(words)
    assert end.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"detrex: train: {told}")
    assert printed.err.count("\n") == 1
    assert ("Did you mean 'flat'?" in printed.err) == ("flot" in words)


def test_refuse_unknown__suggests_near_options(parser, capsys):
    with pytest.raises(SystemExit):
        parser.refuse_unknown(["x=1", "--num-gpu\n=2"])
    told = capsys.readouterr().err
    assert told.startswith("detrex: train: nothing takes x=1 --num-gpu\\n=2. Did you mean '--num-")
    assert told.count("\n") == 1


def test_require_known__suggests_near_commands(parser, capsys):
    require_known(parser, "train", ["train", "eval"])
    for name, told in (("tarin", "Did you mean 'train'?"), ("zzz", "There are train, eval.")):
        with pytest.raises(SystemExit) as end:
            require_known(parser, name, ["train", "eval"])
        assert end.value.code == 2
        assert told in capsys.readouterr().err
