"""Weights files of every common kind, and checkpoints of training runs.

download              address -> file, whole and verified, from the cache the second time
reading               file -> tensors by name, out of any nesting
matching              names and shapes of a file <-> those of a module
loading               tensors by name -> module, with a report
report                what became of every tensor
digests               a digest beside each checkpoint, by which damage is told
plain_values          state without objects of a config
finite                NaN and infinite weights, by name
detection_checkpoint  save, resume and load whole training runs
"""

from typing import TYPE_CHECKING, Any

from detrex.checkpoint.loading import fit_state_dict, load_init_checkpoint, load_weights
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
