"""Bring the names in a weights file together with those of a module.

One translation is chosen for the whole file: a family of names (see `key_families`), one prefix
taken off and one put on. Of all that are possible the one under which most tensors agree in name
and shape wins. A tensor is never placed by the end of its name alone, so that a classifier's
``norm.weight`` cannot land in a decoder's, and never by its position, since tensors of equal shapes
come in another order, and with other constants beside them, in another library.
"""

import dataclasses
import logging
import re
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from detrex.checkpoint.matching.key_conversion import KEY_CONVERSIONS, flat, same
from detrex.checkpoint.reading.entries import AVERAGE
from detrex.checkpoint.report import is_of_pyramid
from detrex.errors import CheckpointError

logger = logging.getLogger(__name__)

PREFIXES = ("backbone.", "model.", "encoder.", "module.", "timm_model.", "timm_model.model.")

# A prefix that fewer than this share of the module's tensors have cannot make a file fit.
_LEAST_SHARE = 0.25
_NO_WEIGHT = re.compile(r"num_batches_tracked$|\brope\w*\.freqs_(?:cos|sin)$")
_WRAPPERS = re.compile(r"\b(module|_orig_mod)\.")
_BLOCK = re.compile(r"\.\d+(?=\.)")
_TABLES = re.compile(r"mask|relative_|coords|index|rope|freqs|k_bias")


@dataclass(frozen=True)
class KeyMatch:
    """Names of a module and of a file, paired by a translation.

    Attributes:
        family: the family of names.
        strip: the prefix taken off the file's names.
        add: the module's prefix put on.
        pairs: name in the file by name in the module.
        score: the number of weights of equal shape.
    """

    family: str
    strip: str
    add: str
    pairs: Mapping[str, str]
    score: int

    def __str__(self) -> str:
        parts = [self.family]
        if self.strip:
            parts.append(f"{self.strip!r} taken off")
        if self.add:
            parts.append(f"{self.add!r} put on")
        return ", ".join(parts)


def best_match(
    wanted: Mapping[str, Tensor],
    state_dict: Mapping[str, Tensor],
    prefixes: Sequence[str] = PREFIXES,
    source: str = "the file",
) -> KeyMatch:
    """Pair the names under which most tensors fit.

    Args:
        wanted: the module's tensors by name.
        state_dict: the file's.
        prefixes: prefixes to try beside those that lead a good part of the names.
        source: how to call the file in an error.

    Returns:
        The pairing; shapes in it may differ.

    Raises:
        CheckpointError: the file holds several networks that fit equally well.
    """
    ours, theirs = _Unwrapped(wanted), _Unwrapped(state_dict)
    found = list(_matches(ours.tensors, theirs.tensors, prefixes))
    best = max(found, key=lambda p: (p.score, len(p.pairs), -len(p.strip) - len(p.add)))
    if 2 * best.score >= len(weight_names(n for n in wanted if not is_of_pyramid(n))):
        best = _of_one_network(best, found, theirs.tensors, source)
    names = {ours.names[name]: theirs.names[origin] for name, origin in best.pairs.items()}
    return dataclasses.replace(best, pairs=names)


class _Unwrapped:
    """Tensors without the wrappers' parts in their names, where they stay different."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        bare = {_WRAPPERS.sub("", name): name for name in tensors}
        self.names = bare if len(bare) == len(tensors) else {name: name for name in tensors}
        self.tensors = {name: tensors[origin] for name, origin in self.names.items()}


def _of_one_network(
    best: KeyMatch, found: Sequence[KeyMatch], state_dict: Mapping[str, Tensor], source: str
) -> KeyMatch:
    """Choose among networks that fit equally well under different prefixes of one file.

    A network that is there without a prefix is meant, and of others an average.
    """
    if not best.strip:
        return best
    rivals = {
        p.strip: p
        for p in found
        if (p.family, p.add, p.score) == (best.family, best.add, best.score)
        and not _same_values(best.pairs, p.pairs, state_dict)
    }
    if not rivals:
        return best
    rivals[best.strip] = best
    averages = [prefix for prefix in rivals if AVERAGE.search(prefix)]
    if len(averages) == 1:
        logger.info("%s: of %s the average is taken", source, " and ".join(map(repr, rivals)))
        return rivals[averages[0]]
    raise CheckpointError(
        f"{source} holds {len(rivals)} networks that fit, under "
        f"{', '.join(repr(prefix) for prefix in list(rivals)[:6])}: name the one wanted behind the "
        f"file, as in '#{best.strip.rstrip('.')}'"
    )


def _same_values(
    pairs: Mapping[str, str], others: Mapping[str, str], state_dict: Mapping[str, Tensor]
) -> bool:
    """Whether two pairings give every tensor the same values."""
    return pairs.keys() == others.keys() and all(
        origin == others[name] or torch.equal(state_dict[origin], state_dict[others[name]])
        for name, origin in pairs.items()
    )


def _matches(
    wanted: Mapping[str, Tensor], state_dict: Mapping[str, Tensor], prefixes: Sequence[str]
) -> Iterator[KeyMatch]:
    """Try every family with every pair of prefixes; stop at a family by which everything fits."""
    total = len(weight_names(wanted))
    adds = _common_prefixes(wanted, _LEAST_SHARE * total, prefixes)
    targets = _tails({name: name for name in wanted}, adds)
    complete = False
    for family, rename in KEY_CONVERSIONS.items():
        if complete:
            return
        renamed = {rename(name): name for name in state_dict}
        if rename is not same and renamed.keys() == state_dict.keys():
            continue
        strips = _common_prefixes(renamed, _LEAST_SHARE * total, prefixes)
        for strip, origins in _tails(renamed, strips).items():
            for add, target in targets.items():
                pairs = target.pairs_with(origins)
                fitting = [n for n, o in pairs.items() if wanted[n].shape == state_dict[o].shape]
                score = len(weight_names(fitting))
                yield KeyMatch(family, strip, add, pairs, score)
                complete = complete or score == total


class _Tails:
    """Names without a prefix, to look up exactly or without regard to their separators."""

    def __init__(self, exact: Mapping[str, str]) -> None:
        self.exact = exact
        spelt = Counter(map(flat, self.exact))
        self.flat = {flat(n): n for n in self.exact if spelt[flat(n)] == 1}

    def pairs_with(self, origins: "_Tails") -> dict[str, str]:
        """Pair these names with those of a file, in this side's order."""
        pairs = {}
        for tail, name in self.exact.items():
            spelt = tail
            if tail not in origins.exact and flat(tail) in self.flat:
                spelt = origins.flat.get(flat(tail), tail)
            if spelt in origins.exact and (spelt == tail or _differ_in_head(tail, spelt)):
                pairs[name] = origins.exact[spelt]
        return pairs


