"""Load weights into a module: bring their names together, make them fit, and report.

Names are matched by `detrex.checkpoint.matching.key_matching`. Of the tensors that differ in shape,
position embeddings are resampled, kernels that see the image adapted where it has another number of
channels (`detrex.checkpoint.matching.input_conv`), and all others left out.
"""

import dataclasses
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from detrex.checkpoint.bare_networks import NETWORK_SHARE, check_network
from detrex.checkpoint.download import shown
from detrex.checkpoint.finite import non_finite, require_finite, require_real
from detrex.checkpoint.matching.input_conv import adapt_input_conv, input_convs, is_for_image
from detrex.checkpoint.matching.key_matching import (
    PREFIXES,
    best_match,
    foreign_names,
    skipped_blocks,
    weight_names,
)
from detrex.checkpoint.matching.position_embeddings import resize_position_embedding
from detrex.checkpoint.placement import load_values
from detrex.checkpoint.reading.state_dict import read_checkpoint, read_state_dict, tensors_of
from detrex.checkpoint.report import LoadReport, examples
from detrex.detectors import REGION_STAGE, backbone_parts, image_channels, region_stage
from detrex.errors import CheckpointError
from detrex.quiet import IN_FULL

logger = logging.getLogger(__name__)

Translation = Callable[[dict[str, Tensor]], Mapping[str, Tensor]]
Fit = tuple[dict[str, Tensor], LoadReport]

_MOST_LISTED = 40


