"""The page: a head, sections one can jump to, styles and a script, in one file."""

import re
from collections.abc import Sequence
from importlib.resources import files
from string import Template

from detrex.report import mistakes, sections
from detrex.report.collect import Run
from detrex.report.html import Content, Html, element, joined

MARK = '<meta name="generator" content="detrex report">'
"""What tells a report from other pages."""


def page_of(run: Run) -> str:
    """Write the page of a run.

    Args:
        run: what is known of it.

    Returns:
        HTML that refers to nothing outside of itself.
    """
    from detrex import __version__

    title = f"Training of {sections.facts_of(run.record)}"
    parts: list[tuple[str, Content]] = [
        ("Figures", sections.figures(run)),
        ("Curves", sections.curves(run)),
        ("Classes", sections.classes(run)),
        ("Sizes", sections.sizes(run)),
        ("Confusion", mistakes.confusion(run)),
        ("Worst pictures", mistakes.pictures(run)),
        ("Time", sections.seconds(run)),
        ("Warnings", sections.warnings(run)),
        ("Config", sections.config(run)),
        ("Environment", sections.environment(run)),
    ]
    shown = [(name, content) for name, content in parts if content]
    return Template(_packaged("page.html")).substitute(
        title=joined(title),
        style=_packaged("page.css"),
        script=_packaged("page.js"),
        head=joined([element("h1", title), sections.summary(run)]),
        nav=_links([name for name, _ in shown]),
        content=joined([_section(name, content) for name, content in shown]),
        foot=joined(
            f"Written by detrex {__version__}; `detrex report {run.folder}` writes it again."
        ),
    )


def _section(name: str, content: Content) -> Html:
    place = _place(name)
    heading = element("h2", name, id=f"{place}-name")
    return element("section", heading, content, id=place, aria_labelledby=f"{place}-name")


def _links(names: Sequence[str]) -> Html:
    links = [element("li", element("a", name, href=f"#{_place(name)}")) for name in names]
    return element("ul", links)


def _place(name: str) -> str:
    return re.sub(r"\W+", "-", name.lower())


def _packaged(name: str) -> str:
    return files("detrex.report").joinpath(name).read_text(encoding="utf-8")
