"""The command line: ``detrex COMMAND ...``, also as ``python -m detrex``.

To import this module, to show help and to complete a line takes no torch: each command imports it
when it runs.
"""

import argparse
import errno
import io
import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module, metadata

from detrex import __version__
from detrex.cli.completion import complete
from detrex.cli.help import Parser, require_known
from detrex.errors import DetrexError, not_replaced, printable
from detrex.quiet import quiet_libraries
from detrex.threads import prepare_threads

COMMANDS = (
    "init",
    "data",
    "check",
    "train",
    "evaluate",
    "report",
    "predict",
    "export",
    "share",
    "bench",
    "backbones",
    "merge",
    "completion",
)
"""Modules of this package with ``add_parser(commands)`` and ``run(arguments) -> int``, in the order
of the help."""

_EXAMPLES = """
detrex init my_project --data pictures/ --backbone convnext_tiny
detrex backbones --strides 8,16,32 --max-params 40M --sort gflops
detrex train --list
detrex train dino/dino_r50_4scale_12ep.py --num-gpus 8 --output runs/first
detrex eval runs/first
detrex predict runs/first pictures/ --output found
detrex export dino/dino_r50_4scale_12ep.py --weights model.pth --output dino.onnx
"""

INTERRUPTED = 130
"""The exit status after Ctrl-C, as shells have it."""


def build_parser() -> tuple[Parser, dict[str, Parser]]:
    """Build the whole command line.

    Returns:
        Its parser, and those of its commands by name.
    """
    parser = Parser(
        prog="detrex",
        description="Train, evaluate and export detectors over any backbone, and see what is wrong "
        "before it costs time.",
        examples=_EXAMPLES,
    )
    parser.add_argument("--version", action="version", version=f"detrex {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in COMMANDS:
        import_module(f"detrex.cli.{name}").add_parser(commands)
    return parser, dict(commands.choices)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read a command line.

    Args:
        arguments: its words.

    Returns:
        The options of the command, with its function ``run`` and its ``parser``.

    Raises:
        SystemExit: status 2 for words that mean nothing, told in one sentence; 0 after help.
    """
    parser, commands = build_parser()
    complete(parser)
    if not arguments:
        parser.print_help()
        parser.exit(2)
    if arguments[0] == "help":
        arguments = [*arguments[1:], "--help"]
    if not arguments[0].startswith("-"):
        require_known(parser, arguments[0], commands)
    elif arguments[0] not in parser.option_strings:
        parser.refuse_unknown(arguments[:1])
    commands.get(arguments[0], parser).refuse_empty(arguments)
    parsed, further = parser.parse_known_args(arguments)
    if further and hasattr(parsed, "overrides") and not any(w.startswith("-") for w in further):
        parsed.overrides = [*parsed.overrides, *further]  # key=value after an option
    elif further:
        parsed.parser.refuse_unknown(further)
    return parsed


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: words of the command line; those of the process by default.

    Returns:
        Exit status: 0, 1 for a mistake of the user's, told in one sentence, or 130 after Ctrl-C.

    Raises:
        SystemExit: status 2 for bad usage; 75 or 130 where a signal stopped a run.
    """
    prepare_threads()  # before a command imports torch
    quiet_libraries()
    _write_any_name()
    try:
        parsed = parse(sys.argv[1:] if arguments is None else arguments)
        with not_replaced():
            status: int = parsed.run(parsed)
            if sys.stdout is not None:  # as it is where a shell's `>&-` has closed it
                sys.stdout.flush()
        return status
    except DetrexError as error:
        return _refuse(str(error))
    except KeyboardInterrupt:
        _refuse("Interrupted.")
        return INTERRUPTED
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        _drop_output()
        return 0
    except OSError as error:
        return _refuse_file(error)
    except Exception as error:
        return _tell_bug(error)


def _write_any_name() -> None:
    """Escape on the standard output what its encoding lacks, such as names of classes and files."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")


def _refuse(sentence: str) -> int:
    print(f"detrex: {sentence}", file=sys.stderr)
    return 1


def _refuse_file(error: OSError) -> int:
    """Say what the system says of a file; an error that is of none is a bug."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    if full:
        _drop_output()
        where = error.filename or "the standard output"
        return _refuse(f"{printable(where)} cannot be written ({error.strerror}): make room")
    if error.filename is None or error.strerror is None:
        return _tell_bug(error)
    return _refuse(f"{printable(error.filename)} cannot be used: {error.strerror}.")


def _tell_bug(error: Exception) -> int:
    """Print the traceback of an error that no sentence was written for."""
    traceback.print_exception(error)
    return _refuse(
        "unless the last lines above are of code of yours, this is a bug of detrex: please report "
        f"it with all these lines{_issues()}."
    )


def _issues() -> str:
    """Where the installed package says that bugs are reported."""
    try:
        urls = metadata.metadata("detrex").get_all("Project-URL") or []
    except metadata.PackageNotFoundError:
        urls = []
    found = dict(reversed(url.rsplit(", ", 1)) for url in urls)
    place = next((url for url, label in found.items() if label.lower() in ("issues", "bugs")), "")
    return f" at {place}" if place else " as an issue of the project"


def _drop_output() -> None:
    """Forget what the standard output still holds: the interpreter would try to write it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
