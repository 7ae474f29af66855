"""Tables and progress: by rich where the output is a terminal, as plain lines where it is not.

Pipes, files, ``NO_COLOR`` and ``TERM=dumb`` get plain lines, which do not depend on a width.
"""

import os
import sys
import textwrap
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO, TypeVar

T = TypeVar("T")

_CUT = "~"
_BROKEN = 16  # characters below which cells are not broken


def is_rich(stream: TextIO | None = None) -> bool:
    """Tell whether a stream is a terminal that takes colours and moves its cursor.

    Args:
        stream: the standard output by default.
    """
    stream = stream or sys.stdout
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM", "") in ("", "dumb")
    return stream is not None and not plain and stream.isatty()


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    right: Collection[str] = (),
    title: str = "",
) -> None:
    """Print a table.

    Args:
        columns: their heads. On a terminal too narrow for them the rows are written one below the
            other, the cells with their heads.
        rows: of cells, as long as `columns`; None is printed as ``-``.
        right: the columns that are aligned to the right, such as those of numbers.
        title: a line above it.
    """
    texts = [["-" if cell is None else str(cell) for cell in row] for row in rows]
    if not is_rich():
        lines = [title] if title else []
        print("\n".join([*lines, lay_out([list(columns), *texts], right=places(columns, right))]))
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    widths = [max(map(len, cells)) for cells in zip(columns, *texts, strict=True)]
    if _least(widths) > console.width:
        for line in _one_below_the_other(columns, texts, title, console.width):
            console.print(Text(line), soft_wrap=True)
        return
    shown = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, title=title or None)
    shown.title_justify = "left"
    for place, column in enumerate(columns):
        shown.add_column(
            Text(column),
            justify="right" if column in right else "left",
            overflow="fold",
            min_width=widths[0] if place == 0 else None,
            no_wrap=place == 0,
        )
    for row in texts:
        shown.add_row(*map(Text, row))
    console.print(shown)


def _one_below_the_other(
    columns: Sequence[str], rows: Iterable[Sequence[str]], title: str, width: int
) -> Iterator[str]:
    """Lay out rows whose columns have no room: the first cell, and below it what there is more."""
    yield from filter(None, [title])
    for first, *cells in rows:
        yield first
        pairs = zip(columns[1:], cells, strict=True)
        more = "; ".join(f"{head.lower()} {cell}" for head, cell in pairs if cell != "-")
        yield from textwrap.wrap(
            more, width, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False
        )


def _least(widths: Sequence[int]) -> int:
    """Characters that columns take at least."""
    return widths[0] + sum(min(width, _BROKEN) + 3 for width in widths[1:])


def places(columns: Sequence[str], names: Collection[str]) -> list[int]:
    """Give the places of columns by their names."""
    return [place for place, column in enumerate(columns) if column in names]


def lay_out(
    rows: Sequence[Sequence[str]], *, right: Collection[int] = (), width: int | None = None
) -> str:
    """Lay cells out in columns.

    Args:
        rows: of cells, all of one length; the first may be the head.
        right: places of columns that are aligned to the right.
        width: characters of a line: the last columns are left out, and the first one is cut, where
            they do not fit. None for as many as it takes.

    Returns:
        Lines without spaces at their ends.
    """
    columns = list(zip(*rows, strict=True))
    if width is not None:
        while len(columns) > 1 and sum(max(map(len, c)) + 2 for c in columns[1:]) > width - 24:
            columns.pop()  # the last columns matter least
    widths = [max(map(len, column)) for column in columns]
    if width is not None:
        widths[0] = min(widths[0], width - sum(size + 2 for size in widths[1:]))
    return "\n".join(
        "  ".join(
            _cell(text, size, place in right)
            for place, (text, size) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in zip(*columns, strict=True)
    )


def _cell(text: str, size: int, right: bool) -> str:
    text = text if len(text) <= size else f"{text[: size - 1]}{_CUT}"
    return text.rjust(size) if right else text.ljust(size)


def progress(items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Show how far a loop is, on the error stream of a terminal; elsewhere nothing is shown.

    Args:
        items: to go through.
        description: what is done, such as ``"predicting"``.
        total: their number; by default ``len(items)`` where they have one.

    Yields:
        The items.
    """
    if not is_rich(sys.stderr):
        yield from items
        return
    from rich.console import Console
    from rich.progress import track

    total = total if total is not None else getattr(items, "__len__", lambda: None)()
    console = Console(stderr=True)
    yield from track(items, description, total, console=console, transient=True)


@contextmanager
def status(text: str) -> Iterator[None]:
    """Show on a terminal that something is under way; elsewhere nothing is shown.

    Args:
        text: what is done, such as ``"building the model"``.
    """
    if not is_rich(sys.stderr):
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(f"{text} ..."):
        yield
