"""The model card of a shared detector: a README with the front matter that the Hub reads."""

import logging
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import yaml

from detrex.engine.evaluation import EMA_PREFIX
from detrex.errors import RunError, printable
from detrex.inference.facts import Facts, Metrics
from detrex.utils.curves import plot_ap, plot_losses, read_metrics

logger = logging.getLogger(__name__)

TASKS = {
    "bbox": ("boxes", "object-detection"),
    "segm": ("masks", "image-segmentation"),
    "keypoints": ("keypoints", "keypoint-detection"),
}
"""Tasks that AP is measured of: in words, and what the Hub calls them."""

COLUMNS = ("AP", "AP50", "AP75", "APs", "APm", "APl")

_MOST_CLASSES = 100
_LICENCES = (
    *("afl-3.0", "agpl-3.0", "apache-2.0", "bsd-2-clause", "bsd-3-clause", "bsl-1.0", "cc0-1.0"),
    *(
        "cc-by-3.0",
        "cc-by-4.0",
        "cc-by-nc-4.0",
        "cc-by-nc-nd-4.0",
        "cc-by-nc-sa-4.0",
        "cc-by-nd-4.0",
    ),
    *("cc-by-sa-3.0", "cc-by-sa-4.0", "gpl-2.0", "gpl-3.0", "isc", "lgpl-3.0", "mit", "mpl-2.0"),
    *("openrail", "unlicense"),
)
"""What the Hub knows by name; any other licence is ``other`` there, with its name beside it."""


@dataclass(frozen=True)
class Curves:
    """What a run measured.

    Attributes:
        rows: of ``metrics.json``, by iteration.
        metrics: AP by task and column, at the iteration of the weights; empty where that is not
            known or was not evaluated.
        FILES: the pictures that there may be.
    """

    rows: Sequence[Mapping[str, float]] = ()
    metrics: Metrics = field(default_factory=dict)

    FILES: ClassVar[tuple[str, str]] = ("loss.png", "ap.png")

    @classmethod
    def of_run(cls, folder: Path | None, iteration: int, ema: bool = False) -> "Curves":
        """Read a run's folder.

        Args:
            folder: None, or one without ``metrics.json``, for nothing measured.
            iteration: that of the weights; negative where it is not known.
            ema: whether these are averaged weights, which are evaluated apart.
        """
        file = folder / "metrics.json" if folder else None
        if file is None or not file.is_file():
            return cls()
        try:
            rows = read_metrics(file)
        except RunError as error:
            logger.warning("%s: no curves are drawn.", error)
            return cls()
        return cls(rows, _metrics_at(rows, iteration, EMA_PREFIX if ema else ""))

    def draw(self, folder: Path) -> list[str]:
        """Draw the curves to `FILES` in a folder; returns those that there was something for."""
        drawn = []
        for name, plot in zip(self.FILES, (plot_losses, plot_ap), strict=True):
            try:
                plot(self.rows, folder / name)
            except ValueError:  # nothing of it was measured
                continue
            drawn.append(name)
        return drawn


def model_card(
    facts: Facts, name: str, pictures: Sequence[str], detector: str, backbone: str
) -> str:
    """Write a model card.

    Args:
        facts: what is known of the detector.
        name: what to call it, and to load it by: ``owner/name`` of the Hub, or a folder.
        pictures: of its curves, beside the card.
        detector: the detector's class.
        backbone: what its backbone is called.

    Returns:
        Markdown with YAML before it.
    """
    title = _words(name)
    parts = [
        f"---\n{_front_matter(facts, printable(name), detector, backbone)}---\n",
        f"# {title}\n\n{_introduction(facts, detector, backbone)}\n",
        f"## Use\n\n{_use(facts, name)}\n",
        f"## Measured\n\n{_table(facts)}\n" if facts.metrics else "",
        *(f"![{_PICTURES[picture]}]({picture})\n" for picture in pictures),
        f"## Classes\n\n{_classes(facts)}\n" if facts.class_names else "",
        f"## How it was made\n\n{_origin(facts)}\n",
    ]
    return "\n".join(part for part in parts if part)


_PICTURES = {"loss.png": "losses over the iterations", "ap.png": "AP over the iterations"}


def _metrics_at(
    rows: Sequence[Mapping[str, float]], iteration: int, prefix: str
) -> dict[str, dict[str, float]]:
    """AP of the evaluation right after an iteration; the last one of a run counts one more."""
    if iteration < 0:
        return {}
    found: dict[str, dict[str, float]] = {}
    for row in rows:
        if row.get("iteration") not in (iteration, iteration + 1):
            continue
        for task in TASKS:
            for column in COLUMNS:
                value = row.get(f"{prefix}{task}/{column}")
                if isinstance(value, int | float) and math.isfinite(value):
                    found.setdefault(task, {})[column] = round(float(value), 3)
    return found


