"""What a config that is no program may call: names from YAML files and from the command line.

A ``.py`` config runs as the program that it is. What comes as text instead can only name things of
the packages below, and the name is checked before anything is imported or called.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from detectron2.utils.registry import locate
from omegaconf.errors import OmegaConfBaseException
from omegaconf.grammar_parser import parse

from detrex.config.lazy_call import plain
from detrex.errors import ConfigError, did_you_mean

TRUSTED_PACKAGES = ("torch", "torchvision", "timm", "detectron2", "detrex", "fvcore")
"""The packages whose classes and functions may be named."""

TRUSTED_BUILTINS = frozenset({"bool", "dict", "float", "int", "list", "range", "str", "tuple"})
"""The builtins that may be named beside them."""

# These make a config's text into calls that nobody checked.
_REFUSED_RESOLVERS = frozenset({"oc.create", "oc.decode"})


def locate_trusted(name: Any, where: str) -> Any:
    """Import a class or function by its name, if it is one that text may name.

    Args:
        name: dotted, e.g. ``"torch.nn.GroupNorm"``.
        where: what names it, for messages, e.g. ``"model._target_"``.

    Returns:
        The class or function.

    Raises:
        ConfigError: it is of another package, by its name or by where it was defined (as
            ``torch.os.system`` is), or there is no such thing.

    Example:
        >>> locate_trusted("torch.nn.GroupNorm", "model._target_").__name__
        'GroupNorm'
    """
    if not isinstance(name, str) or "${" in name:
        raise ConfigError(
            f"{where}={name!r} cannot be used: expected the name of a class or function, such as "
            "'torch.nn.GroupNorm'."
        )
    _require_trusted(name, name, where)
    try:
        found = locate(name)
    except Exception as error:  # importing runs any code of the package
        raise ConfigError(
            f"{where}={name!r} cannot be imported: {str(error).strip().splitlines()[0]}"
            f"{_near(name)}"
        ) from error
    if not callable(found):
        raise ConfigError(f"{where}={name!r} is a {type(found).__name__}, which cannot be called.")
    _require_trusted(f"{_home(found)}.{getattr(found, '__name__', '')}", name, where)
    return found


def check_named(value: Any, where: str = "") -> None:
    """Check every ``_target_`` in plain containers, and that no interpolation makes up others.

    Args:
        value: what was read: dicts, lists and scalars.
        where: its dotted place in the config.

    Raises:
        ConfigError: see `locate_trusted`.
    """
    for path, item in _leaves(value, where):
        if path.rpartition(".")[2] == "_target_":
            locate_trusted(item, path)
        elif isinstance(item, str) and "${" in item:
            _check_resolvers(item, path)


def _require_trusted(home: str, name: str, where: str) -> None:
    package, _, rest = home.partition(".")
    if package in TRUSTED_PACKAGES or (package == "builtins" and rest in TRUSTED_BUILTINS):
        return
    raise ConfigError(
        f"{where}={name!r} is refused: YAML and the command line may name things of "
        f"{', '.join(TRUSTED_PACKAGES)} only; call anything else in a .py config."
    )


def _home(found: Any) -> str:
    """The module that defines an object; of a builtin function that of the class that holds it."""
    owner = getattr(found, "__self__", None)
    return str(getattr(found, "__module__", None) or getattr(owner, "__module__", ""))


def _near(name: str) -> str:
    parent, _, last = name.rpartition(".")
    try:
        return did_you_mean(last, dir(locate(parent)))
    except Exception:  # the hint is only for what can be imported
        return ""


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Go through scalars, and whatever stands under ``_target_``."""
    if path.rpartition(".")[2] == "_target_":
        yield path, value
        return
    value = plain(value)
    if isinstance(value, Mapping):
        children = [
            (f"{path}.{name!s}" if path else str(name), item) for name, item in value.items()
        ]
    elif isinstance(value, list | tuple):
        children = [(f"{path}[{index}]", item) for index, item in enumerate(value)]
    else:
        yield path, value
        return
    for inner, item in children:
        yield from _leaves(item, inner)


def _check_resolvers(text: str, where: str) -> None:
    try:
        tree = parse(text)
    except OmegaConfBaseException:
        return  # it resolves to nothing, which the lint tells
    for node in _descend(tree):
        if type(node).__name__ != "InterpolationResolverContext":
            continue
        resolver = node.resolverName().getText()
        if resolver in _REFUSED_RESOLVERS or "${" in resolver:
            raise ConfigError(
                f"{where}={text!r} is refused: {resolver} makes a part of the config out of text; "
                "write the part itself."
            )


def _descend(tree: Any) -> Iterator[Any]:
    yield tree
    for child in getattr(tree, "children", None) or ():
        yield from _descend(child)
