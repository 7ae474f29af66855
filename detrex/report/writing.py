"""From a run's folder to its page."""

from pathlib import Path

from detrex.errors import RunError
from detrex.files import write_atomically
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
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, lambda stream: stream.write(text.encode("utf-8", "replace")))
    except OSError as error:
        raise RunError(
            f"{file} cannot be written ({error.strerror or error}): name another place by "
            "`detrex report --output`"
        ) from error
    return file


def _refuse_to_replace(file: Path) -> None:
    """Keep what is no report of this package: it is the user's."""
    if not file.exists():
        return
    head = b""
    if file.is_file():
        with file.open("rb") as stream:
            head = stream.read(2000)
    if MARK.encode() not in head:
        raise RunError(
            f"{file} is there already and is no report of a training: name another file by "
            "`detrex report --output`"
        )
