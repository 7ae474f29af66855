"""``{gallery} ACT``: the pictures of an act of the demo that ``docs/make_gallery.py`` has drawn."""

from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive

FOLDER = Path(__file__).resolve().parents[1] / "_static" / "gallery"
_CURVES = {"loss": "The losses over the iterations", "ap": "Average precision at each evaluation"}


def pictures(act: str) -> list[tuple[Path, str]]:
    """Give the pictures of an act with a description of each: detections first, then the curves."""
    found = sorted(FOLDER.glob(f"{act}_[0-9].webp"))
    shown = [(path, f"Picture {path.stem[-1]}: the truth, and what was found") for path in found]
    curves = [(FOLDER / f"{act}_{name}.webp", text) for name, text in _CURVES.items()]
    return shown + [(path, text) for path, text in curves if path.is_file()]


class Gallery(Directive):
    """A figure for each picture."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Build them; where none was drawn, a sentence says how they are."""
        act = self.arguments[0]
        figures = [
            nodes.figure(
                "",
                nodes.image("", uri=f"_static/gallery/{path.name}", alt=f"{act}: {text}"),
                nodes.caption("", text),
            )
            for path, text in pictures(act)
        ]
        if not figures:
            return [
                nodes.paragraph(
                    "", "No pictures of this act were drawn here: the commands below do."
                )
            ]
        return [nodes.container("", *figures, classes=["gallery"])]


def setup(app: Any) -> dict[str, Any]:
    """Register with Sphinx."""
    app.add_directive("gallery", Gallery)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
