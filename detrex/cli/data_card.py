"""What ``detrex check`` says of a config's data: images, objects by class and size, findings."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from detrex.data.coco.classes import class_names
from detrex.data.coco.document import Document
from detrex.data.coco.inspection import has_errors
from detrex.data.consistency import check_consistent
from detrex.data.datasets import check_num_classes
from detrex.data.preparation import check_other_sets, inspect_data, require_objects
from detrex.errors import DetrexError, printable

_SIZES = {"small": 32**2, "medium": 96**2}  # COCO's bounds, in square pixels
_MOST_CLASSES = 100


@dataclass
class SetCard:
    """What was seen of one annotation file.

    Attributes:
        side: ``"train"`` or ``"test"``.
        name: what the data set is registered as.
        file: the annotations.
        images: their number.
        empty_images: of which without objects.
        objects: number of objects that are trained on or evaluated.
        crowds: number of crowd regions, which are not.
        left_out: number of annotations that cannot be used.
        classes: objects by class, in the order of the model.
        sizes: objects by COCO's small, medium and large.
        mended: what was mended, left out or filled in, one line each.
    """

    side: str
    name: str
    file: str
    images: int = 0
    empty_images: int = 0
    objects: int = 0
    crowds: int = 0
    left_out: int = 0
    classes: dict[str, int] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    mended: list[str] = field(default_factory=list)


def inspect_data_sets(cfg: Any) -> tuple[list[SetCard], list[str]]:
    """Read the data sets of a config, and count what is in them.

    Args:
        cfg: the whole config.

    Returns:
        A card for each data set in COCO's format that has no mistake, and the mistakes of all, one
        sentence each.
    """
    cards, mistakes = [], []
    try:
        sets = inspect_data(cfg)
    except DetrexError as error:
        return [], [str(error)]
    except Exception as error:  # a call in the config that fails
        return [], [f"the data sets cannot be read: {str(error).strip().splitlines()[0]}"]
    for side, pairs in sets.items():
        try:
            check_other_sets(cfg, side)
        except DetrexError as error:
            mistakes.append(str(error))
        for dataset, document in pairs:
            if has_errors(document):
                mistakes += [f.message for f in document.findings if f.severity == "error"]
                continue
            try:
                check_consistent(cfg, dataset, document, side)
                check_num_classes(dataset.name, class_names(document), dataset.num_classes)
                require_objects(document, side)
            except DetrexError as error:
                mistakes.append(str(error))
            cards.append(_card(side, dataset.name, document))
    return cards, mistakes


def _card(side: str, name: str, document: Document) -> SetCard:
    kept = document.kept
    crowd = np.array([a["iscrowd"] == 1 for a in document.annotations], dtype=bool)
    place = {c["id"]: i for i, c in enumerate(sorted(document.categories, key=lambda c: c["id"]))}
    objects = np.flatnonzero(kept & ~crowd)
    classes = [place[document.annotations[i]["category_id"]] for i in objects]
    areas = np.array([document.annotations[i]["area"] for i in objects], dtype=float)
    counts = np.bincount(np.array(classes, dtype=int), minlength=len(place)).tolist()
    sizes = np.digitize(areas, list(_SIZES.values()))
    return SetCard(
        side=side,
        name=name,
        file=document.path,
        images=len(document.images),
        empty_images=len(document.images) - len(set(document.image_index[objects].tolist())),
        objects=len(objects),
        crowds=int((kept & crowd).sum()),
        left_out=int((~kept).sum()),
        classes=dict(zip(class_names(document), counts, strict=True)),
        sizes={n: int((sizes == i).sum()) for i, n in enumerate([*_SIZES, "large"])},
        mended=[f.message for f in document.findings],
    )


def text_of_cards(cards: Sequence[SetCard]) -> list[str]:
    """Lay out the cards for a terminal.

    Args:
        cards: from `inspect_data_sets`.

    Returns:
        Lines: the data sets side by side, then what was mended in each.
    """
    if not cards:
        return []
    rows: list[list[Any]] = [
        ["", *(card.side for card in cards)],
        ["images", *(card.images for card in cards)],
        ["  without objects", *(card.empty_images for card in cards)],
        ["objects", *(card.objects for card in cards)],
        *(["  " + size, *(card.sizes[size] for card in cards)] for size in cards[0].sizes),
        ["crowd regions", *(card.crowds for card in cards)],
        ["left out", *(card.left_out for card in cards)],
    ]
    names = list(cards[0].classes)
    rows += [
        [f"  {i} {printable(name)}", *(card.classes.get(name, 0) for card in cards)]
        for i, name in enumerate(names[:_MOST_CLASSES])
    ]
    lines = [f"{card.side}: {card.name}, {card.file}" for card in cards]
    widest = max(len(str(row[0])) for row in rows)
    lines += [str(r[0]).ljust(widest) + "".join(f"{value:>12}" for value in r[1:]) for r in rows]
    if len(names) > _MOST_CLASSES:
        more = len(names) - _MOST_CLASSES
        lines.append(f"  and {more} more classes (`detrex data CONFIG --json` prints all)")
    return lines + [f"mended: {line}" for card in cards for line in card.mended]


def text_of_mistakes(mistakes: Sequence[str]) -> list[str]:
    """Lay out how many mistakes there are, and each with its number, in lines.

    Args:
        mistakes: one sentence each.
    """
    count = len(mistakes)
    head = f"{count or 'no'} mistake{'s' if count != 1 else ''} found"
    return [head, *(f"{number:>3}. {text}" for number, text in enumerate(mistakes, start=1))]
