"""Bring the names in a weights file together with those of a module, and load what fits.

One translation is chosen for the whole file: a family of names (see `key_families`), one prefix
taken off and one put on. Of all that are possible the one under which most tensors agree in name
and shape wins. A tensor is never placed by the end of its name alone, so that a classifier's
``norm.weight`` cannot land in a decoder's.
"""

import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from detrex.checkpoint.key_families import FAMILIES, flat, same
from detrex.checkpoint.reading import read_state_dict, tensors_of
from detrex.checkpoint.report import LoadReport, examples
from detrex.errors import CheckpointError

logger = logging.getLogger(__name__)

PREFIXES = ("backbone.", "model.", "encoder.", "module.", "timm_model.", "timm_model.model.")

# A prefix that fewer than this share of the module's tensors have cannot make a file fit.
_LEAST_SHARE = 0.25
_COUNTER = "num_batches_tracked"


@dataclass(frozen=True)
class _Translation:
    """A family of names, a prefix of the file to take off, one of the module to put on."""

    family: str
    strip: str
    add: str
    pairs: Mapping[str, str]
    score: int

    def __str__(self) -> str:
        parts = [self.family]
        if self.strip:
            parts.append(f"{self.strip!r} taken off")
        if self.add:
            parts.append(f"{self.add!r} put on")
        return ", ".join(parts)


def load_weights(
    module: nn.Module,
    source: str | os.PathLike[str] | Mapping[str, Any],
    *,
    min_share: float = 0.5,
) -> LoadReport:
    """Load weights into a module, whatever library named them, and say what became of each tensor.

    Args:
        module: the module to fill in place.
        source: a weights file or an address (see `detrex.checkpoint.reading`), or a state dict.
        min_share: the share of the module's tensors that must get a value, from 0 to 1.

    Returns:
        The report, whose summary has been logged; missing tensors and those of another shape have
        been warned of.

    Raises:
        CheckpointError: the file cannot be read, or less than ``min_share`` of the module's
            tensors got a value; the module is then unchanged.
        ValueError: ``min_share`` is not from 0 to 1.
    """
    module = _unwrap(module)
    tensors, name = _tensors_and_name(source)
    return _load(module, tensors, fit_state_dict(module, tensors, source=name), min_share)


def load_init_checkpoint(
    model: nn.Module,
    source: str | os.PathLike[str] | Mapping[str, Any],
    *,
    min_share: float = 0.5,
    name: str = "the state dict",
) -> LoadReport:
    """Start a detector from a checkpoint of a detector, or from the weights of its backbone alone.

    A file that fits beyond ``model.backbone`` is a detector's: all of it that fits is loaded, and
    heads for another number of classes are named and left as they were. Every other file must fit
    ``model.backbone``, and nothing else is touched.

    Args:
        model: the detector; a model without ``backbone`` is loaded as a whole.
        source: as in `load_weights`.
        min_share: the share of the detector's, or else of the backbone's, tensors that must get a
            value, from 0 to 1.
        name: what to call ``source`` in the report where it is a state dict.

    Returns:
        The report for the detector, or for the backbone with the backbone's own names.

    Raises:
        CheckpointError: the file cannot be read, or fits neither the detector nor its backbone.
        ValueError: ``min_share`` is not from 0 to 1.
    """
    model = _unwrap(model)
    tensors, name = _tensors_and_name(source, name)
    fitted = fit_state_dict(model, tensors, source=name)
    backbone = getattr(model, "backbone", None)
    if isinstance(backbone, nn.Module):
        beyond = any(not matched.startswith("backbone.") for matched in fitted[1].matched)
        if not beyond or fitted[1].share < min_share:
            logger.info("%s holds no %s: it starts its backbone only", name, type(model).__name__)
            model, fitted = backbone, fit_state_dict(backbone, tensors, source=name)
    return _load(model, tensors, fitted, min_share)


def fit_state_dict(
    module: nn.Module,
    state_dict: Mapping[str, Tensor],
    prefixes: Sequence[str] = PREFIXES,
    *,
    source: str = "a state dict",
) -> tuple[dict[str, Tensor], LoadReport]:
    """Find for each tensor of a module its value in a state dict with names of another family.

    Args:
        module: the module to fit to; it is not changed.
        state_dict: tensors by name.
        prefixes: prefixes that either side may have, to try beside those that lead a good part
            of the names.
        source: how the report calls the state dict.

    Returns:
        The values by the module's names, ready for ``load_state_dict(..., strict=False)``, and the
        report.
    """
    wanted = {n: t for n, t in module.state_dict(keep_vars=True).items() if isinstance(t, Tensor)}
    best = max(
        _translations(wanted, state_dict, prefixes),
        key=lambda t: (t.score, len(t.pairs), -len(t.strip) - len(t.add)),
    )
    if 2 * best.score < len(_without_counters(wanted)):
        best = _by_order(wanted, state_dict) or best
    values, clashes = {}, {}
    for name, origin in best.pairs.items():
        value, shape = state_dict[origin], tuple(wanted[name].shape)
        if tuple(value.shape) == shape:
            values[name] = value
        else:
            clashes[name] = (tuple(value.shape), shape)
    filled = {id(wanted[name]) for name in values}
    used = set(best.pairs.values())
    return values, LoadReport(
        source=source,
        matched=tuple(values),
        missing=tuple(
            name
            for name in _without_counters(wanted)
            if name not in best.pairs and id(wanted[name]) not in filled
        ),
        unexpected=tuple(name for name in _without_counters(state_dict) if name not in used),
        mismatched=tuple(clashes),
        shapes=tuple(clashes.values()),
        names=str(best),
    )


