"""Count a configured model's FLOPs, activations and parameters, or print its structure.

    python tools/analyze_model.py --tasks parameter structure --config-file CONFIG
    python tools/analyze_model.py --tasks flop activation --input-size 800 1333 --config-file CONFIG

FLOPs (a multiplication and its addition count as one) and activations are means over pictures of
`dataloader.test`, or of random pictures where `--input-size` is given, which needs no dataset.
"""

from detrex.threads import prepare_threads

if __name__ == "__main__":
    prepare_threads()  # before torch is imported, which reads them once

import argparse
import itertools
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from detectron2.config import instantiate
from detectron2.export import TracingAdapter
from detectron2.utils.analysis import FlopCountAnalysis, parameter_count_table
from fvcore.nn import ActivationCountAnalysis, flop_count_table
from omegaconf import DictConfig
from torch import nn
from tqdm import tqdm

from detrex.config import load_config, resolve_pixel_statistics, try_get_key
from detrex.config.building import build_part
from detrex.engine.overrides import apply_overrides
from detrex.errors import ConfigError, run_tool
from detrex.options import add_trust_option
from detrex.utils.outputs import positive

Batch = list[dict[str, Any]]


def build_model(cfg: DictConfig) -> nn.Module:
    """Build ``cfg.model`` in evaluation mode on ``cfg.train.device``, with its initial weights."""
    if "model" not in cfg:
        raise ConfigError(f"The config has no `model`, only {sorted(cfg)}: name one that has.")
    device = try_get_key(cfg, "train.device", default="cpu")
    resolve_pixel_statistics(cfg)
    return build_part(cfg.model, "model").to(device).eval()


def input_batches(cfg: DictConfig, args: argparse.Namespace) -> Iterator[Batch]:
    """Yield batches of one picture: random of ``--input-size``, else from ``dataloader.test``."""
    if args.input_size:
        generator = torch.Generator().manual_seed(0)
        for _ in range(args.num_inputs):
            image = torch.randint(256, (3, *args.input_size), generator=generator)
            yield [{"image": image.to(torch.uint8)}]
        return
    remedy = "count on random pictures by `--input-size HEIGHT WIDTH`."
    if try_get_key(cfg, "dataloader.test") is None:
        raise ConfigError(f"The config has no dataloader.test to read pictures from: {remedy}")
    try:
        loader = instantiate(cfg.dataloader.test)
    except (OSError, ConfigError) as error:
        raise ConfigError(
            f"The pictures of dataloader.test cannot be read ({error}): mend it, or {remedy}"
        ) from error
    for batch in itertools.islice(loader, args.num_inputs):
        yield [{"image": batch[0]["image"]}]


def do_flop(cfg: DictConfig, args: argparse.Namespace) -> None:
    """Print the FLOPs of the model's parts for the first picture, and the mean over all."""
    model, totals, table, not_counted = build_model(cfg), [], "", ""
    operators: Counter[str] = Counter()
    for batch in _with_progress(cfg, args, "flop"):
        flops = FlopCountAnalysis(model, batch)
        if not table:
            table = flop_count_table(flops, max_depth=3)
            not_counted = ", ".join(sorted(flops.unsupported_ops()))
        totals.append(flops.total())
        operators.update(flops.by_operator())
    print(table)
    print(f"Counted as nothing: {not_counted or 'no operator'}")
    _print_operators("GFLOPs", operators, len(totals), 1e9)
    _print_mean("GFLOPs", totals, 1e9)


def do_activation(cfg: DictConfig, args: argparse.Namespace) -> None:
    """Print how many outputs convolutions and matrix products have, by operator and in all."""
    model, totals = build_model(cfg), []
    operators: Counter[str] = Counter()
    for batch in _with_progress(cfg, args, "activation"):
        traced = TracingAdapter(model, batch, allow_non_tensor=True)
        count = ActivationCountAnalysis(traced, traced.flattened_inputs)
        operators.update(count.by_operator())
        totals.append(count.total())
    _print_operators("million activations", operators, len(totals), 1e6)
    _print_mean("million activations", totals, 1e6)


def do_parameter(cfg: DictConfig, args: argparse.Namespace) -> None:
    """Print the number of parameters by module, and how many of them train."""
    model = build_model(cfg)
    print(parameter_count_table(model, max_depth=5))
    total = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    print(f"Parameters: {total / 1e6:.3f} M, of which {trained / 1e6:.3f} M are trained")


def do_structure(cfg: DictConfig, args: argparse.Namespace) -> None:
    """Print the tree of the model's modules."""
    print(build_model(cfg))


TASKS: dict[str, Callable[[DictConfig, argparse.Namespace], None]] = {
    "flop": do_flop,
    "activation": do_activation,
    "parameter": do_parameter,
    "structure": do_structure,
}


def argument_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, metavar="FILE", help="a lazy config")
    parser.add_argument("--tasks", required=True, choices=TASKS, nargs="+", help="what to count")
    parser.add_argument(
        "-n",
        "--num-inputs",
        default=100,
        type=positive,
        help="pictures to take the mean over (100)",
    )
    parser.add_argument(
        "--input-size",
        nargs=2,
        type=positive,
        metavar=("HEIGHT", "WIDTH"),
        help="count on random pictures of this size; no dataset is read",
    )
    add_trust_option(parser)
    parser.add_argument("opts", nargs="*", default=[], help="overrides such as model.num_classes=3")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the tasks in the order given."""
    logging.getLogger("fvcore.nn.jit_analysis").setLevel(logging.ERROR)
    args = argument_parser().parse_intermixed_args(arguments)
    cfg = apply_overrides(load_config(args.config_file, args.trust), args.opts, args.trust)
    for task in args.tasks:
        TASKS[task](cfg, args)


def _with_progress(cfg: DictConfig, args: argparse.Namespace, task: str) -> Iterator[Batch]:
    return iter(tqdm(input_batches(cfg, args), desc=task, total=args.num_inputs, unit="picture"))


def _print_operators(unit: str, operators: Counter[str], count: int, divisor: float) -> None:
    for name, value in operators.most_common():
        print(f"{value / count / divisor:12.3f} {unit}  {name}")


def _print_mean(unit: str, totals: Sequence[float], divisor: float) -> None:
    values = torch.tensor(totals, dtype=torch.float64) / divisor
    spread = values.std(correction=0)
    print(f"Mean of {len(totals)} pictures: {values.mean():.3f} +- {spread:.3f} {unit}")


if __name__ == "__main__":
    run_tool(main)
