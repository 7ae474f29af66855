"""Keep remarks of other libraries off the terminal; those of detrex stay.

Commands call it before they import torch, whose plans detectron2, fvcore and timm remark on when
they are imported. Whoever gives Python ``-W`` or ``PYTHONWARNINGS`` sees what that asks for.
"""

import logging
import os
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from detrex.errors import DetrexWarning

IN_FULL = {"in_full": True}
"""The ``extra`` of a record that is for the log alone, such as all parts of a model."""

_MOST_LINES = 12
_PLANS = (FutureWarning, DeprecationWarning, PendingDeprecationWarning)
_OPTIONS = [f"ignore::{category.__name__}" for category in _PLANS]
_LIBRARIES = (
    *("torch", "torchvision", "timm", "detectron2", "fvcore", "iopath", "pycocotools", "PIL"),
    *("faster_coco_eval", "supervision", "transformers", "huggingface_hub", "numpy", "scipy"),
    *("onnx", "onnxscript", "onnx_ir", "onnxruntime", "openvino", "nncf", "matplotlib"),
    *(r"pkg_\w+", "setuptools", "tensorboard", "wandb", "hydra", "omegaconf", "submitit"),
)
# torch and huggingface_hub print records of their loggers by handlers of their own.
_WITH_HANDLERS = (
    *("torch.fx._symbolic_trace", "torch.utils.cpp_extension"),
    "huggingface_hub.utils._http",  # each of its attempts, before the last one's error
)
# OpenCV and the FFmpeg in it write to the terminal themselves, of videos that cannot be opened.
_SETTINGS = {"OPENCV_LOG_LEVEL": "ERROR", "OPENCV_FFMPEG_LOGLEVEL": "-8"}
_NAMES = rf"({'|'.join(_LIBRARIES)})(\.|$)"


def quiet_libraries() -> None:
    """Show no remarks of other libraries, in this process and those that it spawns.

    Their errors are shown. Does nothing where the user has said which warnings to show.
    """
    if sys.warnoptions not in ([], _OPTIONS):
        return
    sys.warnoptions[:] = _OPTIONS  # which multiprocessing hands to what it spawns
    for category in _PLANS:
        warnings.simplefilter("ignore", category)
    warnings.filterwarnings("ignore", category=UserWarning, module=_NAMES)
    warnings.simplefilter("default", DetrexWarning)
    for name in _WITH_HANDLERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    if logging.lastResort is not None:  # what takes records that no handler does
        logging.lastResort.addFilter(_is_shown)


def quiet_as_parent() -> None:
    """Do in a spawned process what its parent has done."""
    if sys.warnoptions == _OPTIONS:
        quiet_libraries()


@contextmanager
def quiet_logs(level: int = logging.CRITICAL) -> Iterator[None]:
    """Let nothing be logged within a block, by any library or by this package.

    Args:
        level: the highest that is not logged.
    """
    before = logging.root.manager.disable
    logging.disable(level)
    try:
        yield
    finally:
        logging.disable(before)


def _is_shown(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR or not re.match(_NAMES, record.name)


def fits_terminal(record: logging.LogRecord) -> bool:
    """Tell whether a record is for the terminal, too; a filter of its handler.

    Args:
        record: one with `IN_FULL` is not, nor detectron2's table of the objects of many classes.
    """
    is_table = record.name == "detectron2.data.build"
    many = is_table and record.getMessage().count("\n") > _MOST_LINES
    return not (many or getattr(record, "in_full", False))
