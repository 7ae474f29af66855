"""A configured model's FLOPs, activations, parameters and structure, told in lines.

FLOPs (a multiplication and its addition count as one) and activations are means over pictures.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from detectron2.config import instantiate
from detectron2.export import TracingAdapter
from detectron2.utils.analysis import FlopCountAnalysis, parameter_count_table
from fvcore.nn import ActivationCountAnalysis, flop_count_table
from omegaconf import DictConfig
from torch import nn

from detrex.config import resolve_pixel_statistics, try_get_key
from detrex.config.building import build_part
from detrex.errors import ConfigError

Batch = list[dict[str, Any]]


def build_to_count(cfg: DictConfig) -> nn.Module:
    """Build ``cfg.model`` in evaluation mode on ``cfg.train.device``, with its initial weights.

    Args:
        cfg: a config with a `model`.

    Returns:
        The model.

    Raises:
        ConfigError: there is none, or it cannot be built.
    """
    if "model" not in cfg:
        raise ConfigError(f"The config has no `model`, only {sorted(cfg)}: name one that has.")
    device = try_get_key(cfg, "train.device", default="cpu")
    resolve_pixel_statistics(cfg)
    return build_part(cfg.model, "model").to(device).eval()


def input_batches(
    cfg: DictConfig, count: int, size: tuple[int, int] | None = None
) -> Iterator[Batch]:
    """Yield batches of one picture.

    Args:
        cfg: a config, with a ``dataloader.test`` where `size` is None.
        count: how many; as many as there are at most.
        size: height and width of random pictures.

    Yields:
        A batch.

    Raises:
        ConfigError: there are no pictures to read.
    """
    if size:
        generator = torch.Generator().manual_seed(0)
        for _ in range(count):
            image = torch.randint(256, (3, *size), generator=generator)
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
    for batch in itertools.islice(loader, count):
        yield [{"image": batch[0]["image"]}]


def count_flops(cfg: DictConfig, batches: Iterable[Batch]) -> Iterator[str]:
    """Count the FLOPs of the model's parts for the first picture, and the mean over all.

    Args:
        cfg: a config with a `model`.
        batches: from `input_batches`.

    Yields:
        Lines, or tables of several.
    """
    model, totals, table, not_counted = build_to_count(cfg), [], "", ""
    operators: Counter[str] = Counter()
    for batch in batches:
        flops = FlopCountAnalysis(model, batch)
        if not table:
            table = flop_count_table(flops, max_depth=3)
            not_counted = ", ".join(sorted(flops.unsupported_ops()))
        totals.append(flops.total())
        operators.update(flops.by_operator())
    yield table
    yield f"Counted as nothing: {not_counted or 'no operator'}"
    yield from _operators("GFLOPs", operators, len(totals), 1e9)
    yield _mean("GFLOPs", totals, 1e9)


def count_activations(cfg: DictConfig, batches: Iterable[Batch]) -> Iterator[str]:
    """Count the outputs of convolutions and matrix products; as `count_flops`."""
    model, totals = build_to_count(cfg), []
    operators: Counter[str] = Counter()
    for batch in batches:
        traced = TracingAdapter(model, batch, allow_non_tensor=True)
        count = ActivationCountAnalysis(traced, traced.flattened_inputs)
        operators.update(count.by_operator())
        totals.append(count.total())
    yield from _operators("million activations", operators, len(totals), 1e6)
    yield _mean("million activations", totals, 1e6)


def count_parameters(cfg: DictConfig, _: Iterable[Batch] = ()) -> Iterator[str]:
    """Count parameters by module, and how many of them train; as `count_flops`."""
    model = build_to_count(cfg)
    yield parameter_count_table(model, max_depth=5)
    total = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    yield f"Parameters: {total / 1e6:.3f} M, of which {trained / 1e6:.3f} M are trained"


def structure(cfg: DictConfig, _: Iterable[Batch] = ()) -> Iterator[str]:
    """Write out the tree of the model's modules; as `count_flops`."""
    yield str(build_to_count(cfg))


TASKS: dict[str, Callable[[DictConfig, Iterable[Batch]], Iterator[str]]] = {
    "flop": count_flops,
    "activation": count_activations,
    "parameter": count_parameters,
    "structure": structure,
}


def _operators(unit: str, operators: Counter[str], count: int, divisor: float) -> Iterator[str]:
    for name, value in operators.most_common():
        yield f"{value / count / divisor:12.3f} {unit}  {name}"


def _mean(unit: str, totals: Sequence[float], divisor: float) -> str:
    values = torch.tensor(totals, dtype=torch.float64) / divisor
    spread = values.std(correction=0)
    return f"Mean of {len(totals)} pictures: {values.mean():.3f} +- {spread:.3f} {unit}"
