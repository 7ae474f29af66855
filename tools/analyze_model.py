"""Count a configured model's FLOPs, activations and parameters, or print its structure.

    python tools/analyze_model.py --tasks parameter structure --config-file CONFIG
    python tools/analyze_model.py --tasks flop activation --input-size 800 1333 --config-file CONFIG

FLOPs (a multiplication and its addition count as one) and activations are means over pictures of
`dataloader.test`, or of random pictures where `--input-size` is given, which needs no dataset.
The same as `detrex bench model CONFIG`.
"""

from detrex.quiet import quiet_libraries
from detrex.threads import prepare_threads

if __name__ == "__main__":  # before torch is imported
    prepare_threads()
    quiet_libraries()

import argparse
from collections.abc import Sequence

from detrex.cli.bench_model import add_count_options, count_model
from detrex.errors import run_tool
from detrex.options import add_trust_option


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the tasks in the order given."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, metavar="FILE", help="a lazy config")
    add_count_options(parser, required=True)
    add_trust_option(parser)
    parser.add_argument("opts", nargs="*", default=[], help="overrides such as model.num_classes=3")
    args = parser.parse_intermixed_args(arguments)
    count_model(args, args.config_file, args.opts)


if __name__ == "__main__":
    run_tool(main)
