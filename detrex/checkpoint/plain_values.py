"""Values that a checkpoint can hold: read as data, it has no place for objects of a config."""

from operator import is_
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf


def plain(value: Any) -> Any:
    """Give state without objects of a config, which hold what they are asked for and more.

    An optimizer keeps what it was built with: ``betas=(0.9, 0.99)`` of a lazy config reaches it as
    a ``ListConfig``.

    Args:
        value: state in mappings, lists and tuples of any depth.

    Returns:
        The same, with lists and dicts for those of a config. What has none stays the same object.
    """
    if isinstance(value, DictConfig | ListConfig):
        return OmegaConf.to_container(value, resolve=True)
    if type(value) in (list, tuple):
        items: Any = [plain(item) for item in value]
        return value if all(map(is_, items, value)) else type(value)(items)
    if type(value) is dict:
        pairs = {key: plain(item) for key, item in value.items()}
        return value if all(map(is_, pairs.values(), value.values())) else pairs
    return value
