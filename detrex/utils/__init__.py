"""Helpers that belong to no stage of a detector."""

from typing import TYPE_CHECKING, Any

from .dist import get_rank, get_world_size, is_dist_avail_and_initialized
from .misc import interpolate, inverse_sigmoid

if TYPE_CHECKING:
    from .events import WandbWriter

__all__ = [
    "WandbWriter",
    "get_rank",
    "get_world_size",
    "interpolate",
    "inverse_sigmoid",
    "is_dist_avail_and_initialized",
]


def __getattr__(name: str) -> Any:
    if name == "WandbWriter":
        from .events import WandbWriter

        return WandbWriter
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
