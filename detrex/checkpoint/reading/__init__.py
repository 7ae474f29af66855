"""From a weights file to tensors by name, without ever running code that the file brings along.

state_dict    path or address -> what the file holds -> its one table of tensors
entries       which of a file's tables of tensors is meant
folders       folders of weights, and files in shards
file_formats  the formats of weights files, told by their first bytes
torch_files   what torch.save writes: zip archives and older pickles
safe_pickle   pickles as plain data
caffe2        the names of Detectron's Caffe2 files
"""

from detrex.checkpoint.reading.state_dict import (
    is_caffe2_checkpoint,
    local_path,
    read_checkpoint,
    read_state_dict,
    tensors_of,
)

__all__ = [
    "is_caffe2_checkpoint",
    "local_path",
    "read_checkpoint",
    "read_state_dict",
    "tensors_of",
]
