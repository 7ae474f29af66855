"""Where detrex keeps what it fetches or makes on a machine."""

import os
from pathlib import Path


def default_cache_dir() -> Path:
    """``$DETREX_CACHE``, or ``~/.cache/detrex`` where that is not set."""
    return Path(os.environ.get("DETREX_CACHE") or Path.home() / ".cache" / "detrex")
