"""Time the parts of a run: training and evaluation without data, and data without a model.

    python tools/benchmark.py --task train --config-file CONFIG --num-gpus 8
    python tools/benchmark.py --task data_advanced --config-file CONFIG -n 50

Each step is timed after `--warmup` steps that are not, in every process; the main one prints.
The same as `detrex bench TASK CONFIG`.
"""

from detrex.quiet import quiet_libraries
from detrex.threads import prepare_threads

if __name__ == "__main__":  # before torch is imported
    prepare_threads()
    quiet_libraries()

from collections.abc import Sequence

from detrex.benchmark.timing import TASKS
from detrex.cli.bench import add_step_options, time_config
from detrex.engine import argument_parser
from detrex.errors import run_tool


def main(arguments: Sequence[str] | None = None) -> None:
    """Time one task, in as many processes as asked."""
    parser = argument_parser()
    parser.description, parser.epilog = __doc__, None
    parser.add_argument("--task", required=True, choices=TASKS, help="what to time")
    add_step_options(parser)
    time_config(parser.parse_args(arguments))


if __name__ == "__main__":
    run_tool(main)
