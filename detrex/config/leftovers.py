"""What a config file leaves at its top level without meaning it: aliases and loop variables."""

import dataclasses
import logging
import re
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from detectron2.utils.registry import locate
from omegaconf import DictConfig, OmegaConf

from detrex.config.lazy_call import plain
from detrex.config.lint import walk
from detrex.config.validation import read

logger = logging.getLogger(__name__)

_REFERENCE = re.compile(r"\$\{([^}]*)")
_WORD = re.compile(r"""[^\\{}()\[\]:.,\s'"$]+""")
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
    leftovers = [name for name in cfg if name not in PARTS and not _can_be_saved(cfg, name)]
    referring = _referring(cfg) if leftovers else {}
    dropped: set[Any] = set()
    for name in leftovers:
        if not referring.get(str(name), set()) - {name} - dropped:
            dropped.add(name)
            del cfg[name]
            logger.debug("%s of the config is left out: it cannot be saved.", name)
    return cfg


def _can_be_saved(cfg: DictConfig, name: Any) -> bool:
    value = read(cfg, name)
    broken = value is ... or any(isinstance(node, Exception) for _, node in walk(value, str(name)))
    return not broken and _is_plain(value)


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


def _referring(cfg: DictConfig) -> dict[str, set[Any]]:
    """For each name in a reference the keys at the top level in which it stands."""
    referring: dict[str, set[Any]] = defaultdict(set)
    for key, value in OmegaConf.to_container(cfg).items():  # type: ignore[union-attr]
        for text in _strings(value):
            for reference in _REFERENCE.findall(text):
                for name in _WORD.findall(reference):
                    referring[name].add(key)
    return referring


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _strings(item)
