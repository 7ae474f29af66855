"""One annotation file in memory, what was found in it, and how a finding is told."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from detrex.errors import DataError

Record = dict[str, Any]
Severity = Literal["error", "warning", "note"]
Part = Literal["images", "annotations", "categories"]

_LONGEST_VALUE = 60


@dataclass(frozen=True)
class Finding:
    """Something about an annotation file that its user should know.

    Attributes:
        file: the annotation file.
        kind: a short name such as ``"box-outside"``.
        severity: an ``"error"`` ends the run before it starts, a ``"warning"`` is of something that
            was mended or left out, a ``"note"`` of something that was filled in.
        count: how many records have it.
        record: the first of them in words, empty where the whole file has it.
        message: one line that says all of this, and what to do.
    """

    file: str
    kind: str
    severity: Severity
    count: int
    record: str
    message: str


@dataclass
class Document:
    """An annotation file in COCO's format, mended in place by the checks of this package.

    Attributes:
        path: the file, as the user names it.
        images: its images.
        annotations: its annotations, empty where ``has_annotations`` is False.
        categories: its categories.
        rest: all other entries of the file.
        has_annotations: whether it has annotations at all; lists of images to test on have none.
        changed: whether an evaluation needs the mended content in the place of the file.
        findings: what the checks found so far.
        kept: for each annotation, whether it is used in training and evaluation.
        image_index: for each annotation, the position of its image, -1 where that is unknown.
        evaluation_file: where the mended content was written to for the evaluation.
    """

    path: str
    images: list[Record]
    annotations: list[Record]
    categories: list[Record]
    rest: Record = field(default_factory=dict)
    has_annotations: bool = True
    changed: bool = False
    findings: list[Finding] = field(default_factory=list)
    kept: np.ndarray = field(init=False)
    image_index: np.ndarray = field(init=False)
    evaluation_file: str = ""

    def __post_init__(self) -> None:
        self.kept = np.ones(len(self.annotations), dtype=bool)
        self.image_index = np.full(len(self.annotations), -1)

    def column(self, part: Part, key: str) -> list[Any]:
        """Return one entry of all records, None where a record has none."""
        return [record.get(key) for record in getattr(self, part)]

    def tell(
        self,
        severity: Severity,
        kind: str,
        what: str,
        cure: str,
        count: int = 1,
        record: str = "",
    ) -> None:
        """Note one finding about the file as a whole; the arguments are as in `report`."""
        message = f"{self.path}: {what}: {cure}."
        self.findings.append(Finding(self.path, kind, severity, count, record, message))

    def report(
        self,
        severity: Severity,
        kind: str,
        part: Part,
        positions: Sequence[int] | np.ndarray,
        clause: str,
        cure: str,
        keys: Sequence[str] = (),
    ) -> None:
        """Note one finding about some records, in one line; without records, nothing.

        Args:
            severity: see `Finding`. Annotations of an error are left out of what follows.
            kind: see `Finding`.
            part: which list the records are in.
            positions: theirs in that list.
            clause: what is true of each, such as ``"the box is outside of its picture"``.
            cure: what was done, or what to do.
            keys: entries of the first record to show.
        """
        if not len(positions):
            return
        first = int(positions[0])
        record = self.name_of(part, first)
        values = getattr(self, part)[first]
        shown = "".join(f", {key} {shorten(values.get(key))}" for key in keys)
        message = (
            f"{self.path}: in {len(positions)} of {len(getattr(self, part))} {part} {clause} "
            f"(first: {record}{shown}): {cure}."
        )
        self.findings.append(Finding(self.path, kind, severity, len(positions), record, message))
        if severity == "error" and part == "annotations":
            self.kept[positions] = False

    def name_of(self, part: Part, position: int) -> str:
        """Name a record: by its id, or by its place in the file where it has none."""
        record = getattr(self, part)[position]
        key = record.get("id")
        name = f"{part}[{position}]" if key is None else f"{_SINGULAR[part]} {shorten(key)}"
        if part == "categories":
            return f"{name} {shorten(record.get('name'))}"
        if part == "images":
            return f"{name} {shorten(record.get('file_name'))}"
        index = self.image_index[position]
        picture = f" {shorten(self.images[index].get('file_name'))}" if index >= 0 else ""
        size = ""
        if index >= 0:
            size = (
                f", {self.images[index].get('width')} x {self.images[index].get('height')} pixels"
            )
        return f"{name} of image {shorten(record.get('image_id'))}{picture}{size}"

    def content(self) -> Record:
        """Return the document as it would be in a file, with the annotations that are kept."""
        content = {**self.rest, "images": self.images, "categories": self.categories}
        if self.has_annotations:
            content["annotations"] = self.kept_annotations()
        return content

    def kept_annotations(self) -> list[Record]:
        """Return the annotations that training and evaluation use."""
        if self.kept.all():
            return self.annotations
        return [self.annotations[i] for i in np.flatnonzero(self.kept)]

    def write_integers(
        self,
        kind: str,
        part: Any,
        records: list[Record],
        key: str,
        values: list[Any],
        numbers: Sequence[int | None],
    ) -> None:
        """Write the integers that values stand for, and say how many were written otherwise.

        Args:
            kind: of the finding.
            part: of the document, as for `report`.
            records: changed in place.
            key: of the value in a record.
            values: what each record has there.
            numbers: the integer of each, None where it is none.
        """
        mended = [i for i, n in enumerate(numbers) if n is not None and type(values[i]) is not int]
        self.report(
            *("warning", kind, part),
            mended,
            f"{key} is a text or a fraction",
            "it was read as an integer",
            [key],
        )
        self.changed |= bool(mended)
        for position in mended:
            records[position][key] = numbers[position]

    def raise_errors(self) -> None:
        """Raise the first error, and say how many more there are.

        Raises:
            DataError: an error was found.
        """
        errors = [finding for finding in self.findings if finding.severity == "error"]
        if errors:
            rest = len(errors) - 1
            more = f" ({rest} more of other kinds: detrex data lists them.)" if rest else ""
            raise DataError(errors[0].message + more)


def is_writable(text: str) -> bool:
    """Whether a text can be written in UTF-8: half of a character cannot."""
    return text.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in text)


_SINGULAR = {"images": "image", "annotations": "annotation", "categories": "category"}


def shorten(value: Any) -> str:
    """Write a value as it stands in a JSON file, on one line of at most 60 characters."""
    if isinstance(value, str):
        text = repr(value[: 2 * _LONGEST_VALUE])
    else:
        try:
            text = json.dumps(value, ensure_ascii=False, default=str)
        except (RecursionError, ValueError):  # nested deeply, or a number of miles
            text = f"a {type(value).__name__}"
    text = text[: 2 * _LONGEST_VALUE].encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 3] + "..."


def listed(names: Sequence[Any], limit: int = 5) -> str:
    """Write out the first few names, and how many more there are."""
    shown = ", ".join(shorten(name) for name in names[:limit])
    return shown + (f" and {len(names) - limit} more" if len(names) > limit else "")
