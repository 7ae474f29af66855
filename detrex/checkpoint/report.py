"""What became of the tensors when weights were loaded into a module."""

import re
from collections import Counter
from dataclasses import dataclass

_MOST_EXAMPLES = 4
_LONGEST = 120
# The second are norms that transformers puts over the maps of a network, and no classifier has.
_PYRAMID = re.compile(r"(^|\.)(pyramid|hidden_states_norms)\.")


def examples(names: tuple[str, ...] | list[str], most: int = _MOST_EXAMPLES) -> str:
    """Write out a few names, and how many more there are."""
    short = (
        name if len(name) <= _LONGEST else f"{name[: _LONGEST - 3]}..." for name in names[:most]
    )
    shown = ", ".join(map(repr, short))
    rest = len(names) - most
    return f"{shown} and {rest} more" if rest > 0 else shown or "none"


def is_of_pyramid(name: str) -> bool:
    """Tell a tensor of the levels that a backbone makes itself from those of its network."""
    return _PYRAMID.search(name) is not None


@dataclass(frozen=True)
class LoadReport:
    """What became of every tensor of a module and of a weights file.

    Counters of batches (``num_batches_tracked``) are no weights: they are copied where both sides
    have them, and otherwise counted nowhere.

    Attributes:
        source: the file, as the user named it.
        matched: the module's tensors that got a value, `resized` and `adapted` ones among them.
        missing: the module's tensors for which the file has nothing.
        unexpected: the file's tensors that the module has no place for, such as a classifier.
        mismatched: the module's tensors whose namesake in the file has another shape; they are
            left as they were.
        shapes: for each of ``mismatched``, the shape in the file and in the module.
        names: by which translation of names the two were brought together.
        resized: position embeddings that were resampled for another size of image or window.
        adapted: kernels that were adapted to another number of image channels.
        cut_short: sequences of blocks of which the file has more, in its midst, than the module;
            it is then of a deeper network.
        foreign: the file's tensors in blocks that are used otherwise; it is then of another kind
            of network.
        inputs: the module's kernels that see the image.
        part: the module's name in the detector, where a part of it alone was filled.
    """

    source: str
    matched: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[str, ...]
    shapes: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...] = ()
    names: str = "same names"
    resized: tuple[str, ...] = ()
    adapted: tuple[str, ...] = ()
    cut_short: tuple[str, ...] = ()
    foreign: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    part: str = ""

    @property
    def is_plain(self) -> bool:
        """Whether the file is of the network alone, without the pyramid that the module has."""
        has = any(is_of_pyramid(name) for name in (*self.matched, *self.mismatched))
        return not has and any(is_of_pyramid(name) for name in self.missing)

    @property
    def lacking(self) -> dict[str, tuple[str, ...]]:
        """The module's tensors that got no value, by kind: network, input layer, pyramid."""
        kinds: dict[str, list[str]] = {"network": [], "input layer": [], "pyramid": []}
        for name in (*self.missing, *self.mismatched):
            kind = "input layer" if name in self.inputs else "network"
            kinds["pyramid" if is_of_pyramid(name) else kind].append(name)
        return {kind: tuple(names) for kind, names in kinds.items()}

    @property
    def total(self) -> int:
        """The number of the module's tensors; without the pyramid for a file without one."""
        missing = len(self.missing)
        if self.is_plain:
            missing -= len(self.lacking["pyramid"])
        return len(self.matched) + missing + len(self.mismatched)

    @property
    def share(self) -> float:
        """The share of the module's tensors that got a value, from 0 to 1."""
        return len(self.matched) / self.total if self.total else 0.0

    @property
    def exact(self) -> tuple[str, ...]:
        """The module's tensors that got a value as it is in the file."""
        changed = {*self.resized, *self.adapted}
        return tuple(name for name in self.matched if name not in changed)

    def summary(self) -> str:
        """Say in one line how much was loaded and how the names were brought together."""
        kinds = {"resized": self.resized, "adapted": self.adapted}
        changed = "".join(
            f", {len(names)} of them {kind}" for kind, names in kinds.items() if names
        )
        lacking = {kind: len(names) for kind, names in self.lacking.items() if names}
        missing = str(len(self.missing))
        if lacking.keys() - {"network"}:
            missing += f" ({', '.join(f'{kind} {count}' for kind, count in lacking.items())})"
        return (
            f"{self.source}: {len(self.matched)} of {self.total} tensors loaded by {self.names}"
            f"{changed}; "
            f"missing {missing}, of another shape {len(self.mismatched)}, "
            f"unused in the file {len(self.unexpected)}"
        )

    def table(self) -> str:
        """Count the tensors of each part of the module, one line a part.

        Returns:
            A table with the columns part, matched, missing, mismatched; parts are named by the
            names' first component, or first two where there is one first component only.
        """
        kinds = (self.matched, self.missing, self.mismatched)
        heads = {name.split(".")[0] for kind in kinds for name in kind}
        depth = 1 if len(heads) > 1 else 2
        counts = [Counter(".".join(n.split(".")[:depth]) for n in kind) for kind in kinds]
        parts = list(dict.fromkeys(part for count in counts for part in count))
        rows = [["part", "matched", "missing", "mismatched"]]
        rows += [[part, *(str(count[part]) for count in counts)] for part in parts]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join(
            "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])])
            for row in rows
        )
