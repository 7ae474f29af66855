"""Loading configs, and checking them before anything is built.

The configs that come with the package are also importable, for the functions among them::

    from detrex.config.configs.common.common_schedule import multistep_lr_scheduler
"""

from pathlib import Path

from detrex.config.config import (
    get_config,
    get_detectron2_config,
    load_config,
    require_keys,
    try_get_key,
)
from detrex.config.pixel_statistics import resolve_pixel_statistics
from detrex.config.swap import swap_backbone, swap_changes

__all__ = [
    "get_config",
    "get_detectron2_config",
    "load_config",
    "require_keys",
    "resolve_pixel_statistics",
    "swap_backbone",
    "swap_changes",
    "try_get_key",
]

# In a checkout `configs/` lies beside the package, not in this folder as in a wheel.
if not (Path(__path__[0]) / "configs").is_dir():
    __path__.append(str(Path(__path__[0]).parents[1]))
