"""Checkpoints in parts, written without a process group."""

import pickle

import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)


def in_parts(folder, changes=lambda metadata: None, sizes=((2, 3), (3, 3))):
    """A tensor of ``(5, 3)`` in two parts, as two ranks write it; and its index, changed."""
    folder.mkdir(exist_ok=True)
    whole = torch.arange(15.0).view(5, 3)
    places, chunks = {}, []
    for rank, rows in enumerate((whole[:2], whole[2:])):
        file = folder / f"__{rank}_0.distcp"
        torch.save(rows.clone(), file)
        offsets = torch.Size((2 * rank, 0))
        chunks.append(ChunkStorageMetadata(offsets, torch.Size(sizes[rank])))
        places[MetadataIndex("weight", offsets)] = dcp.filesystem._StorageInfo(
            file.name, 0, file.stat().st_size
        )
    entry = TensorStorageMetadata(TensorProperties(torch.float32), torch.Size((5, 3)), chunks)
    metadata = Metadata({"weight": entry}, storage_data=places)
    changes(metadata)
    with (folder / ".metadata").open("wb") as stream:
        pickle.dump(metadata, stream)
    return whole
