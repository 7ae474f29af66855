"""Learning rates that fall with the depth of a backbone's layers, for any backbone.

The order in which a backbone's blocks run gives the layers: what runs before the first block is
layer 0, the blocks follow from 1 on, and what runs after the last block is the last layer. The
method is that of ELECTRA (arXiv 2003.10555) and BEiT (arXiv 2106.08254).
"""

import logging
from collections.abc import Iterable, Iterator
from typing import Any

from torch import nn

from detrex.detectors import backbone_parts, image_channels
from detrex.errors import ConfigError
from detrex.modeling.backbone.inspection.blocks import block_names
from detrex.modeling.backbone.inspection.call_order import record_calls
from detrex.modeling.backbone.inspection.meta_run import MetaRun, run_on_meta

logger = logging.getLogger(__name__)

_EXAMPLE_SIZES = ((224, 224), (256, 256), (64, 64), (384, 384), (512, 512), (1024, 1024))


def layer_ids(meta_run: MetaRun, num_layers: int | None = None) -> tuple[dict[str, int], int]:
    """Find the layer of each parameter.

    Args:
        meta_run: a twin of the network or backbone, and an image that it takes.
        num_layers: number of layers over which the blocks are spread evenly, at least 1; None for
            one a block.

    Returns:
        Names of parameters to layers, and the number of the last layer. Layer 0 is also that of
        parameters of modules that run around the blocks, such as position tables.
    """
    calls = record_calls(meta_run)
    begins = {}
    for block in block_names(meta_run.twin):
        # In an extractor of torchvision only what is inside a block is called.
        inner = [c.entered for name, c in calls.items() if f"{name}.".startswith(f"{block}.")]
        if inner:
            begins[block] = min(inner)
    blocks = sorted(begins, key=begins.__getitem__)
    count = len(blocks)
    layers = count if num_layers is None else min(num_layers, count)
    depths = {}
    for name, _ in meta_run.twin.named_parameters():
        holder = next((h for h in _holders(name) if h in calls), "")
        inside = next((i for i, b in enumerate(blocks) if name.startswith(f"{b}.")), None)
        if inside is None:
            place = sum(begin < calls[holder].entered for begin in begins.values())
            is_last = 0 < count == place
        else:
            place, is_last = inside + 1, False
        depths[name] = layers + 1 if is_last else -(-place * layers // max(count, 1))
    return depths, layers + 1


def get_layer_decay_params(
    model: nn.Module,
    base_lr: float,
    weight_decay: float | None = None,
    decay_rate: float = 0.8,
    lr_factor: float = 1.0,
    num_layers: int | None = None,
) -> list[dict[str, Any]]:
    """Group a detector's parameters for an optimizer, earlier layers of the backbone slower.

    The layers are those of the network itself, also under FPN or a simple feature pyramid, whose
    own layers learn as fast as the detector.

    Norms, biases and all other parameters of one axis have no weight decay, nor have tables and
    tokens of the backbone and what its ``no_weight_decay()`` names. Frozen parameters are left out.
    The table is logged.

    Args:
        model: a detector with a ``backbone``, also inside `DistributedDataParallel`.
        base_lr: learning rate of the detector, above 0.
        weight_decay: weight decay where there is one; None for the optimizer's own.
        decay_rate: factor from one layer to the one before it, above 0 and at most 1.
        lr_factor: factor of the whole backbone network.
        num_layers: number of layers over which the blocks are spread; None for one a block.

    Returns:
        Groups with ``params``, ``lr`` and, where it is given or 0, ``weight_decay``.

    Raises:
        ConfigError: the model has no backbone, or a number is out of its range.
        BackboneError: the backbone could not be run on any usual size.
    """
    if not 0 < decay_rate <= 1 or (num_layers is not None and num_layers < 1):
        raise ConfigError(
            "decay_rate must be above 0 and at most 1, and num_layers at least 1 or None, got "
            f"{decay_rate!r} and {num_layers!r}."
        )
    model = getattr(model, "module", model)
    parts = backbone_parts(model)
    if not parts:
        raise ConfigError(
            f"{type(model).__name__} has no backbone whose layers could have learning rates: use "
            "get_default_optimizer_params."
        )
    path, backbone = [*parts.items()][-1]
    meta_run = run_on_meta(backbone, _sizes(parts.values()), _image_channels(model, backbone))
    depths, last = layer_ids(meta_run, num_layers)
    if last == 1:
        logger.warning(
            "%s has no repeated blocks, so all of it is one layer and learns %s times as fast as "
            "the detector",
            *(type(backbone).__name__, lr_factor * decay_rate),
        )
    layer_of = {f"{path}.{name}": depth for name, depth in depths.items()}
    undecayed = {f"{path}.{name}" for name in _undecayed(backbone)}
    groups: dict[tuple[int, bool], dict[str, Any]] = {}
    names: dict[tuple[int, bool], list[str]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        depth = layer_of.get(name, last + 1)
        decays = parameter.ndim > 1 and name not in undecayed
        scale = lr_factor * decay_rate ** (last - depth) if depth <= last else 1.0
        key = (depth, decays)
        group = groups.setdefault(key, {"params": [], "lr": base_lr * scale})
        if not decays:
            group["weight_decay"] = 0.0
        elif weight_decay is not None:
            group["weight_decay"] = weight_decay
        group["params"].append(parameter)
        names.setdefault(key, []).append(name)
    _log(groups, names, last)
    return [groups[key] for key in sorted(groups)]


def _holders(name: str) -> list[str]:
    """Names of the modules around a parameter, the innermost first."""
    parts = name.split(".")[:-1]
    return [".".join(parts[:end]) for end in range(len(parts), 0, -1)]


def _sizes(parts: Iterable[nn.Module]) -> list[tuple[int, int]]:
    constraints = [getattr(part, "padding_constraints", {}) for part in parts]
    squares = [side for rule in constraints if (side := rule.get("square_size", 0))]
    return [*((side, side) for side in squares), *_EXAMPLE_SIZES]


def _image_channels(model: nn.Module, backbone: nn.Module) -> int:
    convolutions = (m.in_channels for m in backbone.modules() if isinstance(m, nn.Conv2d))
    return image_channels(model) or next(convolutions, 3)


def _undecayed(backbone: nn.Module) -> Iterator[str]:
    """Tables and tokens, which are no module's ``weight``, and what modules name themselves."""
    for path, module in backbone.named_modules():
        own = {name for name in module._parameters if not name.endswith("weight")}
        if callable(listed := getattr(module, "no_weight_decay", None)):
            own |= set(listed())
        yield from (f"{path}.{name}" if path else name for name in own)


def _log(
    groups: dict[tuple[int, bool], dict[str, Any]],
    names: dict[tuple[int, bool], list[str]],
    last: int,
) -> None:
    lines = ["layer     lr        weight decay  parameters  such as"]
    for key in sorted(groups):
        layer = str(key[0]) if key[0] <= last else "detector"
        count = sum(parameter.numel() for parameter in groups[key]["params"])
        decay = groups[key].get("weight_decay", "optimizer's")
        lines.append(
            f"{layer:<9} {groups[key]['lr']:<9.3g} {decay!s:<13} {count:>10}  {names[key][0]}"
        )
    logger.info("Learning rates by layer:\n%s", "\n".join(lines))
