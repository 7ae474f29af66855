import pytest

from detrex.cli import main
from detrex.cli.main import build_parser
from tests.reference.stand_in_file import stand_in_file


@pytest.mark.parametrize(
    ("task", "rows"),
    [("train", ["train "]), ("data_advanced", ["records ", "mapper ", "0 workers "])],
)
def test_bench__a_line_for_each_part(tmp_path, capsys, task, rows):
    config = stand_in_file(tmp_path)
    assert main(["bench", task, config, "-n", "3", "--warmup", "1", "train.device=cpu"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if " s a " in line]
    assert [line.startswith(row) for line, row in zip(lines, rows, strict=True)] == [True] * len(
        rows
    )
    assert all("1 process(es)" in line for line in lines)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["-n", "0"], "--num-iters is from 1 and --warmup from 0, got 0 and 10"),
        (["--warmup", "-1"], "--warmup from 0, got 100 and -1"),
        (["dataloader.train=null"], "The config has no dataloader.train, which is to be timed."),
        (["train.devise=cpu"], "Did you mean 'device'?"),
    ],
)
def test_bench__refuses_in_one_sentence(tmp_path, capsys, words, told):
    assert main(["bench", "data", stand_in_file(tmp_path), *words]) == 1
    said = capsys.readouterr().err
    assert told in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (["--names", "resnet81"], 1, "there is no architecture named 'resnet81'. Did you mean"),
        (["--seeds", "0"], 2, "expected e.g. 3, got '0'"),
        (["--step", "draw"], 2, "invalid choice: 'draw'"),
        (["--step", "page"], 1, "has no runs: `detrex bench backbones` trains them"),
        (["--page", "nix.md"], 1, "nix.md has no place for the table"),
    ],
)
def test_bench_backbones__refuses(tmp_path, capsys, words, status, told):
    try:
        found = main(["bench", "backbones", "--output", str(tmp_path), *words])
    except SystemExit as end:
        found = end.code
    assert found == status
    said = capsys.readouterr()
    assert told in said.err
    assert "seed 0" not in said.out, "and before anything is trained"


def test_bench__examples_are_command_lines():
    parser, commands = build_parser()
    tasks = commands["bench"]._subparsers._group_actions[0].choices
    for shown in (commands["bench"], *tasks.values()):
        assert len(shown.examples) >= 2
        for line in shown.examples:
            parser.parse_known_args(line.split()[1:])
