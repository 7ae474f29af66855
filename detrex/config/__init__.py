"""Loading configs, and checking them before anything is built."""

from detrex.config.config import get_config, load_config, try_get_key

__all__ = ["get_config", "load_config", "try_get_key"]
