"""Which config and which weights belong to what a user named."""

import logging
import os
import pickle
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from torch import nn

from detrex.checkpoint.detection_checkpoint import IN_PARTS, DetectionCheckpointer
from detrex.checkpoint.download import (
    is_address,
    is_file_of_repository,
    is_repository,
    names_hub,
    shown,
)
from detrex.checkpoint.runs import origin_of, written_at
from detrex.config import load_config, try_get_key
from detrex.config.listing import SUFFIXES, find_config
from detrex.engine.run_folder.identity import follow, read_run
from detrex.errors import ConfigError, did_you_mean
from detrex.inference.facts import FACTS
from detrex.inference.pretrained import CONFIG, WEIGHTS, is_pretrained, read_pretrained
from detrex.inference.source import Source

logger = logging.getLogger(__name__)

RANDOM = "random"
"""What to give as ``weights`` for a detector that has learnt nothing."""

PICKLE = "config.yaml.pkl"

Config = DictConfig | str | os.PathLike[str]


def find_source(
    source: Config,
    *,
    config: Config | None = None,
    weights: str | os.PathLike[str] | None = None,
    trusted: Sequence[str] = (),
) -> Source:
    """Find the config and the weights of a detector.

    Args:
        source: see `detrex.load`.
        config: a config in the place of the one that lies beside the weights.
        weights: a checkpoint in the place of the one that the source names, or `RANDOM`.
        trusted: packages that YAML may call beside those of `detrex.config.trust`.

    Raises:
        ConfigError: the source is nothing that a detector can be built from, or a part is missing.
    """
    _check_weights(weights)
    if isinstance(source, DictConfig):
        return _of_config(source, "the config", weights, config)
    if not isinstance(source, str | os.PathLike):
        raise TypeError(
            "a detector is loaded from a run's folder, a checkpoint or a config, got "
            f"{type(source).__name__}: give a path, an address or a config object."
        )
    name, path = os.fspath(source), Path(os.path.expanduser(source))
    if path.name in (CONFIG, FACTS, WEIGHTS) and is_pretrained(path.parent):
        path = path.parent
    if not name:
        raise ConfigError("the source of a detector is empty: name a run's folder or a checkpoint.")
    if is_address(name):
        is_whole = is_repository(name) and config is None and weights is None
        return (
            _of_shared(name, trusted)
            if is_whole
            else _of_checkpoint(name, config, weights, trusted)
        )
    if path.is_dir() and path.suffix != IN_PARTS:
        return _of_folder(path, config, weights, trusted)
    if path.suffix in SUFFIXES and path.is_file():
        if path.name == CONFIG and weights is None and run_checkpoints(path.parent):
            return _of_folder(path.parent, config, weights, trusted)
        return _of_config(load_config(path, trusted), name, weights, config)
    if path.exists():
        return _of_checkpoint(name, config, weights, trusted)
    return _of_config(load_config(_found_config(name), trusted), name, weights, config)


def _check_weights(weights: object) -> None:
    if weights is not None and not (isinstance(weights, str | os.PathLike) and os.fspath(weights)):
        raise ConfigError(
            f"weights={weights!r:.60} names no checkpoint: give a file or an address, {RANDOM!r}, "
            "or leave it out."
        )


def _of_folder(
    folder: Path,
    config: Config | None,
    weights: str | os.PathLike[str] | None,
    trusted: Sequence[str],
) -> Source:
    """Take a run's folder, or a shared detector's."""
    if is_pretrained(folder) and config is None and weights is None:
        return _of_shared(folder, trusted)
    cfg = _config_of(config, trusted) if config is not None else _saved_config(folder, trusted)
    if weights is not None:
        return Source(cfg, _named(weights), str(folder))
    found = [str(folder / WEIGHTS)] if is_pretrained(folder) else run_checkpoints(folder)
    if not found:
        raise ConfigError(
            f"{folder} holds no checkpoint of its run: train it, or name one by weights=, or "
            f"weights={RANDOM!r} (--weights) for a detector that has learnt nothing."
        )
    return Source(cfg, tuple(found), str(folder))


def _of_shared(source: str | Path, trusted: Sequence[str]) -> Source:
    shared = read_pretrained(source, trusted)
    return Source(shared.config, (), shown(os.fspath(source)), shared)


def _of_checkpoint(
    name: str,
    config: Config | None,
    weights: str | os.PathLike[str] | None,
    trusted: Sequence[str],
) -> Source:
    if weights is not None:
        raise ConfigError(
            f"{shown(name)} is a checkpoint, and weights={str(weights)!r:.60} another: give one of "
            "them, and the config by config= (--config)."
        )
    if config is not None:
        return Source(_config_of(config, trusted), (name,), shown(name))
    if is_address(name):
        if names_hub(name) and not is_file_of_repository(name):
            raise ConfigError(_no_repository(name))
        raise ConfigError(
            f"{shown(name)} is a checkpoint without the config of its detector: name that by "
            "config= (--config), such as dino/dino_r50_4scale_12ep.py."
        )
    file = Path(os.path.expanduser(name))
    origin = origin_of(file)
    if not origin.readable and not any((file.parent / each).is_file() for each in (CONFIG, PICKLE)):
        raise ConfigError(
            f"{shown(name)} is neither a checkpoint nor a config: name one of these, or a run's "
            "folder."
        )
    return Source(_saved_config(file.parent, trusted, origin.run), (str(file),), name)


