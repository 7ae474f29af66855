import json
import shutil

import pytest

from detrex.catalog.table import Entry, write_catalog
from detrex.cli import main
from detrex.cli.backbones import table
from tests.catalog.test_table import NET, PLAIN


@pytest.fixture(autouse=True)
def _table_of_two(tmp_path, monkeypatch):
    monkeypatch.setenv("DETREX_CACHE", str(tmp_path))
    write_catalog([NET, PLAIN], tmp_path / "backbones.csv")


def test_search__prints_a_table_and_a_count(capsys):
    assert main(["backbones", "--strides", "8,16,32", "--max-params", "40M"]) == 0
    head, row, last = capsys.readouterr().out.splitlines()
    assert head.split()[:3] == ["NAME", "PARAMS", "GFLOPS"]
    assert row.split()[:2] == ["net_a", "1.3M"]
    assert last.startswith("1 of 2 architectures")


def test_search__json_and_limit(capsys):
    assert main(["backbones", "--json", "--limit", "1", "--sort", "name"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["name"] == "net_a"
    assert row["strides"] == [4, 8, 16, 32]


def test_search__nothing_found_is_status_1(capsys):
    assert main(["backbones", "nothing_like_it"]) == 1
    assert "0 of 2 architectures" in capsys.readouterr().out


def test_search__says_that_the_table_is_old(tmp_path, capsys):
    file = tmp_path / "backbones.csv"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("# timm 0.1, torchvision 0.2\n" + "".join(lines[1:]))
    main(["backbones"])
    assert "made with timm 0.1 and" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["--max-params", "40X"], "expected e.g. 40M, got '40X'"),
        (["--strides", "8;16"], "expected e.g. 8,16,32, got '8;16'"),
        (["--size", "800"], "expected e.g. 800x1333, got '800'"),
        (["one", "two"], "one pattern at a time, got one two"),
        (["show"], "`show` needs one name"),
        (["--kind", "round"], "invalid choice: 'round'"),
    ],
)
def test_usage__bad_is_status_2(words, match, capsys):
    with pytest.raises(SystemExit) as error:
        main(["backbones", *words])
    assert error.value.code == 2
    assert match in capsys.readouterr().err


@pytest.mark.parametrize("width", [50, 80, 120, 200])
def test_table__fits_the_terminal(width):
    long = Entry("a_name_of_many_letters" * 3, "timm", sizes="224x224 tiles", strides=(4, 8, 16))
    lines = table([NET, PLAIN, long], width).splitlines()
    assert max(map(len, lines)) <= width
    assert len({line.index("M") for line in lines[1:]}) == 1


def test_table__width_is_the_terminals(monkeypatch, capsys):
    size = shutil.os.terminal_size((60, 20))
    monkeypatch.setattr(shutil, "get_terminal_size", lambda: size)
    main(["backbones"])
    assert max(map(len, capsys.readouterr().out.splitlines()[:-1])) <= 60
