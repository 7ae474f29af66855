"""Whether a weights file is whole: found by its format's own sizes and sums, few bytes read."""

import json
import zipfile
from pathlib import Path

from detrex.checkpoint.reading.folders import is_index
from detrex.checkpoint.reading.safe_pickle.plain_data import ForbiddenNameError, UnfitContentError
from detrex.checkpoint.reading.safe_pickle.unpickler import SafeUnpickler
from detrex.checkpoint.reading.safe_pickle.values import NAMES
from detrex.checkpoint.reading.torch_files import MAGIC, read_pickle
from detrex.errors import first_line
from detrex.files import foreign_kind


def fault_of(file: Path, name: str = "") -> str:
    """Say why a file cannot be a whole weights file.

    A zip archive and a safetensors file tell their size at one end; a pickle has to be read to its
    end. What a file holds is not judged here: a whole file that the reader refuses has no fault.

    Args:
        file: any file.
        name: what it will be called, where it has another name as yet.

    Returns:
        A few words, empty where it is whole.
    """
    name = name or file.name
    try:
        with file.open("rb") as stream:
            head = stream.read(64)
        return _fault(file, name, head)
    except (ForbiddenNameError, UnfitContentError):
        return ""  # the reader says so in a sentence of its own
    except Exception as error:
        return f"it is cut short or damaged: {first_line(error)}"


def _fault(file: Path, name: str, head: bytes) -> str:
    if head.startswith(b"PK\x03\x04"):
        return _fault_of_zip(file)
    if MAGIC in head:
        read_pickle(file)
    elif is_index(Path(name)):
        json.loads(file.read_text(encoding="utf-8"))
    elif head[8:9] == b"{":
        return _fault_of_safetensors(file)
    elif head.startswith(b"\x80") or (name.endswith(".pkl") and head):
        with file.open("rb") as stream:
            SafeUnpickler(stream, NAMES).load()
    else:
        return foreign_kind(head) or "it is of no kind known"
    return ""


def _fault_of_zip(file: Path) -> str:
    size = file.stat().st_size
    with zipfile.ZipFile(file) as archive:  # its directory is at the end
        entries = archive.infolist()
        plain = all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)
        # Sums are found where that takes no more than reading the file once.
        if plain and sum(entry.file_size for entry in entries) <= size:
            damaged = archive.testzip()
            return "" if damaged is None else f"its record {damaged[:60]!r} is damaged"
    return ""


def _fault_of_safetensors(file: Path) -> str:
    try:
        from safetensors import safe_open
    except ImportError:
        return ""  # the reader says so in a sentence of its own
    with safe_open(file, framework="pt"):  # compares the sizes in its head with the file's
        return ""
