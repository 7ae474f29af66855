"""What a shared detector's folder says of it in ``detrex.json``: plain values, each checked."""

import json
import math
import platform
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import detrex
from detrex.errors import CheckpointError, ConfigError, printable

FACTS = "detrex.json"
SCHEMA = 1
"""The form of the file; a reader refuses a newer one than it knows."""

_MOST_BYTES = 4 << 20
_MOST_SIDE = 1 << 20
_LONGEST = 500
_PACKAGES = ("torch", "torchvision", "timm", "detectron2")
Metrics = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Facts:
    """What is known of a detector beside its config and its weights.

    Attributes:
        class_names: by class index; empty where nothing tells them.
        category_ids: the data set's own id of each class; empty where they are not known.
        keypoint_names: of each object's keypoints, where it finds any.
        keypoint_lines: which of them are joined when they are drawn: two names and a colour.
        input_format: the order of the channels of its images: ``"RGB"``, ``"BGR"`` or ``"L"``.
        min_size: the shorter side of a picture in pixels, as the detector is given it; 0 where
            pictures stay as they are.
        max_size: the most of the longer side, or 0.
        threshold: least score of what it finds, from 0 to 1.
        pixel_mean: statistics of its images, one value per channel; empty where it has none.
        pixel_std: likewise.
        licence: under which the weights are given on, as SPDX writes it; empty where unsaid.
        datasets: what it was trained on.
        measured_on: the data set of `metrics`.
        metrics: AP and the like by task, ``{"bbox": {"AP": 41.2}}``, in percent.
        iteration: at which iteration they were measured; -1 where that is not known.
        trust: packages that its config names beside those that any config may.
        left_out: keys of the run's config that no other machine can use.
        sha256: of its files, in hexadecimal.
        versions: of the packages that it was saved with.
    """

    class_names: tuple[str, ...] = ()
    category_ids: tuple[int, ...] = ()
    keypoint_names: tuple[str, ...] = ()
    keypoint_lines: tuple[tuple[str, str, Sequence[int]], ...] = ()
    input_format: str = "RGB"
    min_size: int = 800
    max_size: int = 1333
    threshold: float = 0.5
    pixel_mean: tuple[float, ...] = ()
    pixel_std: tuple[float, ...] = ()
    licence: str = ""
    datasets: tuple[str, ...] = ()
    measured_on: tuple[str, ...] = ()
    metrics: Metrics = field(default_factory=dict)
    iteration: int = -1
    trust: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    sha256: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def drawing(self) -> dict[str, Any]:
        """What drawing takes, by the names of detectron2's metadata."""
        if not self.keypoint_names:
            return {}
        lines = [(first, second, tuple(colour)) for first, second, colour in self.keypoint_lines]
        return {
            "keypoint_names": list(self.keypoint_names),
            "keypoint_connection_rules": lines,
        }


