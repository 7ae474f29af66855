"""``detrex share``: a run's detector as a folder that any machine can load, or on the Hub."""

import argparse
import re
from typing import Any

from detrex.cli import terminal
from detrex.cli.arguments import add_detector_arguments
from detrex.cli.runs import tell_choice

_EXAMPLES = """
detrex share output/run shapes --licence Apache-2.0
detrex share output/run hf-hub:owner/name --private --dataset my_shapes
detrex share dino/dino_r50_4scale_12ep.py dino --weights dino_r50.pth --threshold 0.4
"""
_HUB = re.compile(r"hf[-_]hub:(?://)?([^@]*)(?:@(.+))?")


def add_parser(commands: Any) -> None:
    """Add the command to the command line.

    Args:
        commands: argparse's subparsers.
    """
    parser = commands.add_parser(
        "share",
        help="write a trained detector to a folder that any machine can load, or to the Hub",
        description="Write a trained detector with its config, class names, statistics, licence "
        "and a model card. Nothing in it names this machine, and no other folder or model is "
        "written over.",
        examples=_EXAMPLES,
    )
    parser.add_argument(
        "source", metavar="SOURCE", help="a run's folder, a checkpoint, or a config with weights"
    )
    parser.add_argument(
        "target", metavar="TARGET", help="a folder, or hf-hub:owner/name[@branch] (`hf auth login`)"
    )
    add_detector_arguments(parser)
    parser.add_argument("--licence", default="", help="of the weights, such as Apache-2.0")
    parser.add_argument(
        "--dataset",
        action="append",
        default=[],
        metavar="NAME",
        help="what it was trained on; may be given repeatedly (the config's)",
    )
    parser.add_argument("--private", action="store_true", help="a new repository is yours alone")
    parser.add_argument("--message", default="", help="of the commit")
    parser.set_defaults(run=run, parser=parser)


def run(arguments: argparse.Namespace) -> int:
    """Save a detector, and say how to load it.

    Args:
        arguments: as parsed.

    Returns:
        Exit status 0.

    Raises:
        DetrexError: the source cannot be loaded, or the target not written.
    """
    from detrex.inference.hub import push_to_hub
    from detrex.inference.loading import load
    from detrex.inference.pretrained import save_pretrained

    hub = _HUB.fullmatch(arguments.target)
    if not hub and (arguments.private or arguments.message):
        option = "--private" if arguments.private else "--message"
        arguments.parser.error(f"{option} is for hf-hub:owner/name, and {arguments.target} is none")
    with terminal.status("loading the detector"):
        detector = load(
            arguments.source,
            config=arguments.config,
            weights=arguments.weights,
            device="cpu",
            threshold=arguments.threshold,
            trust=arguments.trust,
        )
    tell_choice(detector, arguments.weights)
    told: dict[str, Any] = {"licence": arguments.licence, "datasets": arguments.dataset}
    with terminal.status("saving it, and reading it back"):
        if hub:
            repository, branch = hub.groups()
            where = push_to_hub(
                detector,
                repository,
                private=arguments.private or None,
                revision=branch,
                message=arguments.message,
                **told,
            )
        else:
            where = str(save_pretrained(detector, arguments.target, **told))
    print(f"{where}: load it by detrex.load({where!r})")
    return 0
