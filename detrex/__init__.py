"""detrex: any backbone for detectron2 detectors, by one line of a LazyConfig."""

__version__ = "0.6.0"

_SUBPACKAGES = (
    *("checkpoint", "config", "data", "engine", "inference", "layers", "modeling", "utils"),
)


def __getattr__(name: str) -> object:
    """Import `load` or a subpackage, as ``detrex.layers``, when it is first asked for (PEP 562)."""
    import importlib

    if name == "load":
        return importlib.import_module(f"{__name__}.inference.loading").load
    if name not in _SUBPACKAGES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(f"{__name__}.{name}")