def own_versions() -> dict[str, str]:
    """Name the versions of Python, of this package and of those that detectors are made of."""
    found = {"detrex": detrex.__version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # imported from a folder
            continue
    return found


def checked_texts(key: str, texts: str | Sequence[str]) -> tuple[str, ...]:
    """Check what a user says of a detector.

    Args:
        key: what it is.
        texts: one or several.

    Returns:
        The texts.

    Raises:
        ConfigError: something is no text, or too long for one.
    """
    several: tuple[Any, ...] = (texts,) if isinstance(texts, str) else tuple(texts)
    for text in several:
        if not _is_text(text):
            raise ConfigError(
                f"{key}={text!r:.60} is no text of at most {_LONGEST} characters: give a name."
            )
    return several


def facts_bytes(facts: Facts) -> bytes:
    """Write facts as the content of ``detrex.json``."""
    text = json.dumps({"schema": SCHEMA, **asdict(facts)}, indent=1, ensure_ascii=False)
    return f"{text}\n".encode(errors="backslashreplace")  # half a character as JSON has it


def read_facts(file: Path) -> Facts:
    """Read what `facts_bytes` wrote.

    Args:
        file: a ``detrex.json``.

    Raises:
        CheckpointError: it cannot be read, is of a newer form, or a value in it is none that it can
            have.
    """
    content = _read(file)
    schema = content.pop("schema", None)
    if isinstance(schema, int) and not isinstance(schema, bool) and schema > SCHEMA:
        made = content.get("versions")
        by = made.get("detrex") if isinstance(made, dict) else None
        raise CheckpointError(
            f"{file} is of form {schema}, and this version of detrex, {detrex.__version__}, knows "
            f"forms up to {SCHEMA}: install the one that wrote it{_by(by)}, or a newer one"
        )
    if schema != SCHEMA or isinstance(schema, bool):
        raise CheckpointError(
            f"{file} has the schema {_shown(schema)}, expected {SCHEMA}: it was not written by "
            "save_pretrained, or was changed since"
        )
    values: dict[str, Any] = {}
    for each in fields(Facts):
        if each.name in content:
            value = content[each.name]
            is_right, expected = _RULES[each.name]
            if not is_right(value):
                raise CheckpointError(
                    f"{file} says {each.name}={_shown(value)}, expected {expected}: "
                    "correct it, or take another copy"
                )
            values[each.name] = tuple(value) if isinstance(value, list) else value
    facts = Facts(**values)
    ids = facts.category_ids
    if len(set(ids)) < len(ids):
        raise CheckpointError(
            f"{file} has an id twice in category_ids: correct it, or take another copy"
        )
    if ids and len(ids) != len(facts.class_names):
        raise CheckpointError(
            f"{file} has {len(facts.class_names)} class_names and {len(ids)} "
            "category_ids, expected one for each class: correct it, or take another copy"
        )
    return facts


def _read(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise CheckpointError(f"{file} is no file: name a folder that save_pretrained wrote")
    try:
        with file.open("rb") as stream:
            data = stream.read(_MOST_BYTES + 1)
        content = json.loads(data) if len(data) <= _MOST_BYTES else None
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{file} is no JSON ({type(error).__name__}): take another copy"
        ) from error
    if len(data) > _MOST_BYTES:
        raise CheckpointError(
            f"{file} is longer than {_MOST_BYTES} bytes, which none is that save_pretrained wrote: "
            "take another copy"
        )
    if not isinstance(content, dict):
        raise CheckpointError(f"{file} holds a {type(content).__name__}, expected an object")
    return content


def _by(made_with: Any) -> str:
    is_version = isinstance(made_with, str) and re.fullmatch(r"[\w.+-]{1,40}", made_with)
    return f" ({made_with})" if is_version else ""


def _shown(value: Any) -> str:
    text = printable(repr(value))
    return text if len(text) <= 60 else f"{text[:57]}..."


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= _LONGEST


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_whole(value: Any, least: int = -(1 << 63), most: int = 1 << 63) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _is_side(value: Any) -> bool:
    return _is_whole(value, 0, _MOST_SIDE)


def _is_line(value: Any) -> bool:
    if not isinstance(value, list) or len(value) != 3:
        return False
    colour = value[2]
    is_colour = isinstance(colour, list) and len(colour) == 3
    return is_colour and all(map(_is_text, value[:2])) and all(_is_whole(c, 0, 255) for c in colour)


def _list_of(is_one: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(map(is_one, value))


def _table_of(is_one: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: (
        isinstance(value, dict) and all(map(_is_text, value)) and all(map(is_one, value.values()))
    )


_TEXTS, _NUMBERS = (_list_of(_is_text), "a list of texts"), (_list_of(_is_number), "numbers")
_TABLE = (_table_of(_is_text), "texts by name")
_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    **dict.fromkeys(
        ("class_names", "datasets", "trust", "left_out", "keypoint_names", "measured_on"), _TEXTS
    ),
    **dict.fromkeys(("pixel_mean", "pixel_std"), _NUMBERS),
    **dict.fromkeys(("sha256", "versions"), _TABLE),
    **dict.fromkeys(("min_size", "max_size"), (_is_side, "a number of pixels")),
    "keypoint_lines": (_list_of(_is_line), "two names and a colour each"),
    "category_ids": (_list_of(_is_whole), "a list of whole numbers"),
    "input_format": (lambda value: value in ("RGB", "BGR", "L"), "RGB, BGR or L"),
    "threshold": (lambda value: _is_number(value) and 0 <= value <= 1, "a number from 0 to 1"),
    "licence": (_is_text, "a text"),
    "metrics": (_table_of(_table_of(_is_number)), "numbers by task and name"),
    "iteration": (_is_whole, "a whole number"),
}
