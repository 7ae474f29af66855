"""Weights files of every common kind, and checkpoints of training runs.

download              address -> file, whole and verified, from the cache the second time
reading               file -> tensors by name, out of any nesting
key_families          how torchvision, timm and detectron2 name the same weights
pairing               names of a file <-> names of a module
position_tables       position tables for another size of image or window
input_kernels         kernels for images of another number of channels
matching              tensors by name -> module, with a report
detection_checkpoint  save, resume and load whole training runs
"""

from typing import TYPE_CHECKING, Any

from detrex.checkpoint.matching import fit_state_dict, load_init_checkpoint, load_weights
from detrex.checkpoint.reading.state_dict import read_checkpoint, read_state_dict
from detrex.checkpoint.report import LoadReport

if TYPE_CHECKING:
    from detrex.checkpoint.detection_checkpoint import DetectionCheckpointer

__all__ = [
    "DetectionCheckpointer",
    "LoadReport",
    "fit_state_dict",
    "load_init_checkpoint",
    "load_weights",
    "read_checkpoint",
    "read_state_dict",
]


def __getattr__(name: str) -> Any:
    """Import the checkpointer when it is asked for: reading weights needs no training library."""
    if name == "DetectionCheckpointer":
        from detrex.checkpoint.detection_checkpoint import DetectionCheckpointer

        return DetectionCheckpointer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
