"""A detector filled with the weights that its run's evaluation takes, all of them."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig
from torch import nn

from detrex.checkpoint import fit_state_dict, load_init_checkpoint, read_checkpoint
from detrex.checkpoint.download import shown
from detrex.checkpoint.finite import require_finite
from detrex.checkpoint.reading.state_dict import tensors_of
from detrex.checkpoint.report import LoadReport, examples
from detrex.config import try_get_key
from detrex.detectors import image_channels
from detrex.errors import CheckpointError, DetrexError
from detrex.inference.exact_weights import unequal_tensors
from detrex.modeling.ema import EMAState
from detrex.quiet import quiet_logs

logger = logging.getLogger(__name__)


def fill(model: nn.Module, checkpoint: Mapping[str, Any], name: str, cfg: DictConfig) -> None:
    """Load into a detector the weights that its run's evaluation takes, all of them.

    Args:
        model: filled in place.
        checkpoint: what `detrex.checkpoint.read_checkpoint` gave.
        name: the file's, for messages.
        cfg: ``train.model_ema`` is read.

    Raises:
        CheckpointError: a weight of the model has no value in it, or one of another shape, or its
            moving average is asked for and not there.
    """
    _require_shapes(model, checkpoint, name)
    _require_whole(load_init_checkpoint(model, checkpoint, name=name), model)
    averages = checkpoint.get("ema_state")
    if takes_average(cfg):
        state = EMAState()
        state.load_state_dict(averages or {})
        state.apply_to(model)
    elif averages:
        logger.warning(
            "%s holds a moving average of the weights, and the run's evaluation takes the weights "
            "themselves: set train.model_ema.use_ema_weights_for_eval_only=True to take it.",
            name,
        )


def still_holds(model: nn.Module, file: str, cfg: DictConfig, like: nn.Module) -> bool:
    """Tell whether a detector is, to the last bit, what `fill` made of it, or was trained since.

    Args:
        model: the detector.
        file: its checkpoint.
        cfg: see `fill`.
        like: the same detector built anew, which is filled.
    """
    try:
        with quiet_logs():  # they were told when it was loaded
            fill(like, read_checkpoint(file), file, cfg)
    except DetrexError:
        return False
    return not unequal_tensors(model, like)


def takes_average(cfg: DictConfig) -> bool:
    """Tell whether a run's evaluation takes the moving average of the weights.

    Args:
        cfg: ``train.model_ema`` is read.
    """
    keys = ("enabled", "use_ema_weights_for_eval_only")
    return all(try_get_key(cfg, f"train.model_ema.{key}", default=False) for key in keys)


def _require_shapes(model: nn.Module, checkpoint: Mapping[str, Any], name: str) -> None:
    """Refuse heads for other classes before anything is loaded and warned of."""
    tensors = tensors_of(checkpoint.get("model", checkpoint), name)
    _, report = fit_state_dict(model, tensors, source=name, in_channels=image_channels(model))
    if report.mismatched:
        in_file, in_model = report.shapes[0]
        raise CheckpointError(
            f"{report.source} is of another {type(model).__name__} than the config describes: "
            f"{report.mismatched[0]!r} (first of {len(report.mismatched)}) has the shape "
            f"{tuple(in_file)} there and {tuple(in_model)} here: take the config of its run."
        )


def _require_whole(report: LoadReport, model: nn.Module) -> None:
    kind = type(model).__name__
    if report.part:
        raise CheckpointError(
            f"{report.source} holds weights of a backbone alone, with which {kind} finds nothing: "
            "name the checkpoint of a trained detector."
        )
    if report.missing:
        raise CheckpointError(
            f"{report.source} has no values for {len(report.missing)} of the {report.total} "
            f"tensors of {kind}, {examples(report.missing)}: take the config of its run."
        )


def read_first(files: Sequence[str]) -> tuple[dict[str, Any], str]:
    """Read the first of several checkpoints that is not damaged.

    Args:
        files: paths or addresses; may be none.

    Returns:
        What it holds, and what to call it; both empty where there are no files.

    Raises:
        CheckpointError: none of them can be read.
    """
    for number, file in enumerate(files, start=1):
        try:
            checkpoint = read_checkpoint(file)
            require_finite(checkpoint.get("model", checkpoint), file)
        except CheckpointError as error:
            if number == len(files):
                raise
            logger.warning("Passing over a checkpoint: %s", error)
        else:
            return checkpoint, shown(file)
    return {}, ""
