"""The table of all architectures: read, searched and written without a network library.

Its rows are those of `detrex.catalog.analysis`, with the weights that the libraries know.
"""

import csv
import fnmatch
import io
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from importlib import metadata, resources
from pathlib import Path
from typing import Any, get_args

from detrex.errors import ConfigError
from detrex.files import default_cache_dir, write_atomically

FILE_NAME = "backbones.csv"
LIBRARIES = ("timm", "torchvision")
_WRAPPERS = {"timm": "TimmBackbone", "torchvision": "TorchvisionBackbone"}


@dataclass(frozen=True)
class Entry:
    """An architecture.

    Attributes:
        name: its name in the library.
        library: ``"timm"`` or ``"torchvision"``.
        kind: ``"pyramid"`` (has strides 8, 16 and 32), ``"flat"`` (one stride) or ``"partial"``.
        strides: strides of the network's own maps in pixels.
        channels: channels of the last map of each stride.
        norm: the norm it has most of: ``"batch"``, ``"layer"``, ``"group"``, ``"rms"``, ``"none"``.
        params: parameters of the feature network for strides 8 to 32.
        gflops: multiply-adds in units of 1e9 for an image of 640 x 640.
        sizes: ``"any"``, ``"x32"`` for multiples, ``"224x224 tiles"`` for one size.
        mean: pixel mean that the default weights expect, 0..255.
        std: pixel standard deviation.
        tags: pretrained weights, by timm's tag or torchvision's name; the default first.
        licence: of the default weights, empty where not known.
        reason: why it gives no res3, res4 and res5; empty where it does.
    """

    name: str
    library: str
    kind: str = ""
    strides: tuple[int, ...] = ()
    channels: tuple[int, ...] = ()
    norm: str = ""
    params: int = 0
    gflops: float = 0.0
    sizes: str = ""
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    tags: tuple[str, ...] = ()
    licence: str = ""
    reason: str = ""

    @property
    def wrapper(self) -> str:
        """The class in ``detrex.modeling.backbone`` that builds it."""
        return _WRAPPERS[self.library]

    @classmethod
    def from_row(cls, row: dict[str, str]) -> "Entry":
        """Read the cells of a table's row.

        Raises:
            KeyError, ValueError, TypeError, AttributeError: it is damaged.
        """
        if None in row or None in row.values():  # as csv.DictReader marks them
            raise ValueError(f"the row {next(iter(row.values()))!r:.80} has not a cell per column")
        values: dict[str, Any] = {}
        for column in fields(cls):
            cell, kind = row[column.name], column.type
            items = get_args(kind)  # of a tuple: the type of its items, and an ellipsis
            read: Any = items[0] if items else kind
            values[column.name] = tuple(map(read, cell.split())) if items else read(cell)
        return cls(**values)

    def to_row(self) -> dict[str, str]:
        """Write the cells of a table's row."""
        return {
            name: " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
            for name, value in asdict(self).items()
        }


@dataclass(frozen=True)
class Query:
    """What to search for; what is None or empty does not matter.

    Attributes:
        pattern: words that fit the name, each a part of it or a pattern with ``*`` and ``?``; small
            and capital letters are alike.
        strides: strides that the network itself must have.
        channels: channels that some map must have, one of these.
        min_params: fewest parameters.
        max_params: most parameters.
        min_gflops: fewest multiply-adds for 640 x 640, in 1e9.
        max_gflops: most of them.
        norm: as in `Entry`.
        kind: as in `Entry`.
        any_size: whether images must fit without tiles.
        pretrained: whether the library must have weights.
        licence: part of the licence's name.
        tag: part of a tag; small and capital letters are alike.
        library: as in `Entry`.
    """

    pattern: str = ""
    strides: tuple[int, ...] = ()
    channels: tuple[int, ...] = ()
    min_params: int | None = None
    max_params: int | None = None
    min_gflops: float | None = None
    max_gflops: float | None = None
    norm: str | None = None
    kind: str | None = None
    any_size: bool = False
    pretrained: bool = False
    licence: str | None = None
    tag: str | None = None
    library: str | None = None

    def matches(self, entry: Entry) -> bool:
        """Tell whether an architecture is searched for; one that could not be analysed is not."""
        return (
            all(_is_like(entry.name, word) for word in self.pattern.lower().split())
            and set(self.strides) <= set(entry.strides)
            and (not self.channels or bool(set(self.channels) & set(entry.channels)))
            and (self.min_params is None or entry.params >= self.min_params)
            and (self.max_params is None or entry.params <= self.max_params)
            and (self.min_gflops is None or entry.gflops >= self.min_gflops)
            and (self.max_gflops is None or entry.gflops <= self.max_gflops)
            and self.norm in (None, entry.norm)
            and self.kind in (None, entry.kind)
            and not (self.any_size and "tiles" in entry.sizes)
            and not (self.pretrained and not entry.tags)
            and (self.licence is None or self.licence.lower() in entry.licence.lower())
            and (self.tag is None or _some_has(entry.tags, self.tag))
            and self.library in (None, entry.library)
            and bool(entry.strides)
        )


