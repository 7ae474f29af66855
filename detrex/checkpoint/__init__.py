"""Weights files of every common kind, and checkpoints of training runs.

download              address -> file, whole and verified, from the cache the second time
reading               file -> tensors by name, out of any nesting
file_kinds            the kinds of weights files, and how each is read
folders               folders of weights, and files in shards
entries               which of a file's tables of tensors is meant
torch_files           what torch.save writes: zip archives and older pickles
safe_pickle           pickles as plain data, never running code of the file's
pickled_values        the arrays and containers that a pickle may name
pickled_tensors       the tensors that a pickle may name
plain_data            the bounds that a stranger's content has to keep
key_families          how torchvision, timm, detectron2 and Caffe2 name the same weights
pairing               names of a file <-> names of a module
position_tables       position tables for another size of image or window
input_kernels         kernels for images of another number of channels
matching              tensors by name -> module, with a report
detection_checkpoint  save, resume and load whole training runs
"""

from typing import TYPE_CHECKING, Any

from detrex.checkpoint.matching import fit_state_dict, load_init_checkpoint, load_weights
from detrex.checkpoint.reading import read_checkpoint, read_state_dict
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
