import io
import re

import pytest

from detrex.cli import terminal
from detrex.cli.terminal import is_rich, lay_out, progress, status, table


class Terminal(io.StringIO):
    def isatty(self):
        return True


def use_a_terminal(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "70")
    monkeypatch.setattr("sys.stdout", Terminal())
    monkeypatch.setattr("sys.stderr", Terminal())


@pytest.mark.parametrize(
    ("stream", "name", "value", "rich"),
    [
        (Terminal(), "TERM", "xterm", True),
        (io.StringIO(), "TERM", "xterm", False),
        (Terminal(), "TERM", "dumb", False),
        (Terminal(), "NO_COLOR", "1", False),
    ],
)
def test_is_rich__on_terminals_that_take_it(stream, name, value, rich, monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv(name, value)
    assert is_rich(stream) is rich


ROWS = [("a[b]", 1.5, None), ("long name", 10, "x")]


def test_table__plain_where_it_is_no_terminal(capsys):
    table(["NAME", "AP", "BY"], ROWS, right=["AP"], title="all")
    assert capsys.readouterr().out.splitlines() == [
        "all",
        "NAME        AP  BY",
        "a[b]       1.5  -",
        "long name   10  x",
    ]


def test_table__rich_on_a_terminal(monkeypatch):
    use_a_terminal(monkeypatch)
    table(["NAME", "AP", "BY"], ROWS, right=["AP"], title="all")
    lines = [line.rstrip() for line in terminal.sys.stdout.getvalue().splitlines()]
    assert any("──" in line for line in lines)
    assert any("a[b]" in line and "1.5" in line for line in lines), "brackets are no markup"


@pytest.mark.parametrize(("width", "is_table"), [(30, False), (50, False), (75, True)])
def test_table__leaves_nothing_out_at_any_width(width, is_table, monkeypatch):
    use_a_terminal(monkeypatch)
    monkeypatch.setenv("COLUMNS", str(width))
    heads = ["NAME", "SECOND", "THIRD", "FOURTH"]
    table(heads, [("n" * 25, "x" * 60, "y" * 20, None)], title="all")
    text = re.sub(r"\x1b\[[0-9;]*m", "", terminal.sys.stdout.getvalue())
    assert "all" in text
    assert "n" * 25 in text
    assert (text.count("x"), text.count("y")) == (60, 20), "broken, not cut"
    assert ("──" in text, "second" in text.lower(), "third" in text.lower()) == (is_table, 1, 1)
    assert max(map(len, text.splitlines())) <= width


def test_table__a_name_that_is_wider_than_the_terminal_is_whole(monkeypatch):
    use_a_terminal(monkeypatch)
    table(["NAME", "AP"], [("n" * 100, 1.5)])
    assert terminal.sys.stdout.getvalue().splitlines() == ["n" * 100, "  ap 1.5"]


@pytest.mark.parametrize("width", [30, 40, 60])
def test_lay_out__fits_a_width(width):
    rows = [["a" * 50, "1", "some words"], ["b", "22", "c"]]
    lines = lay_out(rows, right=[1], width=width).splitlines()
    assert max(map(len, lines)) <= width
    assert lines[0].startswith("aaaa")
    assert "~" in lines[0]


def test_progress__gives_the_items_and_is_silent_elsewhere(capsys):
    assert list(progress(iter("abc"), "reading")) == ["a", "b", "c"]
    with status("reading"):
        pass
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "")


def test_progress__on_the_error_stream_of_a_terminal(monkeypatch):
    use_a_terminal(monkeypatch)
    assert list(progress(range(3), "reading")) == [0, 1, 2]
    with status("building"):
        pass
    assert "reading" in terminal.sys.stderr.getvalue()
    assert terminal.sys.stdout.getvalue() == ""