def _translations(
    wanted: Mapping[str, Tensor], state_dict: Mapping[str, Tensor], prefixes: Sequence[str]
) -> Iterator[_Translation]:
    """Try every family with every pair of prefixes; stop at one by which everything fits."""
    total = len(_without_counters(wanted))
    targets = {
        add: _Tails({name: name for name in wanted}, add)
        for add in _common_prefixes(wanted, _LEAST_SHARE * total, prefixes)
    }
    for family, rename in FAMILIES.items():
        renamed = {rename(name): name for name in state_dict}
        if rename is not same and renamed.keys() == state_dict.keys():
            continue
        for strip in _common_prefixes(renamed, _LEAST_SHARE * total, prefixes):
            origins = _Tails(renamed, strip)
            for add, target in targets.items():
                pairs = target.pairs_with(origins)
                fitting = [n for n, o in pairs.items() if wanted[n].shape == state_dict[o].shape]
                score = len(_without_counters(fitting))
                yield _Translation(family, strip, add, pairs, score)
                if score == total:
                    return


class _Tails:
    """Names without a prefix, to look up exactly or without regard to their separators."""

    def __init__(self, names: Mapping[str, str], prefix: str) -> None:
        start = len(prefix)
        self.exact = {n[start:]: origin for n, origin in names.items() if n.startswith(prefix)}
        spelt = Counter(map(flat, self.exact))
        self.flat = {flat(n): o for n, o in self.exact.items() if spelt[flat(n)] == 1}

    def pairs_with(self, origins: "_Tails") -> dict[str, str]:
        """Pair these names with those of a file, in this side's order."""
        by_flat = {n: origins.flat[key] for key, n in self.flat.items() if key in origins.flat}
        return by_flat | {n: origins.exact[t] for t, n in self.exact.items() if t in origins.exact}


def _common_prefixes(names: Iterable[str], least: float, known: Sequence[str]) -> list[str]:
    """List the dotted prefixes of at least ``least`` names, and the known ones, short first."""
    counts = Counter(
        name[: i + 1] for name in names for i, letter in enumerate(name) if letter == "."
    )
    common = [p for p, count in counts.items() if count >= least or p in known]
    return ["", *sorted(common, key=len)]


def _by_order(
    wanted: Mapping[str, Tensor], state_dict: Mapping[str, Tensor]
) -> _Translation | None:
    """Pair by position, where each of the module's tensors meets one of the same kind and shape.

    torchvision and timm build many networks (MobileNetV2, EfficientNet) from the same layers in the
    same order under unrelated names. What the file has after the last of them is a head.
    """
    ours, theirs = _without_counters(wanted), _without_counters(state_dict)
    if not 0 < len(ours) <= len(theirs):
        return None
    pairs = dict(zip(ours, theirs, strict=False))
    kinds = ((name.rpartition(".")[2], origin.rpartition(".")[2]) for name, origin in pairs.items())
    if any(ours != theirs for ours, theirs in kinds):
        return None
    if any(wanted[name].shape != state_dict[origin].shape for name, origin in pairs.items()):
        return None
    return _Translation("order, as every shape agrees", "", "", pairs, len(pairs))


def _without_counters(names: Iterable[str]) -> list[str]:
    return [name for name in names if not name.endswith(_COUNTER)]


def _unwrap(module: nn.Module) -> nn.Module:
    return module.module if isinstance(module, DistributedDataParallel | DataParallel) else module


def _tensors_and_name(
    source: str | os.PathLike[str] | Mapping[str, Any], name: str = "the state dict"
) -> tuple[dict[str, Tensor], str]:
    if isinstance(source, Mapping):
        return tensors_of(source, name), name
    return read_state_dict(source), os.fspath(source)


def _load(
    module: nn.Module,
    tensors: Mapping[str, Tensor],
    fitted: tuple[Mapping[str, Tensor], LoadReport],
    min_share: float,
) -> LoadReport:
    if not 0 <= min_share <= 1:
        raise ValueError(f"min_share={min_share!r} is no share, expected a number from 0 to 1")
    values, report = fitted
    if not report.matched or report.share < min_share:
        raise CheckpointError(
            f"{report.source} does not fit {type(module).__name__}: {len(report.matched)} of its "
            f"{report.total} tensors got a value and at least {min_share:.0%} must; the model has "
            f"{examples(_without_counters(module.state_dict()))}, the file has "
            f"{examples(list(tensors))}: give a file of the same architecture"
        )
    module.load_state_dict(values, strict=False)
    logger.info("%s\n%s", report.summary(), report.table())
    if report.unexpected:
        logger.info("unused in %s: %s", report.source, examples(report.unexpected))
    if report.missing:
        logger.warning("not in %s, left as they were: %s", report.source, examples(report.missing))
    if report.mismatched:
        skipped = (
            f"skipped {name}: its shape is {theirs} in the file and {ours} here"
            for name, (theirs, ours) in zip(report.mismatched, report.shapes, strict=True)
        )
        logger.warning("\n".join(skipped))
    return report
