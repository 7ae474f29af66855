"""Draw the predictions of an evaluation beside the truth.

python tools/visualize_json_results.py --input RUN/coco_instances_results.json --output output/look
... --dataset coco_2017_val                  for a dataset that detectron2 has registered
... --config-file CONFIG [key=value ...]     for the dataset of dataloader.test in a config

Nothing is written over but what was drawn before; a picture that cannot be read is named at the
end, with exit status 1. `detrex data CONFIG --predictions FILE` does the same.
"""

from detrex.quiet import quiet_libraries
from detrex.threads import prepare_threads

if __name__ == "__main__":  # before torch is imported
    prepare_threads()
    quiet_libraries()

import argparse
from collections.abc import Sequence

from detectron2.data import DatasetCatalog, MetadataCatalog

from detrex.cli.data_pictures import Drawing, Truth, draw_predictions
from detrex.data.predictions import read_predictions
from detrex.engine.overrides import load_overridden
from detrex.errors import ConfigError, did_you_mean, run_tool
from detrex.options import add_trust_option, positive


def load_dataset(args: argparse.Namespace) -> Truth:
    """Read ``--config-file``'s test set, or ``--dataset``."""
    if args.config_file:
        cfg = load_overridden(args.config_file, args.opts, args.trust)
        return Truth.of_config(cfg)
    if args.dataset not in DatasetCatalog:
        raise ConfigError(
            f"--dataset {args.dataset} is not registered with detectron2: name a registered one, "
            "or the config that registers it by --config-file."
            + did_you_mean(args.dataset, DatasetCatalog.list())
        )
    return Truth(DatasetCatalog.get(args.dataset), MetadataCatalog.get(args.dataset))


def argument_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--input", required=True, metavar="FILE", help="coco_instances_results.json of a run"
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="where pictures go")
    parser.add_argument("--dataset", default="coco_2017_val", help="a registered dataset")
    parser.add_argument("--config-file", metavar="FILE", help="a lazy config, instead of --dataset")
    parser.add_argument(
        "--conf-threshold", default=0.5, type=float, help="leave out what scores less (0.5)"
    )
    parser.add_argument("-n", "--num-images", type=positive, help="stop after so many pictures")
    add_trust_option(parser)
    parser.add_argument("opts", nargs="*", default=[], help="overrides of the config")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Write one PNG per image of the dataset.

    Raises:
        SystemExit: status 1 when a picture could not be read; the others are drawn.
    """
    args = argument_parser().parse_intermixed_args(arguments)
    drawing = Drawing(args.output, "--output", args.num_images)
    predictions = read_predictions(args.input)
    draw_predictions(predictions, load_dataset(args), drawing, args.conf_threshold).end()


if __name__ == "__main__":
    run_tool(main, OSError)
