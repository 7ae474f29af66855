"""Folders of weights, and weights in several files that an index brings together.

Hugging Face's libraries write large networks in shards::

    model.safetensors.index.json        {"weight_map": {"conv1.weight": "model-00001-of-00002..."}}
    model-00001-of-00002.safetensors
    model-00002-of-00002.safetensors
"""

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

from detrex.checkpoint.reading.file_formats import read_file
from detrex.checkpoint.reading.safe_pickle.plain_data import shorten
from detrex.checkpoint.reading.sharded_folders import METADATA, is_sharded_folder
from detrex.errors import CheckpointError, did_you_mean

LOCAL_FOLDER = "local-dir:"
"""What timm puts before the path of a folder."""

_INDEX = ".index.json"
# That of a network of 10^5 tensors takes a tenth; objects of JSON take up to 30 times their text.
_MAX_INDEX = 2**26
# What a folder's weights are called, as timm and Hugging Face's libraries look for them.
_NAMES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "pytorch_model.pth",
    "model.pth",
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.bin",
)
_ENDINGS = (".safetensors", ".pth", ".pth.tar", ".pt", ".bin", ".pkl", ".npz")


def is_index(file: Path) -> bool:
    """Tell the index of a file in shards by its name."""
    return file.name.endswith(_INDEX)


def weights_in(folder: Path) -> Path:
    """Find the weights file, or the index of one in shards or in parts, in a folder.

    Args:
        folder: a folder that exists.

    Returns:
        The file of a usual name, else the only weights file.

    Raises:
        CheckpointError: there is none, or more than one of no usual name.
    """
    if is_sharded_folder(folder):
        return folder / METADATA
    usual = next((folder / name for name in _NAMES if (folder / name).is_file()), None)
    if usual is not None:
        return usual
    files = sorted(f for f in folder.iterdir() if f.name.endswith(_ENDINGS) and f.is_file())
    if len(files) == 1:
        return files[0]
    held = ", ".join(file.name for file in files[:4]) or "none"
    raise CheckpointError(
        f"{folder} is a folder with {len(files)} weights files ({held}), expected one, or "
        f"{_NAMES[0]}: name the file in it"
    )


def shard_names(index: Path) -> list[str]:
    """Name the files that an index brings together, each once.

    Args:
        index: as for `read_shards`.

    Raises:
        CheckpointError: it is no index.
    """
    return list(dict.fromkeys(_weight_map(index).values()))


def read_shards(index: Path) -> dict[str, Any]:
    """Read all the files that an index brings together.

    Args:
        index: a file such as ``model.safetensors.index.json``; the shards lie beside it.

    Returns:
        Tensors by name, those that the index leaves out last.

    Raises:
        CheckpointError: the index or a shard is not there, damaged or at odds with the other, or
            two shards hold the same tensor.
    """
    places = _weight_map(index)
    tensors: dict[str, Any] = {}
    for name in dict.fromkeys(places.values()):
        shard = index.parent / name
        # os.path says False, too, for names that cannot be.
        if name != Path(name).name or not os.path.isfile(shard):
            hint = did_you_mean(name, [file.name for file in index.parent.iterdir()])
            raise CheckpointError(
                f"{index} needs the shard {name[:80]!r} beside it, which is not there: copy all "
                f"shards into {index.parent}.{hint}"
            )
        content = read_file(shard)
        wanted = [key for key, place in places.items() if place == name]
        absent = [key for key in wanted if not isinstance(content, dict) or key not in content]
        if absent:
            raise CheckpointError(
                f"{shard} lacks '{shorten(absent[0])}', which {index.name} promises: copy it again"
            )
        if twice := [key for key in content if key in tensors or places.get(key, name) != name]:
            raise CheckpointError(
                f"{shard} holds '{shorten(twice[0])}', which another shard of {index.name} holds "
                "too: copy all shards and the index again, from one place"
            )
        tensors |= content
    return {key: tensors[key] for key in {**places, **tensors}}


def _table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        (twice, _), *_ = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"it names '{shorten(twice)}' twice")
    return table


def _weight_map(index: Path) -> dict[str, str]:
    try:
        if (size := index.stat().st_size) > _MAX_INDEX:
            raise ValueError(f"it has {size} bytes, and at most {_MAX_INDEX} are read")
        content = json.loads(index.read_text(encoding="utf-8"), object_pairs_hook=_table)
    except OSError as error:
        raise CheckpointError(
            f"{index} cannot be read ({error.strerror}): check its permissions"
        ) from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{index} is no JSON ({error}), expected an index of shards: copy it again"
        ) from error
    places = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(places, dict) or not all(isinstance(v, str) for v in places.values()):
        raise CheckpointError(
            f"{index} holds no 'weight_map' from names of tensors to names of files, expected the "
            "index of a file in shards: name the weights file itself"
        )
    return places