def _of_config(
    cfg: DictConfig,
    name: str,
    weights: str | os.PathLike[str] | None,
    other: Config | None,
) -> Source:
    if other is not None:
        raise ConfigError(
            f"{name} is a config, and config= (--config) names another: give one of them, and the "
            "checkpoint by weights= (--weights)."
        )
    chosen = weights or try_get_key(cfg, "train.init_checkpoint", default="")
    if not chosen:
        raise ConfigError(
            f"{name} names no weights, without which a detector finds nothing: give weights=, or "
            f"train.init_checkpoint in the config, or weights={RANDOM!r} (--weights) to try it "
            "without."
        )
    return Source(cfg, _named(chosen), name)


def _named(weights: str | os.PathLike[str]) -> tuple[str, ...]:
    return () if weights == RANDOM else (os.fspath(weights),)


def _config_of(config: Config, trusted: Sequence[str]) -> DictConfig:
    if isinstance(config, DictConfig):
        return config
    return load_config(find_config(config), trusted)


def _found_config(name: str) -> Path:
    try:
        return find_config(name)
    except ConfigError as error:
        path = Path(os.path.expanduser(name))
        beside = [each.name for each in path.parent.iterdir()] if path.parent.is_dir() else []
        if near := did_you_mean(path.name, beside):
            raise ConfigError(f"{shown(name)} does not exist.{near}") from error
        if names_hub(name):
            raise ConfigError(_no_repository(name)) from error
        hint = ""
        if re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name) and path.suffix not in SUFFIXES:
            hint = f" A repository of the Hugging Face hub is named hf-hub:{name:.100}."
        raise ConfigError(
            f"{shown(name):.150} is no run's folder and no checkpoint, and no config: {error}{hint}"
        ) from error


def _no_repository(name: str) -> str:
    return (
        f"{shown(name):.150} is no repository of the Hugging Face hub: expected hf-hub:owner/name, "
        "or with a revision hf-hub:owner/name@revision."
    )


def _saved_config(folder: Path, trusted: Sequence[str], run: str = "") -> DictConfig:
    """Load the config that a run wrote down; of an earlier run in the folder its own."""
    earlier = folder / f"config.{run}.yaml"
    file = earlier if run and earlier.is_file() else folder / CONFIG
    if file.is_file():
        return load_config(file, trusted)
    pickled = folder / PICKLE
    if not pickled.is_file():
        raise ConfigError(
            f"{folder} holds no {CONFIG}, as the folder of a run does: name the config by config=."
            f"{run_below(folder)}"
        )
    if PICKLE not in trusted:
        raise ConfigError(
            f"{pickled} is a pickle, which can run code, for the run's config has no form in YAML: "
            f"name its .py file by config=, or, if you trust the folder, give trust=[{PICKLE!r}]."
        )
    cfg: Any = pickle.loads(pickled.read_bytes())
    if not isinstance(cfg, DictConfig):
        raise ConfigError(f"{pickled} holds a {type(cfg).__name__}, expected a config.")
    return cfg


def run_below(folder: Path) -> str:
    """Point to the last run in a folder that was named in its place, such as a project's.

    Args:
        folder: an existing one.

    Returns:
        A sentence after a space, empty where no folder in it is a run's.
    """
    runs = sorted(folder.glob(f"*/{CONFIG}"), key=written_at)
    return f" Did you mean {str(runs[-1].parent)!r}?" if runs else ""


def run_checkpoints(folder: Path) -> list[str]:
    """List a run's checkpoints: where it was best, if it kept that, then from the last on.

    Args:
        folder: the run's; those of other runs in it are left out.
    """
    run = read_run(folder)
    checkpointer = DetectionCheckpointer(nn.Identity(), folder, save_to_disk=False)
    follow(checkpointer, run)
    named = (*folder.glob("*best.pth"), *folder.glob(f"*best{IN_PARTS}"))
    origins = {file: origin_of(file) for file in named}
    for file in (file for file, origin in origins.items() if not origin.readable):
        logger.warning("%s, where the run was best, cannot be read, and is passed over.", file)
    best = [
        file
        for file, origin in origins.items()
        if origin.readable and (run is None or origin.run in ("", run.id))
    ]
    best.sort(key=written_at, reverse=True)
    return [*map(str, best), *checkpointer.checkpoint_files()]


def choice_of(file: str) -> str:
    """Say which of a run's checkpoints one is, and why it is taken.

    Args:
        file: of those that `run_checkpoints` gives.
    """
    is_best = Path(file).stem.endswith("best")
    return f"weights: {file}, {'where the run was best' if is_best else 'the last of the run'}"
