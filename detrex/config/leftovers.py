"""What a config file leaves at its top level without meaning it: aliases and loop variables."""

import dataclasses
import logging
import re
from collections.abc import Iterator
from typing import Any

from detectron2.utils.registry import locate
from omegaconf import DictConfig, OmegaConf

from detrex.config.lazy_call import plain
from detrex.config.lint import walk
from detrex.config.validation import read

logger = logging.getLogger(__name__)

_SCALARS = (str, bytes, int, float, type(None))

PARTS = ("model", "dataloader", "optimizer", "lr_multiplier", "train")
"""The names at a config's top level that a run reads."""


def drop_leftovers(cfg: DictConfig) -> DictConfig:
    """Take out what stands beside a run's parts and cannot be saved with them.

    ``encoder = model.transformer.encoder`` at the top level of a config is such a leftover: its
    references start from another place than in the model, and lead nowhere.

    Args:
        cfg: the config after its overrides, changed in place.

    Returns:
        ``cfg``, with its parts and with all else that can be saved.
    """
    for name in [name for name in cfg if name not in PARTS]:
        if not _can_be_saved(cfg, name):
            del cfg[name]
            logger.debug("%s of the config is left out: it cannot be saved.", name)
    return cfg


def _can_be_saved(cfg: DictConfig, name: Any) -> bool:
    value = read(cfg, name)
    broken = value is ... or any(isinstance(node, Exception) for _, node in walk(value, str(name)))
    if broken or not _is_plain(value):
        return _is_referred_to(cfg, str(name))
    return True


def _is_plain(value: Any) -> bool:
    """Whether YAML can hold a value: scalars, and names of what can be imported."""
    value = plain(value)
    if isinstance(value, dict):
        return all(map(_is_plain, value.values()))
    if isinstance(value, list):
        return all(map(_is_plain, value))
    return isinstance(value, _SCALARS) or dataclasses.is_dataclass(value) or _is_importable(value)


def _is_importable(value: Any) -> bool:
    name = f"{getattr(value, '__module__', None)}.{getattr(value, '__qualname__', None)}"
    try:
        return locate(name) is value
    except Exception:  # importing can fail in any way
        return False


def _is_referred_to(cfg: DictConfig, name: str) -> bool:
    reference = re.compile(rf"\$\{{[^}}]*\b{re.escape(name)}\b")
    others = [text for key, text in OmegaConf.to_container(cfg).items() if key != name]
    return any(reference.search(text) for text in _strings(others))


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _strings(item)
