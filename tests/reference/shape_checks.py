"""Functions of the package that hold their tensors against the shapes in their signatures.

What they hold is kept without its data, so that signatures with other shapes can be tried on it.
"""

import dataclasses
import functools
import importlib
import inspect
import re
import sys
import types
import typing
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

from jaxtyping import AbstractArray, AnnotationError, Shaped, jaxtyped
from torch import Tensor
from torch.utils._pytree import tree_map_only

import detrex

Hints = dict[str, Any]
Change = Callable[[int, Any], Any]
NO_TENSOR = Shaped[Tensor, " ".join(["997"] * 9)]


@dataclasses.dataclass
class Call:
    """What goes in and comes out of a function, or what an object holds, and what they shall be."""

    hints: Hints
    values: dict[str, Any]

    def misfits(self, hints: Hints | None = None) -> list[str]:
        """Say which values are not what `hints`, or their own, say."""
        hints = self.hints if hints is None else hints
        with jaxtyped("context"):
            wrong = [name for name, value in self.values.items() if not fits(value, hints[name])]
        return [f"{name} is no {hints[name]}: {sizes(self.values[name])}" for name in wrong]


def sizes(value: Any) -> Any:
    return tree_map_only(Tensor, lambda tensor: (tensor.dtype, *tensor.shape), value)


def fits(value: Any, hint: Any) -> bool:
    """Whether a value is what an annotation says, tensors within containers too."""
    kind, inner = typing.get_origin(hint), typing.get_args(hint)
    if kind in (typing.Union, types.UnionType):
        return any(fits(value, one) for one in inner)
    if kind is not None and not isinstance(value, kind):
        return False
    if kind is tuple and inner[-1] is not ...:
        return len(value) == len(inner) and all(map(fits, value, inner))
    if kind is not None and issubclass(kind, Mapping):
        return all(fits(item, inner[1]) for item in value.values())
    if kind is not None and issubclass(kind, Iterable):
        return all(fits(item, inner[0]) for item in value)
    if isinstance(hint, type) and issubclass(hint, (AbstractArray, Tensor, types.NoneType)):
        with suppress(AnnotationError):  # a size that is computed of one that is not known
            return isinstance(value, hint)
        return False
    return not isinstance(value, Tensor)


def changed(hints: Hints, change: Change) -> Hints:
    """Annotations whose shapes, which are counted through, are replaced by what `change` gives."""
    count = iter(range(1000))

    def visit(hint: Any) -> Any:
        if isinstance(hint, type) and issubclass(hint, AbstractArray):
            return change(next(count), hint)
        inner = tuple(map(visit, typing.get_args(hint)))
        kind = typing.get_origin(hint)
        if kind is None or not inner:
            return hint
        return typing.Union[inner] if kind is types.UnionType else kind[inner]  # noqa: UP007

    return {name: visit(hint) for name, hint in hints.items()}


def shapes_in(hints: Hints) -> list[Any]:
    """All shapes that annotations name."""
    found: list[Any] = []
    changed(hints, lambda _, shape: found.append(shape) or shape)
    return found


def names_in(hints: Hints) -> list[str]:
    """The sizes of single axes that annotations name."""
    tokens = " ".join(shape.dim_str for shape in shapes_in(hints)).split()
    fixed = " ".join(token for token in tokens if not token.startswith("*"))
    return sorted(set(re.findall(r"[A-Za-z]\w*", fixed)))


def mutants(hints: Hints) -> Iterator[tuple[str, Hints]]:
    """Annotations that are wrong, if they tell something: each should fail some call."""
    for index, shape in enumerate(shapes_in(hints)):
        lost = changed(hints, lambda i, s, index=index: NO_TENSOR if i == index else s)
        yield f"shape {index}, {shape}, is of no value", lost
    names = names_in(hints)
    for place, name in enumerate(names):
        for other in names[:place]:

            def rename(_: int, shape: Any, name: str = name, other: str = other) -> Any:
                dims = re.sub(rf"(?<!\w){name}(?!\w)", other, shape.dim_str)
                return Shaped[shape.array_type, dims]

            yield f"{name} and {other} are always alike", changed(hints, rename)


