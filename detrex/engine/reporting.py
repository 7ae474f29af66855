"""What a training leaves for people: its record while it goes on, and a page at its end.

All of it is the main process's, and none of it may cost a run: what cannot be written is warned of.
"""

import argparse
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from detectron2.utils import comm
from omegaconf import DictConfig
from torch import nn

from detrex.checkpoint.download import without_secrets
from detrex.config import try_get_key
from detrex.config.lazy_call import is_call, target_name
from detrex.config.yaml_text import resolved, yaml_text
from detrex.data.preparation import registered_sets
from detrex.engine.evaluation import Evaluation
from detrex.engine.signals import StoppedBySignal
from detrex.engine.trainer import Trainer
from detrex.errors import ConfigError, first_line
from detrex.report import record, write_report
from detrex.utils.events import plain

logger = logging.getLogger(__name__)

_NAMES = ("model_name", "name", "type")
_INNER = ("bottom_up", "net", "backbone")


def is_wanted(cfg: DictConfig) -> bool:
    """Tell whether this process writes a report, as ``train.report.enabled`` says."""
    return comm.is_main_process() and bool(try_get_key(cfg, "train.report.enabled", default=True))


@contextmanager
def recorded(
    args: argparse.Namespace,
    cfg: DictConfig,
    run: str,
    trainer: Trainer,
    evaluation: Evaluation | None,
    start_iter: int,
) -> Iterator[None]:
    """Note how a block trains: when it began, where its time went, and how it ended.

    Args:
        args: the command line.
        cfg: the config.
        run: the identity of the run.
        trainer: what trains in the block.
        evaluation: what evaluates in it.
        start_iter: its first iteration.
    """
    if not is_wanted(cfg):
        yield
        return
    folder = Path(cfg.train.output_dir)
    with _harmless(folder):
        record.begin(folder, run, start_iter, _about(args, cfg, trainer.model))
    ended = "finished"
    try:
        yield
    except (StoppedBySignal, KeyboardInterrupt):
        ended = "stopped by a signal"
        raise
    except BaseException as error:
        ended = f"failed: {without_secrets(first_line(error))}"
        raise
    finally:
        with _harmless(folder):
            last = min(trainer.iter, trainer.max_iter) - (ended == "finished")
            process = {"ended": ended, "last": last, "seconds": trainer.timeline.seconds()}
            record.end(folder, process, _compared(cfg, evaluation) if evaluation else {})


def report_on(cfg: DictConfig) -> None:
    """Write the page of a finished training, and say where it is.

    Args:
        cfg: ``train.output_dir`` and ``train.report`` are read.
    """
    if not is_wanted(cfg):
        return
    folder = Path(cfg.train.output_dir)
    pictures = int(try_get_key(cfg, "train.report.pictures", default=12))
    with _harmless(folder):
        page = write_report(folder, pictures=pictures)
        logger.info("The report of this training: %s", page)


def backbone_name(call: Any) -> str:
    """Say in a few words what a backbone's lazy call builds, such as ``FPN of ResNet``.

    Args:
        call: the call.
    """
    words = target_name(call)
    if not is_call(call):
        return words
    named = next((call[key] for key in _NAMES if isinstance(call.get(key), str)), None)
    inner = next((call[key] for key in _INNER if is_call(call.get(key))), None)
    if named:
        return f"{words} {named}"
    return words if inner is None else f"{words} of {backbone_name(inner)}"


@contextmanager
def _harmless(folder: Path) -> Iterator[None]:
    """Warn of whatever goes wrong in a block: no page is worth a training."""
    try:
        yield
    except Exception as error:
        logger.warning(
            "The report of %s lacks something, or cannot be written (%s): `detrex report %s` "
            "writes it again.",
            *(folder, without_secrets(first_line(error, 300)).rstrip("."), folder),
        )


def _compared(cfg: DictConfig, evaluation: Evaluation) -> dict[str, Any]:
    """The figures of the last evaluation, and the files that they are of."""
    levels = try_get_key(cfg, "dataloader.test.mapper.value_range")
    data = {**evaluation.sources, "value_range": list(levels) if levels else None}
    return {"scores": evaluation.scores, "data": data}


def _config_text(cfg: DictConfig) -> str:
    """The resolved config; a part that has no form in YAML by its name."""
    try:
        return yaml_text(resolved(cfg, "the config"))
    except ConfigError:  # such as a path: a report stays on this machine, and may name it
        return yaml_text(plain(cfg, resolve=True))


def _about(args: argparse.Namespace, cfg: DictConfig, model: nn.Module) -> dict[str, Any]:
    """What stays the same over a run."""
    parameters = list(model.parameters())
    backbone = try_get_key(cfg, "model.backbone")
    return {
        "config_file": str(vars(args).get("config_file") or "") or None,
        "config": without_secrets(_config_text(cfg)),
        "detector": target_name(cfg.model),
        "backbone": None if backbone is None else backbone_name(backbone),
        "trained_on": registered_sets(cfg, "train"),
        "parameters": sum(p.numel() for p in parameters),
        "trainable": sum(p.numel() for p in parameters if p.requires_grad),
        "max_iter": int(cfg.train.max_iter),
    }
