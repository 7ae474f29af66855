"""YAML read as data: no tag builds an object but the few that saved configs need."""

import functools
import inspect
import re
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any

import yaml
from detectron2.layers import ShapeSpec

from detrex.config.references import check_references
from detrex.config.trust import check_named, locate_trusted
from detrex.errors import ConfigError

MAX_BYTES = 2 << 20
"""The longest file that is read; what runs save is a hundredth of it."""

MAX_NODES = 100_000
"""The most values that a file may hold once its aliases are written out."""

MAX_DEPTH = 50
"""The most levels that values may be nested in."""

_MAX_DIGITS = 100

_PLAIN = {
    f"tag:yaml.org,2002:{name}" for name in ("map", "seq", "str", "int", "float", "bool", "null")
}
_PYTHON = "tag:yaml.org,2002:python/"
_SHAPE_SPEC = f"{_PYTHON}object:{ShapeSpec.__module__}.{ShapeSpec.__name__}"
PARTIAL = f"{_PYTHON}object/apply:functools.partial"
"""The tag of a partial function."""

PYTHON_NAME = f"{_PYTHON}name:"
"""How the tag of a class or function begins; its name follows."""

FLOAT = re.compile(
    r"^[-+]?(?:[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+"
    r"|\.[0-9_]+(?:[eE][-+]?[0-9]+)?|\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
)
"""A number of a config: as in YAML, and 1e-4."""


def read_yaml(path: Path, trusted: Sequence[str] = ()) -> dict[str, Any]:
    """Read a config that ``LazyConfig.save`` wrote, or one written by hand.

    Beyond YAML's own types there are tuples, ``ShapeSpec``, and names and partials of functions of
    the packages that `detrex.config.trust` lists; 1e-4 is a number.

    Args:
        path: the file.
        trusted: packages that it may name beside those of `detrex.config.trust`.

    Returns:
        Plain containers, whose ``_target_`` names are checked.

    Raises:
        ConfigError: the file cannot be read, is no YAML, holds another tag or a key twice, is too
            long, too deep, or too large once its aliases and references are written out, or names
            what text may not.
    """
    try:
        loader = _Loader(_read_text(path), trusted)
        node = loader.get_single_node()
        _measure(node)
        value = loader.construct_document(node) if node is not None else {}
        if isinstance(value, dict):
            check_references(value)
            check_named(value, trusted=trusted)
            return value
    except ConfigError as error:
        raise ConfigError(f"Config {path} cannot be loaded: {error}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = _place(getattr(error, "problem_mark", None))
        reason = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigError(f"Config {path} is no YAML{where}: {reason[:150]}.") from error
    raise ConfigError(
        f"Config {path} holds a {type(value).__name__}, expected keys such as model and train."
    )


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"it cannot be read ({error.strerror}).") from error
    if len(data) > MAX_BYTES:
        raise ConfigError(f"it is longer than {MAX_BYTES} bytes, which no config is.")
    return data.decode("utf-8-sig")


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with a few tags of Python's, with limits, and without dates."""

    def __init__(self, text: str, trusted: Sequence[str]) -> None:
        super().__init__(text)
        self.trusted = trusted
        self.depth = self.nodes = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.depth, self.nodes = self.depth + 1, self.nodes + 1
        if self.depth > MAX_DEPTH:
            raise ConfigError(f"it is nested too deeply: more than {MAX_DEPTH} levels.")
        if self.nodes > MAX_NODES:
            raise ConfigError(f"it holds more than {MAX_NODES} values.")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for name, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if not isinstance(name, yaml.ScalarNode):
                raise ConfigError(f"a key{_place(name.start_mark)} is a list or a group of keys.")
            if name.value in seen and name.value != "<<":
                raise ConfigError(f"{name.value[:80]} is given twice{_place(name.start_mark)}.")
            seen.add(name.value)
        return super().construct_mapping(node, deep)

    def construct_number(self, node: yaml.ScalarNode) -> int | float:
        """Read a number; without base 60, and of no more digits than anything counts."""
        text = str(node.value)
        if len(text) > _MAX_DIGITS or ":" in text:
            raise ConfigError(f"the number {text[:20]!r}...{_place(node.start_mark)} is none.")
        try:
            if node.tag.endswith("float"):
                return self.construct_yaml_float(node)
            return self.construct_yaml_int(node)
        except ValueError:
            raise ConfigError(f"the number {text!r}{_place(node.start_mark)} is none.") from None

    def construct_truth(self, node: yaml.ScalarNode) -> bool:
        """Read true or false."""
        try:
            return self.construct_yaml_bool(node)
        except KeyError:
            raise ConfigError(f"{node.value[:80]!r}{_place(node.start_mark)} is no bool.") from None

    def construct_text(self, node: yaml.ScalarNode) -> str:
        """Read a text that can be written, too."""
        text = str(self.construct_scalar(node))
        if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
            raise ConfigError(f"the text{_place(node.start_mark)} holds half of a character.")
        return text

    def construct_undefined(self, node: yaml.Node) -> Any:
        tag = node.tag
        if tag == f"{_PYTHON}tuple" and isinstance(node, yaml.SequenceNode):
            return list(self.construct_sequence(node, deep=True))
        if tag.startswith(PYTHON_NAME):
            name = tag.removeprefix(PYTHON_NAME)
            return locate_trusted(name, f"the name{_place(node.start_mark)}", self.trusted)
        if tag in (_SHAPE_SPEC, PARTIAL) and isinstance(node, yaml.MappingNode):
            fields = {str(name): x for name, x in self.construct_mapping(node, deep=True).items()}
            return (
                self._shape_spec(node, fields)
                if tag == _SHAPE_SPEC
                else _partial(node, fields, self.trusted)
            )
        short = tag.replace(_PYTHON, "!!python/").replace("tag:yaml.org,2002:", "!!")
        raise ConfigError(
            f"the tag {short[:80]}{_place(node.start_mark)} is refused, for it can run code: write "
            "plain values, or a .py config."
        )

    @staticmethod
    def _shape_spec(node: yaml.MappingNode, fields: dict[str, Any]) -> ShapeSpec:
        try:
            return ShapeSpec(**fields)
        except TypeError as error:
            raise ConfigError(
                f"the ShapeSpec{_place(node.start_mark)} is wrong: {error}."
            ) from error


