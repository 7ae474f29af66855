"""Pickles by a grammar: values of every kind, in any opcode that writes them, and some nonsense.

A value where another kind is expected, a reference to a part that is incomplete, an argument too
many: each choice is right most of the time, so that what is read gets far before it goes wrong.
"""

import pickletools
import random
import struct

NUMBERS = (0, 1, -1, 2, 7, 255, 256, 2**16, 2**31 - 1, -(2**31), 2**40, 2**62, -(2**63))
NAMES = (
    *("numpy dtype", "numpy ndarray", "numpy.core.multiarray _reconstruct", "numpy matrix"),
    *("numpy._core.multiarray scalar", "numpy.core.numeric _frombuffer", "_codecs encode"),
    *("collections OrderedDict", "collections Counter", "builtins set", "__builtin__ bytearray"),
    *("builtins complex", "os system", "torch FloatStorage", "torch BoolStorage", "torch Size"),
    *("torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_tensor_v3", "torch float32"),
    *("torch._utils _rebuild_parameter", "torch._tensor _rebuild_from_type_v2", "torch device"),
    *("torch._utils _rebuild_qtensor", "torch FloatTensor", "torch.nn.parameter Parameter"),
)
_TYPES = ("f4", "f8", "i8", "u1", "b1", "f2", "c8", "O8", "V8", "S4", "U2", "M8", "f4,f4", "")
_STORAGES = ("Float", "Long", "Half", "Bool", "ComplexFloat", "QInt8", "Byte", "BFloat16")
_TEXTS = ("model", "a", "a.weight", "cpu", "meta", "latin1", "teacher", "\u00e9", "\n", "x" * 300)


def random_opcode(rng: random.Random) -> bytes:
    """Write one opcode with an argument that is likely to hurt."""
    way = rng.randrange(8)
    if way == 0:
        return _named(rng.choice(NAMES))
    if way == 1:
        return b"J" + struct.pack("<i", max(-(2**31), min(2**31 - 1, rng.choice(NUMBERS))))
    if way == 2:
        return rng.choice((b"h", b"q")) + bytes([rng.randrange(40)])
    if way == 3:
        text = rng.choice((b"O8", b"f4", b"V8", b"<", b"model", b"storage", b"\xff" * 8))
        return rng.choice((b"X", b"B", b"T")) + len(text).to_bytes(4, "little") + text
    if way == 4:
        size = rng.choice((0, 4, 2**31, 2**62)).to_bytes(8, "little")
        return rng.choice((b"\x8e", b"\x8d", b"\x96", b"\x95", b"\x8b", b"r", b"j")) + size
    if way == 5:
        return rng.choice(pickletools.opcodes).code.encode("latin1")
    return bytes([rng.choice(b"RRRbbb\x81(tueas012]})\x85\x86\x87\x8f\x90\x91\x94Q")])


def made_up_pickle(rng: random.Random) -> bytes:
    """Write a pickle of a dictionary with a few values."""
    made = _Pickle(rng)
    entries = [made.text() + made.any() for _ in range(rng.randrange(1, 4))]
    body = b"}(" + b"".join(entries) + b"u"
    if rng.random() < 0.1:
        body = made.any()
    return b"\x80" + bytes([rng.choice((2, 2, 4, 5))]) + body + b"."


def _named(name: str) -> bytes:
    module, _, attribute = name.partition(" ")
    return f"c{module}\n{attribute}\n".encode()


