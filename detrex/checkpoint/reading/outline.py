"""What a checkpoint holds beside the numbers of its tensors, without reading those."""

import logging
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from detrex.checkpoint.reading.file_formats import read_file
from detrex.checkpoint.reading.safe_pickle.tensors import Storage
from detrex.checkpoint.reading.torch_files import read_zip, storage_of

logger = logging.getLogger(__name__)


def read_outline(file: Path) -> Mapping[str, Any] | None:
    """Read a checkpoint's names, numbers and texts.

    Args:
        file: a file that exists; a zip archive of ``torch.save`` is read in milliseconds, files of
            other kinds as a whole.

    Returns:
        Its dictionary, with tensors on ``meta``; None where it is damaged or no checkpoint. The
        bytes of the tensors are not looked at.
    """
    try:
        content = read_zip(file, _storage) if zipfile.is_zipfile(file) else read_file(file)
    except Exception as error:  # whatever a damaged file provokes: the reader proper will say it
        logger.debug("%s has no outline: %s", file, error)
        return None
    return content if isinstance(content, Mapping) else None


def _storage(pid: Any) -> Storage:
    """Give a storage without memory for what a persistent id describes."""
    dtype, _, count = storage_of(pid)
    return Storage(torch.empty(count, dtype=dtype, device="meta"))