@dataclass(frozen=True)
class Catalog:
    """The table and the versions of the libraries that it was made with."""

    entries: tuple[Entry, ...]
    versions: dict[str, str]

    def search(self, query: Query, sort: str = "params") -> list[Entry]:
        """Find architectures.

        Args:
            query: what to search for.
            sort: ``"params"``, ``"gflops"`` or ``"name"``, rising.

        Returns:
            Those that match, in that order.
        """
        found = [entry for entry in self.entries if query.matches(entry)]
        return sorted(found, key=lambda entry: (getattr(entry, sort), entry.name))

    def outdated(self) -> dict[str, str]:
        """Versions of the installed libraries that the table was not made with."""
        installed = {name: installed_version(name) for name in self.versions}
        return {n: v for n, v in installed.items() if v is not None and v != self.versions[n]}


def read_catalog(file: Path | None = None) -> Catalog:
    """Read the table.

    Args:
        file: a table; by default the one that was rebuilt on this machine, or else the package's.

    Returns:
        Its entries, in its order.

    Raises:
        ConfigError: there is no such table, or it is damaged.
    """
    file = file or _file_in_use()
    try:
        with file.open(newline="", encoding="utf-8") as stream:
            head = stream.readline().removeprefix("#").split(",")
            versions = dict(version.split() for version in head)
            return Catalog(tuple(map(Entry.from_row, csv.DictReader(stream))), versions)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, csv.Error) as error:
        raise ConfigError(
            f"the table of backbones {file} cannot be read ({type(error).__name__}: {error}): make "
            "it anew by `detrex backbones rebuild`."
        ) from error


def _file_in_use() -> Path:
    try:
        rebuilt = rebuilt_file()
    except RuntimeError:  # a user without a home has rebuilt nothing
        return packaged_file()
    return rebuilt if os.path.isfile(rebuilt) else packaged_file()


def write_catalog(entries: Iterable[Entry], file: Path) -> None:
    """Write a table with the versions of the installed libraries, whole or not at all.

    Args:
        entries: its rows.
        file: where to.
    """
    text = io.StringIO()
    text.write("# " + ", ".join(f"{name} {installed_version(name)}" for name in LIBRARIES) + "\n")
    writer = csv.DictWriter(text, [column.name for column in fields(Entry)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(entry.to_row() for entry in entries)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, lambda stream: stream.write(text.getvalue().encode()))


def packaged_file() -> Path:
    """The table that comes with the package."""
    return Path(str(resources.files("detrex.catalog"))) / FILE_NAME


def rebuilt_file() -> Path:
    """Where ``detrex backbones rebuild`` puts a table: detrex's cache folder."""
    return default_cache_dir() / FILE_NAME


def to_json(entries: Sequence[Entry]) -> str:
    """Entries as a JSON list of objects, one a line."""
    return "[\n" + ",\n".join(json.dumps(asdict(entry)) for entry in entries) + "\n]"


def _is_like(name: str, pattern: str) -> bool:
    if any(letter in pattern for letter in "*?["):
        return fnmatch.fnmatchcase(name, pattern)
    return pattern in name


def _some_has(tags: Iterable[str], part: str) -> bool:
    return any(part.lower() in tag.lower() for tag in tags)


def installed_version(library: str) -> str | None:
    """Version of a library without its local part, None where it is not installed."""
    try:
        return metadata.version(library).partition("+")[0]
    except metadata.PackageNotFoundError:
        return None