class _Pickle:
    """One pickle that grows, with what it remembers."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.known = 0
        self.left = 60

    def any(self) -> bytes:
        self.left -= 1
        makers = (self.text, self.number, self.plain)
        if self.left > 0:
            makers += (self.container, self.array, self.array, self.tensor, self.tensor, self.call)
            makers += (
                self.again,
                self.noise,
                self.array,
                self.tensor,
                self.old_tensor,
                self.text,
                self.parameter,
            )
        return self._remembered(self.rng.choice(makers)())

    def _remembered(self, value: bytes) -> bytes:
        if self.rng.random() < 0.7:
            return value
        self.known += 1
        return value + b"r" + struct.pack("<I", self.known)

    def again(self) -> bytes:
        at = self.rng.randrange(self.known + 1)
        return b"j" + struct.pack("<I", at) if at else self.plain()

    def noise(self) -> bytes:
        return b"".join(random_opcode(self.rng) for _ in range(self.rng.choice((1, 1, 2, 9))))

    def _or_else(self, value: bytes) -> bytes:
        return self.any() if self.rng.random() < 0.02 else value

    def text(self, *texts: str) -> bytes:
        text = self.rng.choice(texts or _TEXTS).encode()
        return self.rng.choice(
            (
                b"X" + struct.pack("<I", len(text)) + text,
                b"\x8d" + struct.pack("<Q", len(text)) + text,
                b"T" + struct.pack("<I", len(text)) + text,
            )
        )

    def raw(self, size: int) -> bytes:
        return self._or_else(
            self.rng.choice((b"B", b"B", b"T")) + struct.pack("<I", size) + self.rng.randbytes(size)
        )

    def number(self, *numbers: int) -> bytes:
        number = self.rng.choice(numbers or NUMBERS)
        data = number.to_bytes(number.bit_length() // 8 + 1, "little", signed=True)
        long, line = b"\x8a" + bytes([len(data)]) + data, f"I{number}\n".encode()
        return self._or_else(self.rng.choice((long, long, line)))

    def plain(self) -> bytes:
        real = b"G" + struct.pack(">d", self.rng.choice((0.0, 1.5, float("nan"), float("inf"))))
        return self.rng.choice((b"N", b"\x88", b"\x89", b")", b"]", b"}", b"\x8f", real))

    def row(self, *parts: bytes) -> bytes:
        return self._or_else(b"(" + b"".join(parts) + b"t")

    def shape(self, *sizes: int) -> bytes:
        return self.row(*(self.number(*[size] * 40, *NUMBERS[:2]) for size in sizes))

    def container(self) -> bytes:
        parts = [self.any() for _ in range(self.rng.randrange(4))]
        items = b"(" + b"".join(parts)
        pairs = b"}(" + b"".join(self.text() + part for part in parts) + b"u"
        texts = b"(" + b"".join(self.text() for _ in parts)
        return self.rng.choice(
            (
                *(b"]" + items + b"e", items + b"t", items + b"l", pairs, pairs, pairs),
                *(texts + b"\x91", b"\x8f" + texts + b"\x90", items + b"d"),
            )
        )

    def _call(self, name: str, *arguments: bytes) -> bytes:
        return self._or_else(_named(name)) + self.row(*arguments) + self.rng.choice((b"R", b"\x81"))

    def call(self) -> bytes:
        name = self.rng.choice(NAMES)
        return self._call(name, *[self.any() for _ in range(self.rng.randrange(4))])

    def number_type(self) -> bytes:
        made = self._call(
            "numpy dtype", self.text(*_TYPES[:1] * 60, *_TYPES), self.number(0), self.number(1)
        )
        order = self.text(*"<<<<<<<<|>=X")
        end = b"".join(self.number(n) for n in (-1, -1, 0))
        return made + self.row(self.number(3), order, b"NNN", end) + b"b"

    def array(self) -> bytes:
        count = self.rng.choice((0, 1, 2, 4))
        number, shape = self.number_type(), self.shape(count)
        way = self.rng.randrange(4)
        if way == 0:
            return self._call("numpy._core.multiarray scalar", number, self.raw(4))
        if way == 1:
            order = self.text(*"CCCFFKKA")
            data = self.raw(4 * count)
            return self._call("numpy.core.numeric _frombuffer", data, number, shape, order)
        blank = self._call(
            "numpy.core.multiarray _reconstruct",
            self._or_else(_named("numpy ndarray")),
            self.shape(0),
            self.raw(1),
        )
        state = self.row(self.number(1), shape, number, b"\x89", self.raw(4 * count))
        return self._remembered(blank) + state + b"b"

    def storage(self) -> bytes:
        kind = self.rng.choice(_STORAGES[:1] * 60 + _STORAGES)
        described = (
            self.text("storage"),
            _named(f"torch {kind}Storage"),
            self.text(*"012" * 8, "9", "../0"),
            self.text("cpu", "cuda:0", "meta"),
            self.number(*[4] * 20, 16, 0, 1, 2**40, -1),
        )
        return b"(" + b"".join(described) + b"tQ"

    def _place(self) -> tuple[bytes, ...]:
        sizes = self.rng.choice(
            ((4,), (2, 2), (1,), (2, 1), (), (0,)) * 3 + ((3, 2), (2**31, 2**31))
        )
        steps = self.rng.choice((sizes[::-1], (1,) * len(sizes), (0,) * len(sizes)))
        offset = self.number(*[0] * 20, 1, 3, -1, 2**62)
        return self._or_else(self.storage()), offset, self.shape(*sizes), self.shape(*steps)

    def tensor(self) -> bytes:
        hooks = self._call("collections OrderedDict")
        flags = b"}" + self.text("conj", "neg") + b"\x88s"
        rest = self.rng.choice(((b"\x89", hooks),) * 5 + ((b"\x89", hooks, flags), ()))
        name = self.rng.choice(("_rebuild_tensor_v2",) * 6 + ("_rebuild_tensor",))
        if self.rng.random() < 0.1:
            kind = _named(f"torch {self.rng.choice(('float32', 'bool', 'int64', 'float8_e5m2'))}")
            rest, name = (b"\x89", hooks, kind), "_rebuild_tensor_v3"
        return self._call(f"torch._utils {name}", *self._place(), *rest)

    def parameter(self) -> bytes:
        return self._call("torch._utils _rebuild_parameter", self.tensor(), b"\x89", b"}")

    def old_tensor(self) -> bytes:
        return self._call("torch FloatTensor") + self.row(*self._place()) + b"b"
