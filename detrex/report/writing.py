"""From a run's folder to its page."""

import os
from pathlib import Path

from detrex.errors import RunError
from detrex.files import has_mark, write_atomically, writing_to
from detrex.report.collect import collect
from detrex.report.page import MARK, page_of

REPORT = "report.html"


def write_report(folder: Path, output: Path | None = None, pictures: int = 12) -> Path:
    """Write the report of a run, finished or not.

    Args:
        folder: the run's ``train.output_dir``.
        output: the page, by default ``report.html`` in the folder.
        pictures: how many of the worst pictures to show.

    Returns:
        The page.

    Raises:
        RunError: no run has trained in the folder, or the page cannot be written, or would take the
            place of a file that is none.
    """
    file = output or folder / REPORT
    _refuse_to_replace(file)
    text = page_of(collect(folder, pictures))
    with writing_to(file, "name another place by `detrex report --output`"):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, lambda stream: stream.write(text.encode("utf-8", "replace")))
    return file


def _refuse_to_replace(file: Path) -> None:
    """Keep what is no report of this package: it is the user's."""
    if os.path.lexists(file) and not has_mark(file, MARK.encode(), 2000):
        raise RunError(
            f"{file} is there already and is no report of a training: name another file by "
            "`detrex report --output`"
        )
