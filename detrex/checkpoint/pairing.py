"""Bring the names in a weights file together with those of a module.

One translation is chosen for the whole file: a family of names (see `key_families`), one prefix
taken off and one put on. Of all that are possible the one under which most tensors agree in name
and shape wins. A tensor is never placed by the end of its name alone, so that a classifier's
``norm.weight`` cannot land in a decoder's.
"""

import re
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from detrex.checkpoint.key_families import FAMILIES, flat, same

PREFIXES = ("backbone.", "model.", "encoder.", "module.", "timm_model.", "timm_model.model.")

# A prefix that fewer than this share of the module's tensors have cannot make a file fit.
_LEAST_SHARE = 0.25
_COUNTER = "num_batches_tracked"
_BLOCK = re.compile(r"\.\d+(?=\.)")


@dataclass(frozen=True)
class Pairing:
    """Names of a module and of a file, paired by a translation.

    Attributes:
        family: the family of names.
        strip: the prefix taken off the file's names.
        add: the module's prefix put on.
        pairs: name in the file by name in the module.
        score: the number of pairs of equal shape, counters of batches left out.
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


def best_pairing(
    wanted: Mapping[str, Tensor],
    state_dict: Mapping[str, Tensor],
    prefixes: Sequence[str] = PREFIXES,
) -> Pairing:
    """Pair the names under which most tensors fit.

    Args:
        wanted: the module's tensors by name.
        state_dict: the file's.
        prefixes: prefixes to try beside those that lead a good part of the names.

    Returns:
        The pairing; shapes in it may differ.
    """
    best = max(
        _pairings(wanted, state_dict, prefixes),
        key=lambda p: (p.score, len(p.pairs), -len(p.strip) - len(p.add)),
    )
    if 2 * best.score < len(without_counters(wanted)):
        return _by_order(wanted, state_dict) or best
    return best


def _pairings(
    wanted: Mapping[str, Tensor], state_dict: Mapping[str, Tensor], prefixes: Sequence[str]
) -> Iterator[Pairing]:
    """Try every family with every pair of prefixes; stop at one by which everything fits."""
    total = len(without_counters(wanted))
    targets = {
        add: _Tails({name: name for name in wanted}, add)
        for add in _common_prefixes(wanted, _LEAST_SHARE * total, prefixes)
    }
    for family, rename in FAMILIES.items():
        renamed = {rename(name): name for name in state_dict}
        if rename is not same and renamed.keys() == state_dict.keys():
            continue
        for strip in _common_prefixes(renamed, _LEAST_SHARE * total, prefixes):
            origins = _Tails(renamed, strip)
            for add, target in targets.items():
                pairs = target.pairs_with(origins)
                fitting = [n for n, o in pairs.items() if wanted[n].shape == state_dict[o].shape]
                score = len(without_counters(fitting))
                yield Pairing(family, strip, add, pairs, score)
                if score == total:
                    return


class _Tails:
    """Names without a prefix, to look up exactly or without regard to their separators."""

    def __init__(self, names: Mapping[str, str], prefix: str) -> None:
        start = len(prefix)
        self.exact = {n[start:]: origin for n, origin in names.items() if n.startswith(prefix)}
        spelt = Counter(map(flat, self.exact))
        self.flat = {flat(n): o for n, o in self.exact.items() if spelt[flat(n)] == 1}

    def pairs_with(self, origins: "_Tails") -> dict[str, str]:
        """Pair these names with those of a file, in this side's order."""
        by_flat = {n: origins.flat[key] for key, n in self.flat.items() if key in origins.flat}
        return by_flat | {n: origins.exact[t] for t, n in self.exact.items() if t in origins.exact}


def _common_prefixes(names: Iterable[str], least: float, known: Sequence[str]) -> list[str]:
    """List the dotted prefixes of at least ``least`` names, and the known ones, short first."""
    counts = Counter(
        name[: i + 1] for name in names for i, letter in enumerate(name) if letter == "."
    )
    common = [p for p, count in counts.items() if count >= least or p in known]
    return ["", *sorted(common, key=len)]


def _by_order(wanted: Mapping[str, Tensor], state_dict: Mapping[str, Tensor]) -> Pairing | None:
    """Pair by position, where each of the module's tensors meets one of the same kind and shape.

    torchvision and timm build many networks (MobileNetV2, EfficientNet) from the same layers in the
    same order under unrelated names. What the file has after the last of them is a head.
    """
    ours, theirs = without_counters(wanted), without_counters(state_dict)
    if not 0 < len(ours) <= len(theirs):
        return None
    pairs = dict(zip(ours, theirs, strict=False))
    kinds = ((name.rpartition(".")[2], origin.rpartition(".")[2]) for name, origin in pairs.items())
    if any(ours != theirs for ours, theirs in kinds):
        return None
    if any(wanted[name].shape != state_dict[origin].shape for name, origin in pairs.items()):
        return None
    return Pairing("order, as every shape agrees", "", "", pairs, len(pairs))


def without_counters(names: Iterable[str]) -> list[str]:
    """Leave out batch norms' counters of batches, which are no weights."""
    return [name for name in names if not name.endswith(_COUNTER)]


def skipped_blocks(state_dict: Iterable[str], used: Container[str]) -> list[str]:
    """Find sequences of blocks of which the file has more than the module, in its midst.

    Args:
        state_dict: the file's names, in order.
        used: those that are paired.

    Returns:
        Names of the sequences, such as ``"layer3."`` where a file of ResNet-101 is paired with a
        ResNet-50; none where the file merely goes on after the module's end.
    """
    begun: set[str] = set()
    waiting: dict[str, None] = {}
    found: dict[str, None] = {}
    for name in without_counters(state_dict):
        parents = {name[: m.start() + 1] for m in _BLOCK.finditer(name)}
        if name in used:
            found |= {parent: None for parent in waiting if not name.startswith(parent)}
            begun |= parents
        else:
            waiting |= dict.fromkeys(sorted(parents & begun))
    return list(found)
