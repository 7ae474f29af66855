"""detrex: any backbone for detectron2 detectors, by one line of a LazyConfig."""

__version__ = "0.6.0"

_SUBPACKAGES = ("checkpoint", "config", "data", "engine", "layers", "modeling", "utils")


def __getattr__(name: str) -> object:
    """Import a subpackage when it is first asked for, as ``detrex.layers`` (PEP 562)."""
    if name not in _SUBPACKAGES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return importlib.import_module(f"{__name__}.{name}")
