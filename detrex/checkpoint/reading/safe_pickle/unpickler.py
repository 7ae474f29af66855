"""Read pickles of strangers: a stack machine of our own that can make nothing but plain data.

Python's unpicklers call what the file names, and reserve what the file claims. This one knows the
opcodes of protocols 0 to 5 that build numbers, texts and containers; every other object comes from
a table of names whose functions check what they are given (`values`, `tensors`). Nothing is
imported, no claim of a size is believed beyond the bytes that are there, the memory of each object
is added up before it is made (`detrex.checkpoint.reading.bounds`), and what was read is measured at
the end (`plain_data`).
"""

import os
import struct
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping
from pickle import UnpicklingError
from typing import IO, Any

import torch

from detrex.checkpoint.reading.bounds import allowance
from detrex.checkpoint.reading.safe_pickle.plain_data import (
    CONTAINERS,
    ForbiddenNameError,
    UnfitContentError,
    check_content,
    check_key,
    shorten,
)

# Longest line that is no text, and longest integer, both in bytes.
_MAX_LINE, _MAX_INTEGER = 1000, 255
# Content is at most 100 deep, and each level has few marks.
_MAX_MARKS = 1000
# Bytes of memory, measured and rounded up: of an object, of an entry of the memo or of a dictionary
# or set, of a container with what measuring it takes, and of what a call makes.
_SMALL, _ENTRY, _CONTAINER, _SET, _CALL = 64, 112, 256, 448, 640
_FEW = 16
_RENAMED = {"__builtin__": "builtins", "copy_reg": "copyreg"}


class Pending:
    """An object that is incomplete until the pickle gives its state (opcode BUILD)."""

    def __init__(self) -> None:
        self.slots: list[int] = []

    def build(self, state: Any) -> Any:
        """Make the object that takes this one's place.

        Args:
            state: what the file gives, of any type.
        """
        raise NotImplementedError


