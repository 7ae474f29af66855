"""The table made anew: every architecture of the installed libraries, analysed."""

import fnmatch
import logging
import multiprocessing
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from detrex.catalog.describe import describe_anew
from detrex.catalog.descriptions import FILE_NAME as DESCRIPTIONS
from detrex.catalog.descriptions import SIZE, write_descriptions
from detrex.catalog.table import Entry, packaged_file, read_catalog, rebuilt_file, write_catalog
from detrex.errors import ConfigError

# A worker is replaced now and then, for what it has imported and cached grows.
_TASKS_OF_A_WORKER = 100


def rebuild(output: Path | None, jobs: int, only: str, tell: Callable[[str], object]) -> str:
    """Make the table anew.

    Args:
        output: its file; by default one in detrex's cache, which searches then prefer.
        jobs: number of processes.
        only: pattern of the names to analyse; the other rows are kept as they are.
        tell: called with a line for each architecture that is done.

    Returns:
        A line on the whole table.

    Raises:
        ConfigError: no architecture has such a name.
    """
    output = output or rebuilt_file()
    wanted = [pair for pair in architectures() if fnmatch.fnmatchcase(pair[0], only)]
    if not wanted:
        raise ConfigError(f"no architecture is named like {only!r}: --only takes e.g. 'vit_*'.")
    known = {}
    if only != "*":
        files = [file for file in (output, packaged_file()) if os.path.isfile(file)]
        kept = read_catalog(files[0]).entries if files else ()
        known = {(entry.library, entry.name): entry for entry in kept}
    described = []
    for done, (entry, facts) in enumerate(survey_all(wanted, jobs), start=1):
        known[entry.library, entry.name] = entry
        if facts is not None:
            described.append((entry, facts))
        state = entry.reason or "ok"
        tell(f"{done:>5}/{len(wanted)} {entry.name:<44} {state}")
    write_catalog((known[key] for key in sorted(known)), output)
    write_descriptions(described, output.with_name(DESCRIPTIONS))
    good = sum(not entry.reason for entry in known.values())
    return f"{output}: {good} of {len(known)} architectures give res3, res4 and res5"


def architectures() -> list[tuple[str, str]]:
    """Names and libraries of all architectures but timm's tiny ones for its own tests."""
    import timm
    import torchvision

    ours = [(name, "timm") for name in timm.list_models() if not name.startswith("test_")]
    theirs = torchvision.models.list_models(module=torchvision.models)
    return ours + [(name, "torchvision") for name in theirs]


def survey_all(
    wanted: Sequence[tuple[str, str]], jobs: int
) -> Iterator[tuple[Entry, dict[str, Any] | None]]:
    """Analyse architectures in processes of their own.

    Args:
        wanted: names and libraries.
        jobs: number of processes.

    Yields:
        A row of the catalog for each, in their order, and its description where it has one.
    """
    spawn = multiprocessing.get_context("spawn")
    with spawn.Pool(jobs, initializer=_quiet, maxtasksperchild=_TASKS_OF_A_WORKER) as pool:
        yield from pool.imap(_survey, wanted)


def entry_of(row: dict[str, Any]) -> Entry:
    """Join what was seen of an architecture with the weights that its library knows.

    Args:
        row: as from `detrex.catalog.analysis.survey`.

    Returns:
        A row of the catalog.
    """
    tags, licence = weights_of(row["name"], row["library"])
    if "strides" not in row:
        return Entry(row["name"], row["library"], tags=tags, licence=licence, reason=row["reason"])
    return Entry(
        name=row["name"],
        library=row["library"],
        kind=row["kind"],
        strides=tuple(row["strides"]),
        channels=tuple(row["channels"]),
        norm=row["norm"],
        params=row["params"],
        gflops=row["gflops"],
        sizes=_sizes(row["multiple"], row["tile"]),
        mean=tuple(row["mean"]),
        std=tuple(row["std"]),
        tags=tags,
        licence=licence,
        reason=row["reason"],
    )


def weights_of(name: str, library: str) -> tuple[tuple[str, ...], str]:
    """Names of an architecture's pretrained weights, and the licence of the first.

    Args:
        name: architecture.
        library: ``"timm"`` or ``"torchvision"``.

    Returns:
        Tags of timm that have weights, the default first, or members of torchvision's enum; and
        the licence that timm states, empty where none is.
    """
    if library == "torchvision":
        import torchvision

        enum = torchvision.models.get_model_weights(name)
        return tuple(member.name for member in enum), ""
    import timm

    from detrex.modeling.backbone.timm_backbone.weights import tags

    default = timm.models.get_pretrained_cfg(name)
    first = default.tag if default is not None else ""
    ordered = sorted(filter(None, tags(name)), key=lambda tag: (tag != first, tag))
    return tuple(ordered), str(getattr(default, "license", None) or "") if ordered else ""


def _sizes(multiple: int, tile: Sequence[int] | None) -> str:
    if tile:
        return f"{tile[0]}x{tile[1]} tiles"
    return f"x{multiple}" if multiple > 1 else "any"


def _survey(wanted: tuple[str, str]) -> tuple[Entry, dict[str, Any] | None]:
    from detrex.catalog.analysis import survey

    entry = entry_of(survey(*wanted))
    return entry, describe_anew(entry, SIZE) if entry.strides else None


def _quiet() -> None:
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
