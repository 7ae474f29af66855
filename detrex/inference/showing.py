"""A result for people: drawn, as a sentence, as a table for the terminal, as HTML for notebooks."""

import base64
import html as html_
import io
from typing import Any

import numpy as np
import torch
from detectron2.data import Metadata
from PIL import Image

from detrex.data.drawing import draw_instances
from detrex.errors import printable

_THUMBNAIL = 640
_MOST_ROWS = 12


def drawn(result: Any, min_side: int = 480) -> np.ndarray:
    """Draw a `Result`, the surest objects on top; see `Result.plot`."""
    known = {"name": "detections", **result.metadata}
    if result.class_names:
        known["thing_classes"] = list(result.class_names)
    upwards = result.to_instances()[torch.arange(len(result)).flip(0)]
    return draw_instances(result.image, upwards, Metadata(**known), min_side=min_side)


def counted(counts: dict[str, int]) -> str:
    """Write how many there are of each class, such as ``"3 circle, 1 disc"``."""
    return ", ".join(f"{count} {printable(name)}" for name, count in counts.items()) or "nothing"


def sentence(result: Any) -> str:
    """Say in one line what a `Result` is of, and what was found."""
    height, width = result.image.shape[:2]
    where = f"{printable(result.path)}, " if result.path else ""
    where += f"frame {result.frame}, " if result.frame is not None else ""
    return f"{where}{width} x {height}: {counted(result.counts)}"


def rows(result: Any) -> list[tuple[str, str, str]]:
    """Give class, score and box of each object as texts."""
    return [
        (printable(name), f"{score:.2f}", "  ".join(f"{value:.1f}" for value in box))
        for name, score, box in zip(
            result.names, result.scores.tolist(), result.boxes.tolist(), strict=True
        )
    ]


def table(result: Any) -> Any:
    """Lay a `Result` out for rich."""
    from rich.table import Table
    from rich.text import Text

    laid = Table(title=Text(sentence(result)), title_justify="left")
    laid.add_column("class")
    laid.add_column("score", justify="right")
    laid.add_column("x1 y1 x2 y2", justify="right")
    for row in rows(result):
        laid.add_row(*map(Text, row))
    return laid


def html(result: Any) -> str:
    """Lay a `Result` out for a notebook: a thumbnail, and a table of the surest objects."""
    picture = Image.fromarray(drawn(result))
    picture.thumbnail((_THUMBNAIL, _THUMBNAIL))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=85)
    data = base64.b64encode(buffer.getvalue()).decode()
    told = html_.escape(sentence(result))
    shown = rows(result)
    cells = "".join(
        "<tr>" + "".join(f"<td>{html_.escape(cell)}</td>" for cell in row) + "</tr>"
        for row in shown[:_MOST_ROWS]
    )
    more = f"<p>and {len(shown) - _MOST_ROWS} more</p>" if len(shown) > _MOST_ROWS else ""
    head = "<tr><th>class</th><th>score</th><th>x1 y1 x2 y2</th></tr>"
    return (
        f'<div><p>{told}</p><img alt="{told}" src="data:image/jpeg;base64,{data}">'
        f"<table>{head}{cells}</table>{more}</div>"
    )