def load_weights(
    module: nn.Module,
    source: str | os.PathLike[str] | Mapping[str, Any],
    *,
    min_share: float = 0.5,
    name: str = "the state dict",
    in_channels: int | None = None,
    translations: Mapping[str, Translation] = MappingProxyType({}),
    hint: Callable[[Mapping[str, Tensor]], str] | None = None,
) -> LoadReport:
    """Load weights into a module, whatever library named them, and say what became of each tensor.

    Args:
        module: the module to fill in place.
        source: a weights file or an address (see `detrex.checkpoint.reading`), or a state dict.
        min_share: the share of the module's tensors that must get a value, from 0 to 1.
        name: what to call ``source`` in the report where it is a state dict.
        in_channels: channels of the module's images; kernels for 1 or 3 are then adapted, and one
            that sees the image must get a value.
        translations: further ways to rename the file's tensors, by what to call them, for files
            that do not fit to the last tensor as they are; they raise what they like for files that
            they do not know.
        hint: what to say of a file that does not fit, from its tensors.

    Returns:
        The report, whose summary has been logged; missing tensors and those of another shape have
        been warned of.

    Raises:
        CheckpointError: the file cannot be read, holds several networks that fit, less than
            ``min_share`` of the module's tensors got a value (a made pyramid not counted where the
            file has none), or one that sees the image did not; the module is then unchanged.
        DownloadError: the file cannot be fetched.
        ValueError: ``min_share`` is not from 0 to 1.
    """
    module = _unwrap(module)
    tensors, name = _tensors_and_name(source, name)
    fitted = fit_state_dict(module, tensors, source=name, in_channels=in_channels)
    for title, translate in translations.items():
        if len(fitted[1].exact) < fitted[1].total:
            other = _fit_translated(module, tensors, name, in_channels, title, translate)
            if other is not None and len(other[1].matched) >= len(fitted[1].matched):
                fitted = other[0], _with_changes(other[1], fitted[1])
    return _load(module, tensors, fitted, min_share, in_channels, hint)


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
    ``model.backbone`` or the network inside it, under FPN or another pyramid, of which it must fill
    90 % (see `detrex.checkpoint.bare_networks.check_network`), and nothing else is touched but the
    stage that a C4 detector runs on regions, where the file has it. Kernels that see the image are
    adapted to as many channels as the detector's ``pixel_mean`` has.

    Args:
        model: the detector; a model without ``backbone`` is loaded as a whole.
        source: as in `load_weights`.
        min_share: the share of the detector's, or else of the backbone's, tensors that must get a
            value, from 0 to 1.
        name: what to call ``source`` in the report where it is a state dict.

    Returns:
        The report for the detector, or for the backbone with the backbone's own names; its ``part``
        says which.

    Raises:
        CheckpointError: the file cannot be read, fits neither the detector nor its backbone, is of
            another network of the same family, or has no value for a kernel that sees the image.
        ValueError: ``min_share`` is not from 0 to 1.
    """
    model = _unwrap(model)
    content, name = (
        (source, name)
        if isinstance(source, Mapping)
        else (read_checkpoint(source), shown(os.fspath(source)))
    )
    # A run's own checkpoint: its average is a checkpointable beside the model.
    own = "model" if {"model", "ema_state"} <= content.keys() else None
    tensors = tensors_of(content if own is None else content[own], name)
    channels = image_channels(model)
    fitted = fit_state_dict(model, tensors, source=name, in_channels=channels)
    network = ("backbone.", f"{REGION_STAGE}.")
    beyond = any(not matched.startswith(network) for matched in fitted[1].matched)
    parts = backbone_parts(model)
    if not parts or (beyond and fitted[1].share >= min_share):
        return _load(model, tensors, fitted, min_share, channels)
    logger.info("%s holds no %s: it starts its backbone only", name, type(model).__name__)
    fits = {
        path: fit_state_dict(parts[path], tensors, source=name, in_channels=channels)
        for path in reversed(parts)
    }
    path = max(fits, key=lambda path: len(fits[path][1].matched))
    inner = next(reversed(parts))
    hint = getattr(parts[inner], "wrapper_for", None)
    if fits[inner][1].share >= min_share:  # else nothing like it, which `_load` says
        check_network(parts[inner], fits[inner][1], inner, tensors, hint)
    report = _load(parts[path], tensors, fits[path], min_share, channels, hint)
    if (stage := region_stage(model)) is not None:
        _load_region_stage(stage, {key: tensors[key] for key in report.unexpected}, name)
    return dataclasses.replace(report, part=path)


def _load_region_stage(stage: nn.Module, tensors: Mapping[str, Tensor], name: str) -> None:
    """Fill the last stage of a C4 detector with what its backbone has no place for."""
    values, report = fit_state_dict(stage, tensors, source=name)
    if report.share < NETWORK_SHARE:
        logger.warning(
            "%s has values for %d of the %d tensors of %s, the stage that regions pass, which is "
            "left as it was built",
            *(name, len(report.matched), report.total, REGION_STAGE),
        )
        return
    built = stage.state_dict()
    require_real(values, name, built)
    require_finite(values, name, built)
    load_values(stage, values)
    logger.info("%s: %s", REGION_STAGE, report.summary())


def fit_state_dict(
    module: nn.Module,
    state_dict: Mapping[str, Tensor],
    prefixes: Sequence[str] = PREFIXES,
    *,
    source: str = "a state dict",
    in_channels: int | None = None,
) -> Fit:
    """Find for each tensor of a module its value in a state dict with names of another family.

    Args:
        module: the module to fit to; it is not changed.
        state_dict: tensors by name.
        prefixes: prefixes that either side may have, to try beside those that lead a good part
            of the names.
        source: how the report calls the state dict.
        in_channels: channels of the module's images; kernels for 1 or 3 are then adapted.

    Returns:
        The values by the module's names, ready for ``load_state_dict(..., strict=False)``, and the
        report.
    """
    wanted = {n: t for n, t in module.state_dict(keep_vars=True).items() if isinstance(t, Tensor)}
    best = best_match(wanted, state_dict, prefixes, source)
    inputs = () if in_channels is None else tuple(input_convs(module, in_channels))
    values, clashes = {}, {}
    changed: dict[str, list[str]] = {"resized": [], "adapted": []}
    for name, origin in best.pairs.items():
        value, target = state_dict[origin], wanted[name]
        how = ""
        if value.shape != target.shape:
            image = in_channels if name in inputs else None
            how, value = _made_to_fit(name, value, target, module, image)
        if value.shape == target.shape:
            values[name] = value
            changed.get(how, []).append(name)
        elif weight_names([name]):
            clashes[name] = (tuple(value.shape), tuple(target.shape))
    filled = {id(wanted[name]) for name in values}
    used = {best.pairs[name]: None for name in wanted if name in best.pairs}
    return values, LoadReport(
        source=source,
        matched=tuple(values),
        missing=tuple(
            name
            for name in weight_names(wanted)
            if name not in best.pairs and id(wanted[name]) not in filled
        ),
        unexpected=tuple(name for name in weight_names(state_dict) if name not in used),
        mismatched=tuple(clashes),
        shapes=tuple(clashes.values()),
        names=str(best),
        resized=tuple(changed["resized"]),
        adapted=tuple(changed["adapted"]),
        cut_short=tuple(skipped_blocks(state_dict, used)),
        foreign=tuple(foreign_names(state_dict, used)),
        inputs=inputs,
    )


def _made_to_fit(
    name: str, value: Tensor, target: Tensor, module: nn.Module, in_channels: int | None
) -> tuple[str, Tensor]:
    """Give a tensor the shape of the module's, where it differs in a way that can be helped."""
    if in_channels is not None and is_for_image(value, target, in_channels):
        return "adapted", adapt_input_conv(value, in_channels)
    table = resize_position_embedding(name, value, target, module)
    return ("", value) if table is None else ("resized", table)


def _fit_translated(
    module: nn.Module,
    tensors: dict[str, Tensor],
    source: str,
    in_channels: int | None,
    title: str,
    translate: Translation,
) -> Fit | None:
    try:
        translated = tensors_of(translate(tensors), source)
    except Exception as error:  # a translation may refuse a file in its own way
        logger.info("%s does not take %s (%s: %s)", title, source, type(error).__name__, error)
        return None
    values, report = fit_state_dict(module, translated, source=source, in_channels=in_channels)
    return values, dataclasses.replace(report, names=f"{title}, {report.names}")


