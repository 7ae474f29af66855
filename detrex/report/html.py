"""Elements of HTML. All text is escaped, whatever a class, a file or a config is called."""

import html
import re
from collections.abc import Iterable

_VOID = frozenset({"br", "circle", "img", "input", "line", "meta", "path", "polyline", "rect"})
# Neither HTML nor SVG has a form for these.
_UNFIT = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


Content = str | int | float | Iterable["Content"] | None


def escape(text: object) -> Html:
    """Write any text so that it stands in a page, or in an attribute, as it is.

    Args:
        text: anything; what is `Html` already stays.

    Returns:
        HTML; signs that no page can hold become a replacement sign.
    """
    if isinstance(text, Html):
        return text
    return Html(html.escape(_UNFIT.sub("\ufffd", str(text))))


def element(name: str, *content: Content, **attributes: object) -> Html:
    """Write an element.

    Args:
        name: the tag.
        content: text, which is escaped, elements, and lists of these; None is left out.
        attributes: ``class_`` and ``aria_label`` stand for ``class`` and ``aria-label``; one that
            is None or False is left out, and True gives its name alone.

    Returns:
        The element.
    """
    written = "".join(
        f" {key.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{escape(value)}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    if name in _VOID and not content:
        return Html(f"<{name}{written}/>")
    return Html(f"<{name}{written}>{joined(content)}</{name}>")


def joined(content: Content) -> Html:
    """Write texts and elements one after the other; see `element`.

    Args:
        content: one of them, or a list of any depth.
    """
    if content is None:
        return Html("")
    if isinstance(content, str | int | float):
        return escape(content)
    return Html("".join(map(joined, content)))
