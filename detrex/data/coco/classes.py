"""Classes: one name each, and the same order of names in training and validation."""

from collections import defaultdict
from collections.abc import Sequence

from detrex.data.coco.document import Document, is_writable, listed, shorten
from detrex.errors import did_you_mean


def _is_name(name: object) -> bool:
    return isinstance(name, str) and bool(name.strip()) and is_writable(name)


def check_names(document: Document) -> None:
    """Check that every category has a name of its own; numbers are read as texts.

    Args:
        document: ``categories`` are mended in place.
    """
    if not document.categories:
        document.tell("error", "no-categories", "categories is empty", "list the classes")
        return
    names = document.column("categories", "name")
    numbers = [i for i, name in enumerate(names) if type(name) is int]
    document.report(
        *("warning", "category-name-number", "categories"),
        numbers,
        "name is a number",
        "it was read as a text",
        ["name"],
    )
    for position in numbers:
        document.categories[position]["name"] = str(names[position])
        document.changed = True
    names = document.column("categories", "name")
    padded = [i for i, n in enumerate(names) if type(n) is str and n != n.strip() and n.strip()]
    document.report(
        *("warning", "category-name-space", "categories"),
        padded,
        "name has blanks around it",
        "they were taken away",
        ["name"],
    )
    for position in padded:
        document.categories[position]["name"] = names[position].strip()
        document.changed = True
    names = document.column("categories", "name")
    bad = [i for i, name in enumerate(names) if not _is_name(name)]
    document.report(
        *("error", "category-name", "categories"),
        bad,
        "name is missing, or no text that can be written",
        "give each class a name",
        ["name"],
    )
    ids_of = defaultdict(list)
    for name, key in zip(names, document.column("categories", "id"), strict=True):
        if type(name) is str:
            ids_of[name].append(key)
    for name, ids in ids_of.items():
        if len(ids) > 1:
            document.tell(
                *("error", "category-name-twice"),
                f"{len(ids)} categories are named {shorten(name)} (ids {listed(ids)})",
                "merge them, or give each a name of its own",
                len(ids),
            )


def class_names(document: Document) -> list[str]:
    """Return the names in the order in which a model numbers them: that of the categories' ids."""
    return [c["name"] for c in sorted(document.categories, key=lambda c: c["id"])]


def align(document: Document, classes: Sequence[str], source: str) -> None:
    """Bring the categories into the order of other classes, by their names.

    A category without objects that the others do not have is taken away; one with objects is an
    error.

    Args:
        document: after all checks; ``categories`` and ``annotations`` are mended in place.
        classes: the names in the order in which the model numbers them.
        source: where they are from, to be named.
    """
    own = class_names(document)
    if own == list(classes):
        return
    used = {annotation["category_id"] for annotation in document.kept_annotations()}
    theirs, ours = set(classes), set(own)
    strange = [c for c in document.categories if c["name"] not in theirs]
    if any(c["id"] in used for c in strange):
        names = [c["name"] for c in strange if c["id"] in used]
        lacking = [name for name in classes if name not in ours]
        document.tell(
            *("error", "class-unknown"),
            f"it has objects of {listed(names)}, which {source} does not know "
            f"(only there: {listed(lacking) or 'none'}; in both: "
            f"{listed([n for n in own if n in theirs], 3) or 'none'})",
            f"name the classes alike.{did_you_mean(names[0], lacking)}".rstrip(".?"),
            len(names),
        )
        return
    number = {name: i for i, name in enumerate(classes, start=1)}
    new_id = {c["id"]: number.get(c["name"]) for c in document.categories}
    for annotation in document.annotations:
        annotation["category_id"] = new_id.get(annotation["category_id"])
    known = {c["name"]: c for c in document.categories}
    document.categories = [{**known.get(n, {"name": n}), "id": i} for n, i in number.items()]
    document.changed = True
    added = [name for name in classes if name not in ours]
    changes = f", added {listed(added, 3)}" if added else ""
    changes += f", without {listed([c['name'] for c in strange], 3)}" if strange else ""
    document.tell(
        *("warning", "class-order"),
        f"its classes are {listed(own, 3)}, and those of {source} {listed(classes, 3)}",
        f"brought together by name{changes}",
        len(own),
    )
