"""``detrex report``: the page of a training, written again from its folder."""

import argparse
from typing import Any

_EXAMPLES = """
detrex report output/demo/shapes/run
detrex report output --output look.html --pictures 30
"""


def add_parser(commands: Any) -> None:
    """Add the command to the command line.

    Args:
        commands: argparse's subparsers.
    """
    parser = commands.add_parser(
        "report",
        help="write report.html of a training, finished or not, from the files in its folder",
        description="Write one page about a training: curves, figures by class and size, "
        "confusion, the worst pictures, config, environment, and where the time went. A finished "
        "training has written it already. Nothing is computed anew but what is compared with the "
        "annotations, and no net is needed to read it.",
        examples=_EXAMPLES,
    )
    parser.add_argument("folder", help="a run's train.output_dir")
    parser.add_argument("--output", metavar="FILE", help="the page (report.html in the folder)")
    parser.add_argument(
        "--pictures", type=int, default=12, metavar="N", help="of the worst ones (%(default)s)"
    )
    parser.set_defaults(run=run, parser=parser)


def run(arguments: argparse.Namespace) -> int:
    """Write the page, and say where it is.

    Args:
        arguments: as parsed.

    Returns:
        Exit status 0.

    Raises:
        RunError: no run has trained in the folder, or the page cannot be written.
    """
    from pathlib import Path

    from detrex.cli.terminal import status
    from detrex.report import write_report

    if arguments.pictures < 0:
        arguments.parser.error(f"--pictures expects 0 or more, got {arguments.pictures}")
    output = Path(arguments.output) if arguments.output else None
    with status("writing the report"):
        page = write_report(Path(arguments.folder), output, arguments.pictures)
    print(page)
    return 0
