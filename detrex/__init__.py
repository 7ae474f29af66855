"""detrex: any backbone for detectron2 detectors, by one line of a LazyConfig."""

__version__ = "0.6.0"