def _front_matter(facts: Facts, title: str, detector: str, backbone: str) -> str:
    matter: dict[str, Any] = {"library_name": "detrex", "pipeline_tag": "object-detection"}
    if facts.licence:
        known = facts.licence.lower() in _LICENCES
        matter["license"] = facts.licence.lower() if known else "other"
        if not known:
            matter["license_name"] = _slug(facts.licence)
    if facts.datasets:
        matter["datasets"] = list(map(printable, facts.datasets))
    matter["tags"] = list(
        dict.fromkeys(
            ("detrex", "detectron2", "object-detection", _slug(detector), _slug(backbone))
        )
    )
    if facts.metrics:
        data = printable(", ".join(facts.measured_on)) or "the run's test set"
        matter["model-index"] = [
            {
                "name": title,
                "results": [
                    {
                        "task": {"type": TASKS[task][1]},
                        "dataset": {"type": _slug(data), "name": data},
                        "metrics": [
                            {"type": column.lower(), "name": f"{column} of {TASKS[task][0]}"}
                            | {"value": value}
                            for column, value in values.items()
                        ],
                    }
                    for task, values in facts.metrics.items()
                    if task in TASKS
                ],
            }
        ]
    text: str = yaml.safe_dump(matter, sort_keys=False, allow_unicode=True)
    return text


def _introduction(facts: Facts, detector: str, backbone: str) -> str:
    count = len(facts.class_names)
    what = f" of {count} class{'es' if count != 1 else ''}" if count else ""
    data = f", trained on {', '.join(map(_words, facts.datasets))}" if facts.datasets else ""
    return (
        f"A detector{what} ({_words(detector)} over {_words(backbone)}{data}), saved by detrex "
        f"{facts.versions.get('detrex', '')}. It takes pictures in {facts.input_format}."
    )


def _use(facts: Facts, name: str) -> str:
    source = f"hf-hub:{name}" if "/" in name else name
    trust = f", trust={list(facts.trust)!r}" if facts.trust else ""
    lines = [
        "```python",
        "import detrex",
        "",
        f"detector = detrex.load({source!r}{trust})",
        'detector.predict("picture.jpg").save("found.jpg")',
        "```",
    ]
    if facts.trust:
        lines += [
            "",
            f"Its config calls {', '.join(map(_words, facts.trust))}, which must be installed, and "
            "trusted: loading runs that code.",
        ]
    return "\n".join(lines)


def _table(facts: Facts) -> str:
    data = f" on {', '.join(map(_words, facts.measured_on))}" if facts.measured_on else ""
    shown = [column for column in COLUMNS if any(column in v for v in facts.metrics.values())]
    lines = [
        f"AP in percent, as COCO defines it,{data} after iteration {facts.iteration + 1}.",
        "",
        f"| | {' | '.join(shown)} |",
        f"|:--|{'--:|' * len(shown)}",
    ]
    for task, values in facts.metrics.items():
        cells = [f"{values[c]:.1f}" if c in values else "" for c in shown]
        lines.append(f"| {TASKS.get(task, (_words(task), ''))[0]} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _classes(facts: Facts) -> str:
    names = [_words(name) for name in facts.class_names[:_MOST_CLASSES]]
    rest = len(facts.class_names) - len(names)
    more = f", and {rest} more in `detrex.json`" if rest else ""
    return f"{', '.join(names)}{more}"


def _origin(facts: Facts) -> str:
    lines = ["`config.yaml` holds the whole config, as it was resolved."]
    if facts.left_out:
        lines.append(f"Left out of it: {', '.join(f'`{key}`' for key in facts.left_out)}.")
    versions = [f"{_words(name)} {_words(value)}" for name, value in facts.versions.items()]
    lines.append(f"Versions: {', '.join(versions)}.")
    licence = (
        f"Licence of the weights: {_words(facts.licence)}."
        if facts.licence
        else ("The weights come without a word on their licence.")
    )
    lines.append(
        f"{licence} Those of the pictures, and of weights that the training began with, may bind "
        "their use, too."
    )
    return "\n".join(lines)


def _words(text: str) -> str:
    """Write a text of any origin as words of Markdown, on one line."""
    return re.sub(r"([\\`*_{}\[\]<>|#!~$&])", r"\\\1", printable(text))


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-") or "unnamed"
