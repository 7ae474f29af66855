"""A run sets up loggers for its process; a test that makes one in-process puts them back."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from detectron2.utils.logger import setup_logger

NAMES = ("detectron2", "fvcore", "detrex")


@contextmanager
def restored_loggers() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in NAMES]
    before = [(item.handlers[:], item.propagate, item.level) for item in loggers]
    try:
        yield
    finally:
        for item, (handlers, propagate, level) in zip(loggers, before, strict=True):
            item.handlers[:], item.propagate, item.level = handlers, propagate, level
            item.manager._clear_cache()
        setup_logger.cache_clear()