def _tails(names: Mapping[str, str], prefixes: Sequence[str]) -> dict[str, _Tails]:
    """Take prefixes off names, in one walk through the names: there may be thousands of both.

    Args:
        names: what they stand for by name.
        prefixes: an empty one, and others that end in a dot.

    Returns:
        For each prefix the names that have it, in their order.
    """
    found: dict[str, dict[str, str]] = {prefix: {} for prefix in prefixes}
    for name, origin in names.items():
        for start in _starts(name):
            if (tails := found.get(name[:start])) is not None:
                tails[name[start:]] = origin
    return {prefix: _Tails(tails) for prefix, tails in found.items()}


def _starts(name: str) -> list[int]:
    """Where a name's tails begin: at its beginning, and after each dot."""
    return [0, *(i + 1 for i, letter in enumerate(name) if letter == ".")]


def _differ_in_head(name: str, other: str) -> bool:
    """Whether two spellings differ in the separators of one name's first part alone.

    timm's feature networks join the first parts of their classifier's names: ``stages_0.`` for
    ``stages.0.``; ``a.b_c`` for ``a.b.c`` is another tensor.
    """
    return any(
        long.endswith(short[len(short.partition(".")[0]) :])
        for short, long in ((name, other), (other, name))
    )


def _common_prefixes(names: Iterable[str], least: float, known: Sequence[str]) -> list[str]:
    """List the dotted prefixes of at least ``least`` names, and the known ones, short first."""
    counts = Counter(name[:start] for name in names for start in _starts(name)[1:])
    common = [p for p, count in counts.items() if count >= least or p in known]
    return ["", *sorted(common, key=len)]


def weight_names(names: Iterable[str]) -> list[str]:
    """Leave out what is no weight: batch norms' counters of batches, and rotary tables."""
    return [name for name in names if not _NO_WEIGHT.search(name)]


def skipped_blocks(state_dict: Iterable[str], used: Iterable[str]) -> list[str]:
    """Find sequences of blocks of which the file has more than the module, in its midst.

    Args:
        state_dict: the file's names, in any order.
        used: those that are paired, in the order of the module.

    Returns:
        Names of the sequences, such as ``"layer3."`` where a file of ResNet-101 is paired with a
        ResNet-50; none where the file merely goes on after the module's end.
    """
    names = weight_names(used)
    places = [(place, m) for place, name in enumerate(names) for m in _BLOCK.finditer(name)]
    blocks = {m.string[: m.end() + 1] for _, m in places}
    last = {m.string[: m.start() + 1]: place for place, m in places}
    found = {
        sequence: None
        for name in weight_names(state_dict)
        for m in _BLOCK.finditer(name)
        if name[: m.end() + 1] not in blocks
        and last.get(sequence := name[: m.start() + 1], len(names)) < len(names) - 1
    }
    return list(found)


def foreign_names(state_dict: Mapping[str, Tensor], used: Container[str]) -> list[str]:
    """Find tensors within used blocks that the module has no place for.

    Args:
        state_dict: the file's tensors.
        used: names of those that are paired.

    Returns:
        Names such as ``"layer1.0.se.fc1.weight"``, where a file of SE-ResNet is paired with a
        ResNet; none where fewer than half of the used blocks have such, as where a network is cut
        within a block. Indices, masks and rotary tables are no weights.
    """
    blocks: dict[str, list[str]] = {}
    begun: set[str] = set()
    for name in weight_names(state_dict):
        numbers = list(_BLOCK.finditer(name))
        if not numbers:
            continue
        block = name[: numbers[-1].end()]
        if name in used:
            begun.add(block)
        elif state_dict[name].is_floating_point() and not _TABLES.search(name):
            blocks.setdefault(block, []).append(name)
    found = [block for block in blocks if block in begun]
    if 2 * len(found) < len(begun):
        return []
    return [name for block in found for name in blocks[block]]