def _partial(
    node: yaml.MappingNode, fields: dict[str, Any], trusted: Sequence[str]
) -> functools.partial[Any]:
    """A partial function as PyYAML writes it; only a name's tag gives a function, a checked one."""
    match fields.get("state"):
        case [function, list(arguments), dict(keywords), None] if callable(function):
            named = dict(zip(_parameters(function), arguments, strict=False)) | keywords
            check_named([arguments, named], "partial", trusted)
            return functools.partial(function, *arguments, **keywords)
    place = _place(node.start_mark)
    raise ConfigError(f"the functools.partial{place} is wrong: expected the state of a function.")


def _parameters(function: Callable[..., Any]) -> list[str]:
    try:
        return list(inspect.signature(function).parameters)
    except ValueError:  # some builtins do not tell
        return []


_Loader.yaml_implicit_resolvers = {
    first: [(tag, regex) for tag, regex in resolvers if tag in _PLAIN and not tag.endswith("float")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", FLOAT, list("-+0123456789."))
_Loader.add_implicit_resolver("tag:yaml.org,2002:merge", re.compile("^<<$"), ["<"])
_Loader.yaml_constructors = {
    tag: constructor
    for tag, constructor in yaml.SafeLoader.yaml_constructors.items()
    if tag in _PLAIN
}
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_number)
_Loader.add_constructor("tag:yaml.org,2002:bool", _Loader.construct_truth)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_number)
_Loader.add_constructor("tag:yaml.org,2002:str", _Loader.construct_text)
_Loader.add_constructor(None, _Loader.construct_undefined)


def _measure(root: yaml.Node | None) -> None:
    """Count a document's values as if each alias were written out."""
    sizes: dict[int, int] = {}

    def size(node: yaml.Node) -> int:
        if id(node) in sizes:
            if not sizes[id(node)]:
                raise ConfigError(f"the alias{_place(node.start_mark)} holds itself.")
            return sizes[id(node)]
        sizes[id(node)] = 0
        total = 1
        if not isinstance(node, yaml.ScalarNode):
            for item in node.value:
                total += sum(map(size, item)) if isinstance(item, tuple) else size(item)
        if total > MAX_NODES:
            raise ConfigError(
                f"it holds more than {MAX_NODES} values once its aliases are written out."
            )
        sizes[id(node)] = total
        return total

    if root is not None:
        size(root)


def _place(mark: Any) -> str:
    return f" in line {mark.line + 1}" if mark is not None else ""