def _with_changes(report: LoadReport, plain: LoadReport) -> LoadReport:
    """Say which tensors a translation has brought to another shape, beside renaming them."""
    adapted = {name for name in (*plain.adapted, *plain.mismatched) if name in report.inputs}
    resized = {*plain.resized, *plain.mismatched, *report.resized} - adapted
    adapted |= set(report.adapted)
    return dataclasses.replace(
        report,
        resized=tuple(name for name in report.matched if name in resized),
        adapted=tuple(name for name in report.matched if name in adapted),
    )


def _unwrap(module: nn.Module) -> nn.Module:
    return module.module if isinstance(module, DistributedDataParallel | DataParallel) else module


def _tensors_and_name(
    source: str | os.PathLike[str] | Mapping[str, Any], name: str = "the state dict"
) -> tuple[dict[str, Tensor], str]:
    if isinstance(source, Mapping):
        return tensors_of(source, name), name
    return read_state_dict(source), shown(os.fspath(source))


def _load(
    module: nn.Module,
    tensors: Mapping[str, Tensor],
    fitted: tuple[Mapping[str, Tensor], LoadReport],
    min_share: float,
    in_channels: int | None = None,
    hint: Callable[[Mapping[str, Tensor]], str] | None = None,
) -> LoadReport:
    if not 0 <= min_share <= 1:
        raise ValueError(f"min_share={min_share!r} is no share, expected a number from 0 to 1")
    values, report = fitted
    if not report.matched or report.share < min_share:
        cure = "" if hint is None else hint(tensors)
        raise CheckpointError(
            f"{report.source} does not fit {type(module).__name__}: {len(report.matched)} of its "
            f"{report.total} tensors got a value and at least {min_share:.0%} must; the model has "
            f"{examples(weight_names(module.state_dict()), 2)}, the file has "
            f"{examples(list(tensors), 2)}: {cure or 'give a file of the same architecture'}"
        )
    for name in report.lacking["input layer"]:
        raise CheckpointError(_about_input(name, report, in_channels))
    built = module.state_dict()
    require_real(values, report.source, built)
    require_finite(values, report.source, built)
    if not any(tensor.is_meta for tensor in built.values()):
        load_values(module, values)
    logger.info("%s", report.summary())
    logger.info("%s", report.table(), extra=IN_FULL)
    _warn(report, tensors)
    return report


def _about_input(name: str, report: LoadReport, in_channels: int | None) -> str:
    """Say why the kernel that sees the image has no value, and how to give it one."""
    if name in report.missing:
        return (
            f"{report.source} has no value for {name!r}, the layer that sees the image, which "
            "would stay random: give a file of the same architecture"
        )
    theirs, ours = report.shapes[report.mismatched.index(name)]
    if len(theirs) == len(ours) == 4 and (theirs[0], *theirs[2:]) == (ours[0], *ours[2:]):
        return (
            f"{report.source} is of a network for images of {theirs[1]} channels ({name!r} has the "
            f"shape {theirs}) and this one takes {in_channels}, for which there is no rule: give "
            f"in_channels={theirs[1]}, or weights for images of 1 or 3 channels"
        )
    return (
        f"{report.source} has {name!r}, the layer that sees the image, in the shape {theirs}, "
        f"expected {ours}: give the keywords that the network of the file was built with, such as "
        "its patch_size"
    )


def _warn(report: LoadReport, tensors: Mapping[str, Tensor]) -> None:
    """Log what of the file, and of the module, was left aside."""
    if report.unexpected:
        logger.info("unused in %s: %s", report.source, examples(report.unexpected))
    if broken := non_finite((name, tensors[name]) for name in report.unexpected):
        logger.warning(
            "%s holds NaN or infinite values in tensors that are unused: %s",
            *(report.source, examples(list(broken))),
        )
    if report.cut_short:
        logger.warning(
            "%s is of a deeper network: of %s only the first blocks are used",
            report.source,
            examples(report.cut_short),
        )
    if report.foreign:
        logger.warning(
            "%s is of another kind of network: its blocks have %s beside what is used, so that the "
            "features are not those of its network",
            report.source,
            examples(report.foreign),
        )
    missing = report.missing
    if report.is_plain:
        pyramid = report.lacking["pyramid"]
        missing = tuple(name for name in missing if name not in pyramid)
        logger.info(
            "%s is of the network alone: the %d tensors of the pyramid start afresh",
            report.source,
            len(pyramid),
        )
    if missing:
        counts = ", ".join(f"{kind}: {len(names)}" for kind, names in report.lacking.items())
        logger.warning(
            "not in %s, left as they were: %s (%s)",
            report.source,
            examples(missing, _MOST_LISTED),
            counts,
        )
    if report.mismatched:
        skipped = (
            f"skipped {name}: its shape is {theirs} in the file and {ours} here"
            for name, (theirs, ours) in zip(report.mismatched, report.shapes, strict=True)
        )
        logger.warning("\n".join(skipped))
