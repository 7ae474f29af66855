"""A backbone by its name, as a node of a config that a person can read."""

import os
from dataclasses import dataclass
from pathlib import Path

from detrex.catalog.table import LIBRARIES, Entry, read_catalog
from detrex.checkpoint.download import is_address
from detrex.errors import BackboneError, CheckpointError, did_you_mean


@dataclass(frozen=True)
class Choice:
    """What is written into a config.

    Attributes:
        entry: the architecture in the catalog.
        name: its name in the library, with a tag of timm's where one was asked for.
        weights: True for the library's, a file or an address, None for random ones.
    """

    entry: Entry
    name: str
    weights: bool | str | None

    def arguments(self, freeze_at: int) -> dict[str, object]:
        """Keywords of the node.

        Args:
            freeze_at: stages to freeze, where there are weights.

        Returns:
            Those that differ from the class's own.
        """
        found: dict[str, object] = {"model_name": self.name, "weights": self.weights}
        if self.weights and self.entry.norm == "batch":
            found["frozen_norm"] = True
        if self.weights and freeze_at:
            found["freeze_at"] = freeze_at
        return found

    def told(self) -> str:
        """Say in a line where the weights come from."""
        if self.weights is True:
            first = self.name.partition(".")[2] or self.entry.tags[0]
            return (
                f"{self.entry.library}'s weights {first}, fetched when training starts and kept; "
                "without a connection name a file by --weights FILE, or begin with --weights none"
            )
        return str(self.weights) if self.weights else "none: it begins with random ones"


def choose(name: str, weights: str = "auto") -> Choice:
    """Find a backbone and its weights.

    Args:
        name: of timm or torchvision, with or without a tag of timm's; ``"torchvision/resnet50"``
            says which library is meant where both have it, which is else timm.
        weights: ``"auto"`` for the library's where it has some, ``"none"``, a file, or an address.

    Returns:
        The choice.

    Raises:
        BackboneError: there is no such network, no such tag, or it gives no feature maps.
        CheckpointError: the file of weights is not there.
    """
    library, _, rest = name.rpartition("/")
    entries = read_catalog().entries
    if library and library not in LIBRARIES:
        raise BackboneError(f"{name!r:.80} names a library that is not {' or '.join(LIBRARIES)}.")
    names = {entry.name: entry for entry in reversed(entries) if library in ("", entry.library)}
    base, _, tag = rest.partition(".")
    entry = names.get(rest) or names.get(base)
    if entry is None:
        raise BackboneError(
            f"there is no backbone {name!r:.80} among the {len(names)} of "
            f"{library or 'timm and torchvision'}."
            + (did_you_mean(base, names) or " `detrex backbones` searches them.")
        )
    if entry.name != rest and tag not in entry.tags:
        raise BackboneError(
            f"{entry.name} has no weights {tag!r:.60}."
            + (did_you_mean(tag, entry.tags) or f" It has {', '.join(entry.tags[:5]) or 'none'}.")
        )
    if not entry.strides:
        raise BackboneError(
            f"{entry.name} of {entry.library} cannot be a backbone: {entry.reason or 'no maps'}."
        )
    return Choice(entry, rest, _weights(entry, weights))


def _weights(entry: Entry, weights: str) -> bool | str | None:
    if weights == "auto":
        return True if entry.tags else None
    if weights == "none":
        return None
    if is_address(weights):
        return weights
    file = weights.partition("#")[0]
    if not os.path.exists(file):
        raise CheckpointError(
            f"there is no file of weights {weights!r:.200} in {Path.cwd()}: expected auto, none, a "
            "file or an address."
        )
    return os.path.abspath(file) + weights[len(file) :]