def with_shapes() -> dict[str, tuple[Any, str]]:
    """Whatever names shapes in the package: by full name its owner and its own name."""
    found, root = {}, Path(detrex.__file__).parent
    for file in sorted(root.rglob("*.py")):
        if "from jaxtyping import" not in file.read_text(encoding="utf-8"):
            continue
        module = importlib.import_module(
            ".".join(file.relative_to(root.parent).with_suffix("").parts)
        )
        own = [value for value in vars(module).values() if _is_of(module, value)]
        for owner in [module, *(value for value in own if isinstance(value, type))]:
            for name, value in vars(owner).items():
                inner = function_of(value)
                # what a record is built by says what the record itself says
                if name[:2] != "__" and _is_of(module, inner) and shapes_in(hints_of(inner)):
                    found[f"{module.__name__}.{inner.__qualname__}"] = (owner, name)
    return found


def _is_of(module: Any, value: Any) -> bool:
    return getattr(value, "__module__", None) == module.__name__ and hasattr(value, "__qualname__")


def is_record(value: Any) -> bool:
    return dataclasses.is_dataclass(value) or hasattr(value, "_fields")


def function_of(value: Any) -> Any:
    """The function behind a method or a property; other values as they are."""
    for name in ("__func__", "fget", "func"):
        value = getattr(value, name, value)
    return value


def hints_of(value: Any) -> Hints:
    if not (inspect.isfunction(value) or is_record(value)):
        return {}
    hints = inspect.get_annotations(value)  # those in quotes name no shapes
    return {name: hint for name, hint in hints.items() if shapes_in({name: hint})}


def checked(function: Any, hints: Hints, calls: list[Call]) -> Any:
    """A function, or the constructor of a record, that checks and keeps what it holds."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def check(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        arguments = signature.bind(*args, **kwargs).arguments
        held = {**arguments, "return": result}
        values = {name: held[name] for name in hints if name in held}
        call = Call(hints, tree_map_only(Tensor, lambda tensor: tensor.detach(), values))
        assert not (wrong := call.misfits()), f"{function.__qualname__}: {'; '.join(wrong)}"
        call.values = tree_map_only(Tensor, lambda tensor: tensor.to("meta"), call.values)
        calls.append(call)
        return result

    return check


@contextmanager
def checking() -> Iterator[dict[str, list[Call]]]:
    """Check whatever names shapes and runs within; gives the calls by full name."""
    calls: dict[str, list[Call]] = {}
    shaped, importers = with_shapes(), _importers()
    with ExitStack() as stack:
        for name, (owner, attribute) in shaped.items():
            value = vars(owner)[attribute]
            hints, kept = hints_of(function_of(value)), calls.setdefault(name, [])
            if is_record(value):  # which stays the same class, for those who ask what an object is
                attribute = "__init__" if dataclasses.is_dataclass(value) else "__new__"
                new = checked(vars(value)[attribute], hints, kept)
                stack.enter_context(patch.object(value, attribute, new))
                continue
            new = checked(function_of(value), hints, kept)
            if not inspect.isfunction(value):
                new = type(value)(new)
                getattr(new, "__set_name__", lambda *_: None)(owner, attribute)
            holders = importers[id(value)] if inspect.ismodule(owner) else [(owner, attribute)]
            for holder, key in holders:
                stack.enter_context(patch.object(holder, key, new))
        yield calls


def _importers() -> dict[int, list[tuple[Any, str]]]:
    """The modules that hold each function, and under which names."""
    found: dict[int, list[tuple[Any, str]]] = defaultdict(list)
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] in ("detrex", "tests"):
            for key, value in vars(module).items():
                found[id(value)].append((module, key))
    return found
