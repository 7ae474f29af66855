"""``detrex backbones``: search the catalog, or have it made anew."""

import argparse
import functools
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from detrex.catalog.table import (
    LIBRARIES,
    Catalog,
    Entry,
    Query,
    read_catalog,
    to_json,
)
from detrex.cli.arguments import (
    parse_count,
    parse_integers,
    parse_number,
    parse_positive,
    parse_size,
    typed,
)
from detrex.cli.completion import complete_backbones
from detrex.cli.terminal import lay_out

_EXAMPLES = """
detrex backbones --strides 8,16,32 --max-params 40M
detrex backbones 'vit_*' --tag lvd --any-size --sort gflops
detrex backbones --kind pyramid --norm layer --licence apache --json
detrex backbones show vit_small_patch16_dinov3
detrex backbones nodes resnet50
detrex backbones rebuild --jobs 8
"""
_ACTIONS = ("show", "nodes", "rebuild")


def add_parser(commands: Any) -> None:
    """Add the command to the command line.

    Args:
        commands: argparse's subparsers.
    """
    parser = commands.add_parser(
        "backbones",
        help="search all architectures of timm and torchvision, or describe one",
        description="Search all architectures of timm and torchvision, or describe one.",
        examples=_EXAMPLES,
    )
    words = parser.add_argument(
        "words",
        nargs="*",
        metavar="PATTERN | show NAME | nodes NAME | rebuild",
        help="part of a name or a pattern such as 'vit_*'; or what to do instead of searching",
    )
    words.completer = complete_backbones  # argcomplete's
    _add_search_options(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--size",
        type=typed(parse_size, "800x1333"),
        default=(800, 1333),
        metavar="HEIGHTxWIDTH",
        help="show: an image, 800x1333 by default",
    )
    parser.add_argument("--output", type=Path, help="rebuild: the table's file")
    parser.add_argument(
        "--jobs", type=typed(parse_positive, "8"), default=1, metavar="N", help="rebuild: processes"
    )
    parser.add_argument("--only", default="*", help="rebuild: names to analyse, others are kept")
    parser.set_defaults(run=run, parser=parser)


def _add_search_options(parser: argparse.ArgumentParser) -> None:
    options = parser.add_argument_group("search")
    options.add_argument(
        "--strides", type=typed(parse_integers, "8,16,32"), default=(), metavar="N,N"
    )
    options.add_argument(
        "--channels", type=typed(parse_integers, "256,512"), default=(), metavar="N,N"
    )
    options.add_argument(
        "--min-params", type=typed(parse_number, "5M"), metavar="N", help="e.g. 5M"
    )
    options.add_argument(
        "--max-params", type=typed(parse_number, "40M"), metavar="N", help="e.g. 40M"
    )
    options.add_argument("--min-gflops", type=float, metavar="X", help="for 640 x 640 pixels")
    options.add_argument("--max-gflops", type=float, metavar="X", help="for 640 x 640 pixels")
    options.add_argument("--norm", choices=["batch", "layer", "group", "rms", "none"])
    options.add_argument("--kind", choices=["pyramid", "partial", "flat"])
    options.add_argument(
        "--any-size", "--dynamic", action="store_true", help="leave out what needs tiles"
    )
    options.add_argument("--pretrained", action="store_true", help="leave out what has no weights")
    options.add_argument("--licence", "--license", help="part of the licence's name")
    options.add_argument("--tag", help="part of the name of pretrained weights")
    options.add_argument("--library", choices=LIBRARIES)
    options.add_argument("--sort", choices=["params", "gflops", "name"], default="params")
    options.add_argument(
        "--limit", type=typed(parse_count, "20"), metavar="N", help="print at most N"
    )


def run(arguments: argparse.Namespace) -> int:
    """Do what the command line asks for.

    Args:
        arguments: as parsed.

    Returns:
        Exit status.
    """
    action, names = (arguments.words or [""])[0], arguments.words[1:]
    if action not in _ACTIONS and names:
        arguments.parser.error(f"one pattern at a time, got {' '.join(arguments.words)}")
    if action in ("show", "nodes") and len(names) != 1:
        arguments.parser.error(f"`{action}` needs one name, such as `{action} resnet50`")
    if action == "rebuild":
        from detrex.catalog.rebuild import rebuild

        told = functools.partial(print, file=sys.stderr)
        print(rebuild(arguments.output, arguments.jobs, arguments.only, told))
        return 0
    if action == "show":
        from detrex.cli.backbones_show import show

        return show(names[0], arguments.library, arguments.size, arguments.json)
    if action == "nodes":
        from detrex.cli.backbones_show import show_nodes

        return show_nodes(names[0], arguments.json)
    return search(read_catalog(), arguments)


def search(catalog: Catalog, arguments: argparse.Namespace) -> int:
    """Print what is found in a catalog.

    Args:
        catalog: where to search.
        arguments: as parsed.

    Returns:
        Exit status: 0, or 1 where nothing is found.
    """
    found = catalog.search(query_of(arguments), arguments.sort)
    shown = found[: arguments.limit]
    if arguments.json:
        print(to_json(shown))
    else:
        print(table(shown, shutil.get_terminal_size().columns))
        print(f"{len(found)} of {len(catalog.entries)} architectures", end="")
        print(f", {len(shown)} shown" if len(shown) < len(found) else "", end="")
        print("; one of them: detrex backbones show NAME" if found else "")
    for library, version in catalog.outdated().items():
        print(
            f"detrex: the table was made with {library} {catalog.versions[library]} and "
            f"{version} is installed: `detrex backbones rebuild` makes it anew.",
            file=sys.stderr,
        )
    return 0 if found else 1


def query_of(arguments: argparse.Namespace) -> Query:
    """Read the query off the command line."""
    return Query(
        pattern=(arguments.words or [""])[0],
        strides=arguments.strides,
        channels=arguments.channels,
        min_params=arguments.min_params,
        max_params=arguments.max_params,
        min_gflops=arguments.min_gflops,
        max_gflops=arguments.max_gflops,
        norm=arguments.norm,
        kind=arguments.kind,
        any_size=arguments.any_size,
        pretrained=arguments.pretrained,
        licence=arguments.licence,
        tag=arguments.tag,
        library=arguments.library,
    )


def table(entries: Sequence[Entry], width: int) -> str:
    """Lay entries out for a terminal.

    Args:
        entries: the rows.
        width: of the terminal in characters; names are cut where they do not fit.

    Returns:
        Lines with a head: name, parameters, multiply-adds at 640 x 640, norm, what is done to
        image sizes, library, strides, licence.
    """
    rows = [["NAME", "PARAMS", "GFLOPS", "NORM", "SIZES", "LIBRARY", "STRIDES", "LICENCE"]]
    rows += [
        [
            entry.name,
            f"{entry.params / 1e6:.1f}M",
            f"{entry.gflops:.1f}",
            entry.norm,
            entry.sizes,
            entry.library,
            ",".join(map(str, entry.strides)),
            entry.licence or "?",
        ]
        for entry in entries
    ]
    return lay_out(rows, right=(1, 2), width=width)
