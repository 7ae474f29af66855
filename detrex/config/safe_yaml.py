"""YAML read as data: no tag builds an object but the few that saved configs need."""

import functools
import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml
from detectron2.layers import ShapeSpec

from detrex.config.trust import check_named, locate_trusted
from detrex.errors import ConfigError

MAX_NODES = 100_000
"""The most values that a file may hold once its aliases are written out."""

_PLAIN = {
    f"tag:yaml.org,2002:{name}" for name in ("map", "seq", "str", "int", "float", "bool", "null")
}
_PYTHON = "tag:yaml.org,2002:python/"
_SHAPE_SPEC = f"{_PYTHON}object:{ShapeSpec.__module__}.{ShapeSpec.__name__}"
_PARTIAL = f"{_PYTHON}object/apply:functools.partial"
_FLOAT = re.compile(
    r"^[-+]?(?:[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+"
    r"|\.[0-9_]+(?:[eE][-+]?[0-9]+)?|\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a config that ``LazyConfig.save`` wrote, or one written by hand.

    Beyond YAML's own types there are tuples, ``ShapeSpec``, and names and partials of functions of
    the packages that `detrex.config.trust` lists; 1e-4 is a number.

    Args:
        path: the file.

    Returns:
        Plain containers, whose ``_target_`` names are checked.

    Raises:
        ConfigError: the file is no YAML, holds another tag or a key twice, is too large once its
            aliases are written out, or names what text may not.
    """
    try:
        loader = _Loader(path.read_text(encoding="utf-8"))
        node = loader.get_single_node()
        _measure(node, path)
        value = loader.construct_document(node) if node is not None else {}
    except ConfigError as error:
        raise ConfigError(f"Config {path} cannot be loaded: {error}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = _place(getattr(error, "problem_mark", None))
        reason = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigError(f"Config {path} is no YAML{where}: {reason}.") from error
    except RecursionError:
        raise ConfigError(f"Config {path} is nested too deeply to be a config.") from None
    if not isinstance(value, dict):
        raise ConfigError(
            f"Config {path} holds a {type(value).__name__}, expected keys such as model and train."
        )
    try:
        check_named(value)
    except ConfigError as error:
        raise ConfigError(f"Config {path} cannot be loaded: {error}") from error
    return value


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with a few tags of Python's, and without dates."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for name, _ in node.value:
            if isinstance(name, yaml.ScalarNode) and name.value in seen and name.value != "<<":
                raise ConfigError(f"{name.value} is given twice{_place(name.start_mark)}.")
            seen.add(str(name.value))
        return super().construct_mapping(node, deep)

    def construct_undefined(self, node: yaml.Node) -> Any:
        tag = node.tag
        if tag == f"{_PYTHON}tuple" and isinstance(node, yaml.SequenceNode):
            return list(self.construct_sequence(node, deep=True))
        if tag.startswith(f"{_PYTHON}name:"):
            name = tag.removeprefix(f"{_PYTHON}name:")
            return locate_trusted(name, f"the name{_place(node.start_mark)}")
        if tag in (_SHAPE_SPEC, _PARTIAL) and isinstance(node, yaml.MappingNode):
            fields = {str(name): x for name, x in self.construct_mapping(node, deep=True).items()}
            return self._shape_spec(node, fields) if tag == _SHAPE_SPEC else _partial(node, fields)
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


def _partial(node: yaml.MappingNode, fields: dict[str, Any]) -> functools.partial:
    """A partial function as PyYAML writes it; only a name's tag gives a function, a checked one."""
    match fields.get("state"):
        case [function, list(arguments), dict(keywords), None] if callable(function):
            return functools.partial(function, *arguments, **keywords)
    place = _place(node.start_mark)
    raise ConfigError(f"the functools.partial{place} is wrong: expected the state of a function.")


_Loader.yaml_implicit_resolvers = {
    first: [(tag, regex) for tag, regex in resolvers if tag in _PLAIN and not tag.endswith("float")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))
_Loader.add_implicit_resolver("tag:yaml.org,2002:merge", re.compile("^<<$"), ["<"])
_Loader.yaml_constructors = {
    tag: constructor
    for tag, constructor in yaml.SafeLoader.yaml_constructors.items()
    if tag in _PLAIN
}
_Loader.add_constructor(None, _Loader.construct_undefined)


def _measure(root: yaml.Node | None, path: Path) -> None:
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
