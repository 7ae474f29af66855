"""Descriptions of architectures that were made before, read without a network library.

Those for a training image of the usual size come with the package, by the library's version; those
that this machine has made are in detrex's cache, by everything that they depend on.
"""

import gzip
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from detrex import __version__
from detrex.catalog.table import Entry, installed_version, packaged_file
from detrex.files import keep, read_kept, stamp, write_atomically

Facts = dict[str, Any]

SIZE = (800, 1333)
"""Height and width of the image that packaged descriptions are for."""

FILE_NAME = "descriptions.jsonl.gz"
_FOLDER = "descriptions"
_LIBRARIES = ("timm", "torchvision", "torch", "detectron2")


def find_description(entry: Entry, size: tuple[int, int]) -> Facts | None:
    """Find the description of an architecture.

    Args:
        entry: its row in the catalog.
        size: height and width of an image in pixels.

    Returns:
        As from `detrex.catalog.describe.describe`; None where there is none, or an outdated one.
    """
    texts = [read_kept(_FOLDER, _key(entry, size))]
    if size == SIZE:
        texts.append(packaged_descriptions().get((entry.library, entry.name), ""))
    for text in texts:
        try:
            facts: Facts = json.loads(text)
            frozen = {int(at): count for at, count in facts["frozen_params"].items()}
        except (RecursionError, ValueError, LookupError, TypeError, AttributeError):
            continue  # there is none, or it is damaged
        return facts | {"frozen_params": frozen}
    return None


def keep_description(entry: Entry, size: tuple[int, int], facts: Facts) -> None:
    """Keep a description in detrex's cache, where that can be written."""
    keep(_FOLDER, _key(entry, size), json.dumps(facts))


def packaged_descriptions(file: Path | None = None) -> dict[tuple[str, str], str]:
    """Read the descriptions that come with the package.

    Args:
        file: where they are; by default in the package.

    Returns:
        JSON by library and name, of libraries whose version is installed.
    """
    try:
        with gzip.open(file or packaged_file().with_name(FILE_NAME), "rt") as stream:
            rows = (line.rstrip("\n").split("\t", 3) for line in stream)
            return {
                (library, name): text
                for library, version, name, text in rows
                if version == installed_version(library)
            }
    except (OSError, EOFError, ValueError):
        return {}


def write_descriptions(described: Iterable[tuple[Entry, Facts]], file: Path) -> None:
    """Write descriptions for an image of `SIZE`, beside those of other architectures in the file.

    Args:
        described: architectures and what `describe` says of them.
        file: where to.
    """
    texts = packaged_descriptions(file)
    texts |= {(entry.library, entry.name): json.dumps(facts) for entry, facts in described}
    lines = [
        f"{library}\t{installed_version(library)}\t{name}\t{texts[library, name]}\n"
        for library, name in sorted(texts)
    ]
    content = gzip.compress("".join(lines).encode(), mtime=0)
    write_atomically(file, lambda stream: stream.write(content))


def _key(entry: Entry, size: tuple[int, int]) -> str:
    """Give everything that a description depends on."""
    package = Path(__file__).resolve().parents[1]
    code = [*(package / "modeling" / "backbone").rglob("*.py"), *(package / "catalog").glob("*.py")]
    versions = [(name, installed_version(name)) for name in _LIBRARIES]
    return repr((__version__, versions, sorted(map(stamp, code)), entry, size))
