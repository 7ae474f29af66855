"""Mends in the pages what their makers leave for a screen reader or a keyboard to stumble over."""

from typing import Any

_MENDS = (
    # A caption of the table of contents is a heading of no level.
    ('role="heading">', 'role="heading" aria-level="2">'),
    # What scrolls sideways must be reached by keys.
    ('<div class="highlight"><pre>', '<div class="highlight"><pre tabindex="0">'),
    ('<div class="table-wrapper', '<div tabindex="0" class="table-wrapper'),
    # The parameters of a long signature are descriptions without terms.
    ('<dl>\n<dd><em class="sig-param">', '<dl role="presentation">\n<dd><em class="sig-param">'),
    # The list of modules has a link to a page that is not made.
    ('<li><a href="builtins.html">builtins</a></li>', ""),
)
_PARTS = ("body", "toctree", "furo_navigation_tree")


def mend(text: str) -> str:
    """Mend a part of a page's HTML."""
    for wrong, right in _MENDS:
        text = text.replace(wrong, right)
    return text


def _mend_page(app: Any, page: str, template: str, context: Any, doctree: Any) -> None:
    for part in _PARTS:
        if isinstance(context.get(part), str):
            context[part] = mend(context[part])


def setup(app: Any) -> dict[str, Any]:
    """Register with Sphinx, after the theme."""
    app.connect("html-page-context", _mend_page, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
