"""``{configs} PATTERN``: the package's configs as a table, from what their heads say."""

from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive

from detrex.config.listing import ConfigCard, list_configs

_HEADS = ("Detector and backbone", "Box AP", "Trained")
_WIDTHS = (60, 15, 25)
_UNTRAINED = {False: "not here", True: "in the demo"}


def command(card: ConfigCard) -> str:
    """Give the line that trains a config.

    Args:
        card: of a config of the package.

    Returns:
        ``detrex train`` with the GPUs and the overrides of the config's own command; that command
        itself, without the preparation of data, where it is a program of the demo.
    """
    words = card.command.replace("\\\n", " ").split()
    if "demo/run.py" in words:
        return " ".join(words)
    flags = [place for place, word in enumerate(words) if word in ("--num-gpus", "--num-machines")]
    launch = [word for place in flags for word in words[place : place + 2]]
    overrides = [word for word in words if "=" in word]
    return " ".join(["detrex", "train", card.name, *launch, *overrides])


def rows(card: ConfigCard) -> list[nodes.row]:
    """Give a config's two rows: what it is, and the line that trains it."""
    what = nodes.paragraph(
        "", "", nodes.Text(f"{card.detector}, "), nodes.strong("", card.backbone)
    )
    box_ap = "\N{EN DASH}" if card.box_ap is None else f"{card.box_ap:.1f}"
    trained = f"by {card.trained}" if card.trained else _UNTRAINED["benchmark" in card.remark]
    line = nodes.entry("", nodes.paragraph("", "", nodes.literal("", command(card))))
    line["morecols"] = len(_HEADS) - 1
    facts = [nodes.entry("", nodes.paragraph("", text)) for text in (box_ap, trained)]
    return [
        nodes.row("", nodes.entry("", what), *facts, classes=["config"]),
        nodes.row("", line, classes=["command"]),
    ]


class Configs(Directive):
    """The table: those with a published AP first, the highest at the top."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Build it.

        Raises:
            DirectiveError: no config of the package fits the pattern.
        """
        cards = list_configs(self.arguments[0])
        if not cards:
            raise self.error(f"no config of the package is named like {self.arguments[0]!r}")
        cards.sort(key=lambda card: (-(card.box_ap or 0), card.name))
        group = nodes.tgroup("", cols=len(_HEADS))
        group += [nodes.colspec(colwidth=width) for width in _WIDTHS]
        heads = [nodes.entry("", nodes.paragraph("", head)) for head in _HEADS]
        group += nodes.thead("", nodes.row("", *heads))
        group += nodes.tbody("", *(row for card in cards for row in rows(card)))
        return [nodes.table("", group, classes=["configs"])]


def setup(app: Any) -> dict[str, Any]:
    """Register with Sphinx."""
    app.add_directive("configs", Configs)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
