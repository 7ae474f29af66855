"""Draw what a config feeds to training: the annotations as they are, or after all augmentation.

python tools/visualize_data.py --source annotation --config-file CONFIG --output-dir output/look
python tools/visualize_data.py --source dataloader --config-file CONFIG --output-dir output/look

Pictures are read as training reads them. Nothing is written over but what was drawn before; a
picture that cannot be read is named at the end, with exit status 1. `detrex data CONFIG` does the
same, and counts what is in the data.
"""

from detrex.quiet import quiet_libraries
from detrex.threads import prepare_threads

if __name__ == "__main__":  # before torch is imported
    prepare_threads()
    quiet_libraries()

import argparse
from collections.abc import Sequence

from detrex.cli.data_pictures import Drawing, draw_annotations, draw_samples
from detrex.engine.overrides import load_overridden
from detrex.errors import run_tool
from detrex.options import add_trust_option, positive

SOURCES = {"annotation": draw_annotations, "dataloader": draw_samples}


def argument_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--source", choices=SOURCES, required=True, help="draw annotations, or loaded samples"
    )
    parser.add_argument("--config-file", required=True, metavar="FILE", help="a lazy config")
    parser.add_argument(
        "--output-dir", "--output_dir", default="./", metavar="DIR", help="where pictures go (./)"
    )
    parser.add_argument(
        "-n",
        "--num-images",
        type=positive,
        help="stop after so many pictures (as many as the dataset has)",
    )
    parser.add_argument(
        "--show", action="store_true", help="open a viewer instead of writing files"
    )
    add_trust_option(parser)
    parser.add_argument("opts", nargs="*", default=[], help="overrides such as train.device=cpu")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw the pictures and write them, or show them one by one.

    Raises:
        SystemExit: status 1 when a picture could not be read; the others are drawn.
    """
    args = argument_parser().parse_intermixed_args(arguments)
    cfg = load_overridden(args.config_file, args.opts, args.trust)
    drawing = Drawing(args.output_dir, "--output-dir", args.num_images, args.show)
    SOURCES[args.source](cfg, drawing).end()


if __name__ == "__main__":
    run_tool(main, OSError)
