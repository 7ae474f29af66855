"""References (``${train.device}``) in a config that is text: few, and bounded when written out.

Ten references to a text of ten references to a text of ten: six levels of this take a megabyte.
"""

import os
import re
from collections.abc import Iterator
from typing import Any

from omegaconf.errors import OmegaConfBaseException
from omegaconf.grammar_parser import parse

from detrex.errors import ConfigError, printable

MAX_REFERENCES = 2000
"""The most references that a file may hold; a run's config has some 50."""

MAX_CHARACTERS = 200_000
"""The most characters of all texts with references in them."""

MAX_WRITTEN = 16 << 20
"""The most bytes that a file may take once its references are written out."""

MAX_LEVELS = 100
"""The most levels of groups, lists and references below each other."""

_EACH = 16  # bytes, for a value beside its text
_FOLLOWED = 2000  # bytes, for a reference: half a millisecond whenever it is followed


def refuse_reference(path: str | os.PathLike[str], what: str) -> None:
    """Refuse the name of a file or folder that a config would read as a reference.

    Args:
        path: the name.
        what: it is of.

    Raises:
        ConfigError: it holds ``${``.
    """
    name = os.fspath(path)
    if "${" in name:
        raise ConfigError(
            f"{what} {printable(name)[-200:]} has ${{ in its name, which configs read as a "
            "reference to another value: rename the folder or file, or name another."
        )


def nodes_of(text: str) -> Iterator[Any]:
    """Go through the parse tree of a text with references.

    Args:
        text: of a config.

    Yields:
        Nodes of omegaconf's grammar, the outermost first; none where the text cannot be parsed,
        which omegaconf and the lint tell.
    """
    try:
        stack: list[Any] = [parse(text)]
    except (OmegaConfBaseException, RecursionError):
        return
    while stack:
        node = stack.pop()
        yield node
        stack.extend(getattr(node, "children", None) or ())


def check_references(root: dict[str, Any]) -> None:
    """Refuse references that would take too much time or memory to resolve.

    Args:
        root: a whole config in plain containers.

    Raises:
        ConfigError: there are too many, their texts are too long, they lead through too many
            others, or they take too much once they are written out.
    """
    texts = [text for text in _texts(root) if "${" in text]
    if not texts:
        return
    if sum(text.count("${") for text in texts) > MAX_REFERENCES:
        raise ConfigError(f"it holds more than {MAX_REFERENCES} references such as ${{a.b}}.")
    if sum(map(len, texts)) > MAX_CHARACTERS:
        raise ConfigError(f"texts with references are longer than {MAX_CHARACTERS} characters.")
    _Sizes(root).of((), root, 0)


def _texts(root: Any) -> Iterator[str]:
    stack = [root]
    while stack:
        value = stack.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict | list):
            stack.extend(value.values() if isinstance(value, dict) else value)


class _Sizes:
    """Sizes of a config's values with their references written out, each counted once."""

    def __init__(self, root: dict[str, Any]) -> None:
        self.root = root
        self.known: dict[tuple[str, ...], tuple[int, int]] = {}  # bytes, levels

    def of(self, path: tuple[str, ...], value: Any, depth: int) -> tuple[int, int]:
        if path in self.known:  # a reference to itself, too, which nothing resolves
            return self.known[path]
        self.known[path] = (0, 0)
        parts: list[tuple[tuple[str, ...], Any]] = []
        if isinstance(value, dict | list):
            parts = [((*path, name), item) for name, item in _items(value)]
        elif isinstance(value, str) and "${" in value:
            parts = [self._find(path, target) for target in self._targets(path, value)]
        sizes = [self.of(*part, depth + 1) for part in parts] if depth < MAX_LEVELS else []
        size = _EACH + sum(one for one, _ in sizes)
        size += len(value) + _FOLLOWED * len(parts) if isinstance(value, str) else 0
        levels = 1 + max((one for _, one in sizes), default=0)
        if levels > MAX_LEVELS or depth >= MAX_LEVELS:
            raise ConfigError(f"references lead through more than {MAX_LEVELS} values.")
        if size > MAX_WRITTEN:
            raise ConfigError(
                f"it takes more than {MAX_WRITTEN} bytes once its references are written out."
            )
        self.known[path] = size, levels
        return size, levels

    def _targets(self, path: tuple[str, ...], text: str) -> Iterator[str]:
        """What the references of a text, and the arguments of resolvers, may lead to."""
        for node in nodes_of(text):
            kind = type(node).__name__
            if kind == "InterpolationNodeContext":
                target = node.getText()[2:-1]
            elif kind == "SequenceContext":  # a resolver's arguments, the first of them a key
                target = node.getText().partition(",")[0].strip(" '\"")
            else:
                continue
            yield re.sub(r"\$\{([^${}]*)\}", lambda name: self._literal(path, name[1]), target)

    def _literal(self, path: tuple[str, ...], name: str) -> str:
        value = self._find(path, name)[1]
        if isinstance(value, str) and "${" in value:
            raise ConfigError(f"${{{name[:80]}}} in a reference leads to one: write it out.")
        return str(value)

    def _find(self, path: tuple[str, ...], target: str) -> tuple[tuple[str, ...], Any]:
        """The value that a dotted name leads to, or the reference on the way to it."""
        names = re.sub(r"\[([^\]]*)\]", r".\1", target.strip())
        dots = len(names) - len(names.lstrip("."))
        relative = dots and not target.startswith("[")
        found = path[:-dots] if relative else ()
        value: Any = self.root
        for name in found:
            value = _item(value, name)
        for name in filter(None, names.split(".")):
            if not isinstance(value, dict | list):
                break
            found, value = (*found, name), _item(value, name)
        return found, value


def _items(value: Any) -> Iterator[tuple[str, Any]]:
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    return ((str(name), item) for name, item in pairs)


def _item(value: Any, name: str) -> Any:
    number = int(name) if name.isdecimal() and len(name) < 10 else None
    if isinstance(value, dict):
        return value.get(name, value.get(number))
    return value[number] if number is not None and number < len(value) else None
