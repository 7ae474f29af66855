"""Loading configs, and checking them before anything is built.

The configs that come with the package are also importable, for the functions among them::

    from detrex.config.configs.common.common_schedule import multistep_lr_scheduler
"""

import sys
from importlib import import_module
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # at run time by `__getattr__`: what needs no torch is imported without it
    from detrex.config.config import (
        get_config,
        get_detectron2_config,
        load_config,
        require_keys,
        try_get_key,
    )
    from detrex.config.listing import find_config, list_configs
    from detrex.config.pixel_statistics import resolve_pixel_statistics
    from detrex.config.swap import swap_backbone, swap_changes

__all__ = [
    "find_config",
    "get_config",
    "get_detectron2_config",
    "list_configs",
    "load_config",
    "require_keys",
    "resolve_pixel_statistics",
    "swap_backbone",
    "swap_changes",
    "try_get_key",
]

_HOMES = {
    **dict.fromkeys(("find_config", "list_configs"), "listing"),
    **dict.fromkeys(("swap_backbone", "swap_changes"), "swap"),
    "resolve_pixel_statistics": "pixel_statistics",
}

# In a checkout `configs/` lies beside the package, not in this folder as in a wheel.
if not (Path(__path__[0]) / "configs").is_dir():
    _spec = ModuleSpec(f"{__name__}.configs", None, is_package=True)
    _spec.submodule_search_locations = [str(Path(__path__[0]).parents[1] / "configs")]
    configs = sys.modules[_spec.name] = module_from_spec(_spec)


def __getattr__(name: str) -> object:
    """Import what is asked for, when it first is (PEP 562)."""
    if name in __all__:
        return getattr(import_module(f"{__name__}.{_HOMES.get(name, 'config')}"), name)
    if name in ("config", *_HOMES.values()):
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