class SafeUnpickler:
    """Unpickle plain data, and what the functions of a table make of it."""

    def __init__(
        self,
        stream: IO[bytes],
        names: Mapping[str, Any],
        persistent_load: Callable[[Any], Any] | None = None,
        *,
        file_size: int = 0,
    ) -> None:
        """Bind the machine to a file.

        Args:
            stream: a seekable file, at the beginning of a pickle.
            names: what each ``module.name`` stands for: a function that checks its arguments, a
                constant, or an `UnfitContentError` to be raised.
            persistent_load: gives the object of a persistent id; by default there are none.
            file_size: bytes of the file that the pickle is a part of, where that is more than what
                is left of the stream; it bounds the memory.
        """
        here = stream.tell()
        self._left = self._size = stream.seek(0, os.SEEK_END) - here
        stream.seek(here)
        self._stream = stream
        self._names = names
        self._persistent_load = persistent_load
        self._allowance = allowance(max(self._size, file_size))
        self._memo: dict[int, Any] = {}
        self._stack: list[Any] = []
        self._outer: list[list[Any]] = []
        self._protocol = 0

    def load(self) -> Any:
        """Read one pickle, and leave the file behind it.

        Returns:
            Its content: numbers, texts, containers, and what the table's functions made.

        Raises:
            ForbiddenNameError: it names what is not in the table.
            UnpicklingError: it is damaged, or made to do harm.
        """
        while (code := self._read(1)) != b".":
            self._spend(_COSTS.get(code, _SMALL))
            if code in _CONSTANTS:
                self._stack.append(_CONSTANTS[code])
            elif code in _EMPTY:
                self._stack.append(_EMPTY[code]())
            elif code in _FIXED:
                self._stack.append(struct.unpack(_FIXED[code], self._read_as(_FIXED[code]))[0])
            elif code in _SIZED:
                width, decode = _SIZED[code]
                size = int.from_bytes(self._read(width), "little")
                if size <= self._left:
                    self._spend(4 * size)  # of a text with a character beyond the first 65536
                self._stack.append(decode(self._read(size)))
            elif code in _LINES:
                self._stack.append(_LINES[code](self._read_line(code in b"VS")))
            elif code in _STEPS:
                _STEPS[code](self)
            else:
                raise UnpicklingError(f"the code {code!r} has no place in a file of weights")
        content = self._pop()
        check_content(content, self._size)
        return content

    def _read(self, size: int) -> bytes:
        if size > self._left:
            raise UnpicklingError("it ends too early")
        self._left -= size
        data = self._stream.read(size)
        if len(data) != size:
            raise UnpicklingError("it ends too early")
        return data

    def _read_as(self, layout: str) -> bytes:
        return self._read(struct.calcsize(layout))

    def _read_line(self, any_length: bool = False) -> bytes:
        line = self._stream.readline(-1 if any_length else _MAX_LINE)
        self._left -= len(line)
        self._spend(4 * len(line))
        if not line.endswith(b"\n"):
            raise UnpicklingError("a line does not end")
        return line[:-1].removesuffix(b"\r")

    def _pop(self) -> Any:
        if not self._stack:
            raise UnpicklingError("a value is missing")
        return self._stack.pop()

    def _top(self, *types: type) -> Any:
        if not self._stack:
            raise UnpicklingError("a value is missing")
        if types and type(self._stack[-1]) not in types:
            raise UnpicklingError(f"a {type(self._stack[-1]).__name__} is no container to fill")
        return self._stack[-1]

    def _pop_mark(self) -> list[Any]:
        if not self._outer:
            raise UnpicklingError("a mark is missing")
        items = self._stack
        self._stack = self._outer.pop()
        return items

    def _spend(self, memory: int) -> None:
        self._allowance -= memory
        if self._allowance < 0:
            raise UnpicklingError("it takes many times its size in memory")

    def _charge(self, arguments: Iterable[Any]) -> None:
        """Bound what calls may copy: the same long text could be given to each of many calls."""
        for argument in arguments:
            if isinstance(argument, (str, bytes, bytearray)):
                self._spend(2 * len(argument))
            elif isinstance(argument, dict) and argument:
                # Counts to copy, or the flags of a tensor, which is then a view of a view.
                self._spend(2 * _CALL + len(argument) * _ENTRY)
            elif isinstance(argument, CONTAINERS):
                self._spend(len(argument) * (8 if len(argument) <= _FEW else _ENTRY))

    def _mark(self) -> None:
        if len(self._outer) >= _MAX_MARKS:
            raise UnpicklingError(f"it has more than {_MAX_MARKS} open marks")
        self._outer.append(self._stack)
        self._stack = []

    def _duplicate(self) -> None:
        self._stack.append(self._top())

    def _protocol_number(self) -> None:
        self._protocol = self._read(1)[0]
        if self._protocol > 5:
            raise UnpicklingError(f"there is no pickle protocol {self._protocol}")

    def _frame(self) -> None:
        if int.from_bytes(self._read(8), "little") > self._left:
            raise UnpicklingError("it ends too early")

    def _tuple(self) -> None:
        items = self._pop_mark()
        self._stack.append(tuple(items))

    def _tuple_of(self, count: int) -> None:
        if len(self._stack) < count:
            raise UnpicklingError("a value is missing")
        self._stack[-count:] = [tuple(self._stack[-count:])]

    def _list(self) -> None:
        items = self._pop_mark()
        self._stack.append(items)

    def _dict(self) -> None:
        items = self._pop_mark()
        self._stack.append({})
        self._set_items(items)

    def _append(self, items: list[Any]) -> None:
        self._top(list).extend(items)

    def _set_items(self, items: list[Any]) -> None:
        if len(items) % 2:
            raise UnpicklingError("a key has no value")
        target = self._top(dict, OrderedDict, Counter)
        self._spend(_ENTRY * len(items) // 2)
        for key, value in zip(items[::2], items[1::2], strict=True):
            check_key(key)
            target[key] = value

    def _set_item(self) -> None:
        value = self._pop()
        self._set_items([self._pop(), value])

    def _add_items(self) -> None:
        items = self._pop_mark()
        for item in items:
            check_key(item)
        self._spend(_ENTRY * len(items))
        self._top(set).update(items)

    def _frozenset(self) -> None:
        items = self._pop_mark()
        for item in items:
            check_key(item)
        self._spend(_ENTRY * len(items))
        self._stack.append(frozenset(items))

    def _put(self, index: int) -> None:
        value = self._top()
        if isinstance(value, Pending):
            value.slots.append(index)
        self._memo[index] = value

    def _get(self, index: int) -> None:
        if index not in self._memo:
            raise UnpicklingError(f"it refers to a part {index} that it lacks")
        self._stack.append(self._memo[index])

    def _index(self, width: int) -> int:
        return int.from_bytes(self._read(width), "little")

    def _global(self, module: str, name: str) -> None:
        if self._protocol < 3:
            module = _RENAMED.get(module, module)
        full = f"{module}.{name}"
        if full not in self._names:
            raise ForbiddenNameError(shorten(full))
        value = self._names[full]
        if isinstance(value, UnfitContentError):
            raise UnfitContentError(*value.args)
        self._stack.append(value)

    def _global_of_lines(self) -> None:
        module = self._read_line().decode()
        self._global(module, self._read_line().decode())

    def _global_of_stack(self) -> None:
        name, module = self._pop(), self._pop()
        if not (isinstance(name, str) and isinstance(module, str)):
            raise UnpicklingError("a name is no text")
        self._global(module, name)

    def _reduce(self) -> None:
        arguments, function = self._pop(), self._pop()
        if not callable(function) or type(arguments) is not tuple:
            raise UnpicklingError(f"a {type(function).__name__} is called")
        self._charge(arguments)
        self._stack.append(function(*arguments))

    def _persistent(self) -> None:
        if self._persistent_load is None:
            raise UnpicklingError("it refers to data outside it")
        self._stack.append(self._persistent_load(self._pop()))

    def _build(self) -> None:
        state, target = self._pop(), self._top()
        if isinstance(target, Pending):
            self._charge(state if isinstance(state, tuple) else ())
            value = target.build(state)
            for slot in target.slots:
                self._memo[slot] = value
            target.slots = []
            self._stack[-1] = value
        elif type(target) is OrderedDict and isinstance(state, dict):
            # The versions of its modules, which torch adds to every state dict.
            target.__dict__.update({k: v for k, v in state.items() if k == "_metadata"})
        elif not isinstance(target, torch.Tensor):
            raise UnpicklingError(f"a {type(target).__name__} is given a state")


_COSTS = {
    **dict.fromkeys((b"]", b"}", b"t", b"\x85", b"\x86", b"\x87", b"l", b"d"), _CONTAINER),
    **dict.fromkeys((b"\x8f", b"\x91"), _SET),
    **dict.fromkeys((b"p", b"q", b"r", b"\x94"), _ENTRY),
    **dict.fromkeys((b"R", b"\x81", b"b"), _CALL),
    # Constants, and what takes things off the stack or from the memo.
    **dict.fromkeys((b"N", b"\x88", b"\x89", b")", b"2", b"h", b"g", b"j", b"Q"), 9),
    **dict.fromkeys((b"(", b"0", b"1", b"a", b"e", b"s", b"u", b"\x90", b"\x80", b"\x95"), 0),
}


def _integer(data: bytes) -> int:
    if len(data) > _MAX_INTEGER:
        raise UnpicklingError(f"an integer takes {len(data)} bytes")
    return int.from_bytes(data, "little", signed=True)


def _integer_or_flag(line: bytes) -> int | bool:
    return {b"00": False, b"01": True}[line] if line in (b"00", b"01") else int(line)


def _quoted(line: bytes) -> str:
    if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"'):
        raise UnpicklingError("a text lacks its quotes")
    return _escaped(line[1:-1], "unicode_escape")


def _escaped(line: bytes, encoding: str = "raw_unicode_escape") -> str:
    text = line.decode(encoding)
    text.encode()  # escapes can give halves of characters, which nothing can print
    return text


def _latin1(data: bytes) -> str:
    return data.decode("latin1")


_CONSTANTS: dict[bytes, Any] = {b"N": None, b"\x88": True, b"\x89": False, b")": ()}
_EMPTY: dict[bytes, Callable[[], Any]] = {b"]": list, b"}": dict, b"\x8f": set}
_FIXED = {b"K": "<B", b"M": "<H", b"J": "<i", b"G": ">d"}
# Bytes of the length that goes before, and what the data are.
_SIZED: dict[bytes, tuple[int, Callable[[bytes], Any]]] = {
    b"\x8a": (1, _integer),
    b"\x8b": (4, _integer),
    b"C": (1, bytes),
    b"B": (4, bytes),
    b"\x8e": (8, bytes),
    b"\x96": (8, bytearray),
    b"\x8c": (1, bytes.decode),
    b"X": (4, bytes.decode),
    b"\x8d": (8, bytes.decode),
    b"U": (1, _latin1),
    b"T": (4, _latin1),
}
_LINES: dict[bytes, Callable[[bytes], Any]] = {
    b"I": _integer_or_flag,
    b"L": lambda line: int(line.removesuffix(b"L")),
    b"F": float,
    b"V": _escaped,
    b"S": _quoted,
}
_STEPS: dict[bytes, Callable[[SafeUnpickler], object]] = {
    b"\x80": SafeUnpickler._protocol_number,
    b"\x95": SafeUnpickler._frame,
    b"(": SafeUnpickler._mark,
    b"0": SafeUnpickler._pop,
    b"1": SafeUnpickler._pop_mark,
    b"2": SafeUnpickler._duplicate,
    b"t": SafeUnpickler._tuple,
    b"\x85": lambda machine: machine._tuple_of(1),
    b"\x86": lambda machine: machine._tuple_of(2),
    b"\x87": lambda machine: machine._tuple_of(3),
    b"l": SafeUnpickler._list,
    b"d": SafeUnpickler._dict,
    b"a": lambda machine: machine._append([machine._pop()]),
    b"e": lambda machine: machine._append(machine._pop_mark()),
    b"s": SafeUnpickler._set_item,
    b"u": lambda machine: machine._set_items(machine._pop_mark()),
    b"\x90": SafeUnpickler._add_items,
    b"\x91": SafeUnpickler._frozenset,
    b"p": lambda machine: machine._put(int(machine._read_line())),
    b"q": lambda machine: machine._put(machine._index(1)),
    b"r": lambda machine: machine._put(machine._index(4)),
    b"\x94": lambda machine: machine._put(len(machine._memo)),
    b"g": lambda machine: machine._get(int(machine._read_line())),
    b"h": lambda machine: machine._get(machine._index(1)),
    b"j": lambda machine: machine._get(machine._index(4)),
    b"c": SafeUnpickler._global_of_lines,
    b"\x93": SafeUnpickler._global_of_stack,
    b"R": SafeUnpickler._reduce,
    b"\x81": SafeUnpickler._reduce,
    b"Q": SafeUnpickler._persistent,
    b"b": SafeUnpickler._build,
}
