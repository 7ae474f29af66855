"""Errors that a user of the package can provoke, and the hint that names the likely cure.

::

    DetrexError
    |-- BackboneError (ValueError)       a backbone cannot be built or used as asked
    |-- ConfigError (ValueError)         a config cannot be loaded, or its parts do not fit together
    |-- DataError (ValueError)           annotations or pictures cannot be read, or cannot be right
    |-- CheckpointError (ValueError)     a weights file cannot be read, or does not fit the model
    |-- DownloadError (OSError)          a file cannot be fetched, or is not the right one
    |-- MissingPackageError (ImportError)    an optional package is not installed
    |-- UploadError (OSError)            a detector cannot be put on the Hugging Face hub
    |-- PictureError (ValueError)        a picture cannot be read, or is not as its record says
    |-- RunError (OSError)               a run's folder is in use, or cannot be written to
    `-- NonFiniteLossError (ArithmeticError)   training met a loss that is NaN or infinite

Every message is one sentence that says what was wrong, what was given, what was expected and how to
mend it.
"""

import difflib
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

_LONGEST_NAME = 300
# What breaks or turns a line, steers a terminal or cannot be written as UTF-8.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: object) -> str:
    r"""Write names of strangers, and names of files that are no UTF-8, on one line.

    Args:
        text: anything with a text.

    Returns:
        The text with escapes such as ``\n`` and ``\udcff`` for what cannot be printed.
    """
    return _UNPRINTABLE.sub(lambda found: repr(found[0])[1:-1], str(text))


class DetrexError(Exception):
    """Base class of all errors that the package raises on purpose; its text is printable."""

    def __str__(self) -> str:
        return printable(super().__str__())


class DetrexWarning(UserWarning):
    """A remark of the package's, which a command shows where it hides those of other libraries."""


class BackboneError(DetrexError, ValueError):
    """A backbone cannot be built or used as asked: an unknown name, index, node or size."""


class ConfigError(DetrexError, ValueError):
    """A config cannot be found or loaded, or its parts do not fit together."""


class DataError(DetrexError, ValueError):
    """Annotations or pictures cannot be read, or what they say cannot be right."""


class CheckpointError(DetrexError, ValueError):
    """A weights file cannot be read, or too little of it fits the model."""


class DownloadError(DetrexError, OSError):
    """A file cannot be fetched, or what arrived is not the file that was asked for."""


class MissingPackageError(DetrexError, ImportError):
    """A package that only some uses need is not installed."""


class UploadError(DetrexError, OSError):
    """A detector cannot be put on the Hugging Face hub."""


class PictureError(DetrexError, ValueError):
    """A picture cannot be read, is not as its record says, or would lose its levels."""


class RunError(DetrexError, OSError):
    """The folder of a run belongs to another run, or what a run writes cannot be written."""


class NonFiniteLossError(DetrexError, ArithmeticError):
    """A training step gave a loss that is NaN or infinite."""


def did_you_mean(name: str, choices: Iterable[str], limit: int = 3) -> str:
    """Suggest the choices that are spelt most like ``name``.

    Args:
        name: what the user wrote.
        choices: the names that exist.
        limit: the most names to suggest.

    Returns:
        A sentence with a leading space, such as ``" Did you mean 'resnet50' or 'resnet50d'?"``, or
        an empty string where nothing is near.
    """
    # Comparing takes the square of the lengths, and a name may be anything that a file holds.
    known = [text for text in map(str, choices) if len(text) <= _LONGEST_NAME]
    near = difflib.get_close_matches(str(name)[:_LONGEST_NAME], known, limit, 0.6)
    return f" Did you mean {' or '.join(repr(n) for n in near)}?" if near else ""


def first_line(error: BaseException, most: int = 120) -> str:
    """Take the first line of an error's text, or its class where it has none.

    Args:
        error: any error.
        most: characters of it.
    """
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:most]


def interruption_behind(error: BaseException) -> BaseException | None:
    """Give what a signal raised, where an error took its place while it ended blocks.

    Args:
        error: with what it comes from.

    Returns:
        A ``KeyboardInterrupt`` or a special ``SystemExit``; None where there is none.
    """
    cause: BaseException | None = error
    while cause is not None:
        special = isinstance(cause, SystemExit) and type(cause) is not SystemExit
        if special or isinstance(cause, KeyboardInterrupt):
            return cause
        cause = cause.__cause__ or cause.__context__
    return None


@contextmanager
def not_replaced() -> Iterator[None]:
    """Raise what a signal raised in a block, also where an error has taken its place.

    Raises:
        BaseException: what `interruption_behind` finds behind an error of the block.
    """
    try:
        yield
    except Exception as error:
        if interruption := interruption_behind(error):
            raise interruption from None
        raise


def run_tool(main: Callable[[], object], *mistakes: type[Exception]) -> None:
    """Run a program's main function, and end a mistake of its user's with a sentence.

    Args:
        main: the function.
        mistakes: other errors than `DetrexError` whose text is for the user.

    Raises:
        SystemExit: status 1, with the error's class and text.
    """
    caught: tuple[type[Exception], ...] = (DetrexError, *mistakes)
    try:
        main()
    except caught as error:
        raise SystemExit(f"{type(error).__name__}: {error}") from None
