"""Hostile pickles, written opcode by opcode, and the containers that they come in."""

import io
import struct
import zipfile


def text(value):
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def raw(data):
    return b"B" + struct.pack("<I", len(data)) + data


def integer(value):
    data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def named(path):
    module, _, name = path.rpartition(".")
    return f"c{module}\n{name}\n".encode()


def row(*parts):
    return b"(" + b"".join(parts) + b"t"


def call(path, *parts):
    return named(path) + row(*parts) + b"R"


def shape(*sizes):
    return row(*map(integer, sizes))


def pickled(value, key="a"):
    """A pickle of protocol 2 of a dictionary with one entry."""
    return b"\x80\x02}" + text(key) + value + b"s."


NONE = b"N"
CORE = "numpy.core.multiarray."
STATE = (integer(3), text("<"), NONE, NONE, NONE, integer(-1), integer(-1), integer(0))
OBJECTS = (integer(3), text("|"), NONE, NONE, NONE, integer(-1), integer(-1), integer(63))


def dtype(code="f4", state=STATE):
    return call("numpy.dtype", text(code), integer(0), integer(1)) + row(*state) + b"b"


def fields(code, offset):
    """The state of a structured type with one field."""
    entry = b"}" + text("x") + row(dtype(code), integer(offset)) + b"s"
    names = row(text("x"))
    rest = (integer(8), integer(1), integer(16))
    return (integer(3), text("|"), NONE, names, entry, *rest)


BLANK = call(f"{CORE}_reconstruct", named("numpy.ndarray"), shape(0), raw(b"b"))


def state(sizes=None, number=None, data=None, fortran=b"\x89"):
    data = data or raw(b"\x01\0\0\0\x02\0\0\0")
    return row(integer(1), sizes or shape(2), number or dtype(), fortran, data) + b"b"


def array(**parts):
    return BLANK + state(**parts)


def _laughs(empty, fill):
    """Nine containers of which each holds the one before ten times: a billion when walked."""
    out = empty + b"q\x00"
    for level in range(9):
        out += b"0" + empty + fill(bytes([level])) + b"q" + bytes([level + 1])
    return out


def _keys(get):
    return b"(" + b"".join(text(str(i)) + b"h" + get for i in range(10)) + b"u"


DEEP = 50_000
MEBIBYTE = raw(bytes(2**20))
PICKLES = {
    "objects": array(number=dtype("O8", OBJECTS), sizes=shape(1), data=raw(b"A" * 8)),
    "objects_as_a_list": array(number=dtype("O8", OBJECTS), sizes=shape(1), data=b"]"),
    "objects_by_state": array(number=dtype("f4", (OBJECTS[0], text("O"), *OBJECTS[2:]))),
    "object_scalar": call(f"{CORE}scalar", dtype("O8", OBJECTS), raw(b"A" * 8)),
    "structured": array(number=dtype("V8", fields("O8", 0)), sizes=shape(1)),
    "hidden_objects": array(number=dtype("f8", fields("O8", 0)), sizes=shape(1)),
    "offset_beyond_the_item": array(number=dtype("V8", fields("f4", 2**30)), sizes=shape(1)),
    "negative_offset": array(number=dtype("V8", fields("f4", -(2**30))), sizes=shape(1)),
    "subarrays": array(
        number=dtype("V8", (integer(3), text("|"), row(dtype(), shape(2**40)), *STATE[3:]))
    ),
    "item_size_in_the_state": dtype("f4", (*STATE[:5], integer(2**40), integer(8), integer(0))),
    "state_twice": dtype() + row(*fields("O8", 0)) + b"b",
    "bad_byte_order": array(number=dtype("f4", (integer(3), text("X"), *STATE[2:]))),
    "byte_order_a_number": array(number=dtype("f4", (integer(3), integer(1), *STATE[2:]))),
    "no_state_of_the_type": array(number=dtype("f4", ())),
    **{
        f"type_{code}": array(number=dtype(code), sizes=shape(1))
        for code in ("S8", "U2", "M8", "m8", "V8", "O", "f16", "c32", "f4,f4", "O,O", "(2,)f4", "")
    },
    "type_from_a_list": call("numpy.dtype", b"]" + row(text("x"), text("O8")) + b"a"),
    "type_from_a_dict": call("numpy.dtype", b"}" + text("names") + b"]s"),
    "type_without_arguments": call("numpy.dtype"),
    "type_by_newobj": named("numpy.dtype") + row(text("O8")) + b"\x81",
    "type_by_newobj_ex": named("numpy.dtype") + row(text("O8")) + b"}\x92",
    "type_alone": dtype(),
    "array_by_its_class": call("numpy.ndarray", shape(2**40), dtype()),
    "objects_by_its_class": call("numpy.ndarray", shape(1), dtype("O8", OBJECTS), raw(b"A" * 8)),
    "objects_from_a_buffer": call(
        "numpy._core.numeric._frombuffer", raw(b"A" * 8), dtype("O8", OBJECTS), shape(1), text("C")
    ),
    "array_by_newobj": named("numpy.ndarray") + row(shape(2**40)) + b"\x81",
    "array_with_steps": call(
        "numpy.ndarray", shape(4), dtype(), raw(b"1234"), integer(2**40), shape(2**40)
    ),
    "array_of_a_subclass": call(f"{CORE}_reconstruct", named("numpy.matrix"), shape(0), raw(b"b")),
    "array_of_another_class": call(
        f"{CORE}_reconstruct", named("collections.OrderedDict"), shape(0), raw(b"b")
    ),
    "array_without_state": BLANK,
    "array_in_a_list_before_its_state": b"]" + BLANK + b"q\x05ah\x05" + state() + b"0",
    "shape_larger_than_data": array(sizes=shape(2**40)),
    "shape_smaller_than_data": array(sizes=shape(1)),
    "shape_negative": array(sizes=shape(-2)),
    "shape_negative_twice": array(sizes=shape(-1, -2)),
    "shape_overflows": array(sizes=shape(2**32, 2**32), data=raw(b"")),
    "shape_empty_but_huge": array(sizes=shape(0, 2**31, 2**31, 2**31), data=raw(b"")),
    "shape_of_floats": array(sizes=row(b"G" + struct.pack(">d", 2.0))),
    "shape_of_flags": array(sizes=row(b"\x88", b"\x88")),
    "shape_a_list": array(sizes=b"]"),
    "shape_of_hundred": array(sizes=shape(*[1] * 100)),
    "shape_laughs": array(sizes=_laughs(b"]", lambda get: b"(" + (b"h" + get) * 10 + b"e")),
    "data_a_number": array(data=integer(2**60)),
    "data_none": array(data=NONE),
    "data_no_bytes": array(data=text("\u20ac" * 8)),
    "state_too_short": BLANK + row(integer(1)) + b"b",
    "state_a_dict": BLANK + b"}b",
    "state_of_an_array": array() + state(),
    "state_of_a_scalar": call(f"{CORE}scalar", dtype(), raw(b"1234")) + state(),
    "state_of_a_list": b"]" + row(integer(1)) + b"b",
    "state_of_a_dict": b"}}" + text("x") + integer(1) + b"sb",
    "state_of_a_text": text("x") + b"}b",
    "state_of_a_function": named(f"{CORE}scalar") + b"}b",
    "state_of_a_class": named("collections.OrderedDict") + b"}b",
    "slots_of_an_ordered_dict": call("collections.OrderedDict") + row(NONE, b"}") + b"b",
    "scalar_of_nothing": call(f"{CORE}scalar", dtype()),
    "scalar_with_many_bytes": call(f"{CORE}scalar", dtype(), raw(b"12345678")),
    "buffer_of_another_order": call(
        "numpy._core.numeric._frombuffer", raw(b"1234"), dtype(), shape(1), text("Z")
    ),
    "buffer_with_bad_axes": call(
        "numpy.core.numeric._frombuffer", raw(b"1234"), dtype(), shape(1), text("K"), shape(7)
    ),
    "arrays_that_grow": MEBIBYTE
    + b"q\x000]"
    + array(sizes=shape(2**18), data=b"h\x00").join([b"", *[b"a"] * 300]),
    "arrays_that_repeat": b"}"
    + array(sizes=shape(2**18), data=MEBIBYTE)
    + b"q\x000"
    + b"".join(text(str(i)) + b"h\x00s" for i in range(3000)),
    "texts_that_grow": text("x" * 2**20)
    + b"q\x000]"
    + b"".join(call("_codecs.encode", b"h\x00", text("latin1")) + b"a" for _ in range(300)),
    "sets_that_grow": b"]("
    + b"".join(map(integer, range(50_000)))
    + b"eq\x000]"
    + (named("builtins.set") + b"h\x00\x85Ra") * 3000,
    "lists_that_laugh": _laughs(b"]", lambda get: b"(" + (b"h" + get) * 10 + b"e"),
    "dicts_that_laugh": _laughs(b"}", _keys),
    "list_of_itself": b"]q\x00h\x00a",
    "dict_of_itself": b"}q\x00" + text("model") + b"h\x00s",
    "deep_list": b"]" * DEEP + b"a" * (DEEP - 1),
    "deep_tuple": b")" + b"\x85" * DEEP,
    "deep_key": b"})" + b"\x85" * DEEP + b"Ns",
    "deep_set": b"(" * DEEP + b"\x91" * DEEP,
    "deep_dict": b"}N" * DEEP + b"N" + b"s" * DEEP,
    "marks_alone": b"(" * DEEP,
    "memo_index_huge": b"Nr\xff\xff\xff\x7f",
    "memo_index_negative": b"Np-5\n",
    "memo_index_missing": b"j\xff\xff\xff\x7f",
    "integer_bomb": b"\x8b\xff\xff\xff\x7f",
    "integer_long": b"\x8b" + struct.pack("<I", 10**6) + b"\x7f" * 10**6,
    "integer_of_digits": b"L" + b"9" * 10**6 + b"L\n",
    "bytes_bomb": b"\x8e" + struct.pack("<Q", 2**62),
    "bytearray_bomb": b"\x96" + struct.pack("<Q", 2**40),
    "text_bomb": b"\x8d" + struct.pack("<Q", 2**62),
    "frame_lies": b"\x95" + struct.pack("<Q", 2**62) + NONE,
    "text_not_utf8": b"X\x02\0\0\0\xff\xfe",
    "text_surrogate": b"X\x03\0\0\0\xed\xb2\x80",
    "extension": b"\x82\x01",
    "extension_wide": b"\x84\xff\xff\xff\x7f",
    "instance": b"(ios\nsystem\n",
    "object": b"(" + named("numpy.dtype") + text("O8") + b"o",
    "persistent_text": b"P0\n",
    "persistent": integer(0) + b"Q",
    "buffer_outside": b"\x97\x98",
    "encode_elsewhere": call("_codecs.encode", text("41"), text("hex")),
    "encode_a_list": call("_codecs.encode", b"]", text("latin1")),
    "bytearray_huge": call("builtins.bytearray", integer(2**40)),
    "set_of_lists": call("builtins.set", b"]]a"),
    "counter_of_a_number": call("collections.Counter", integer(9)),
    "complex_of_texts": call("builtins.complex", text("1")),
    "pairs_of_three": call("collections.OrderedDict", b"]]" + NONE * 3 + b"aaaa"),
    "append_to_a_dict": b"}Na",
    "append_to_an_array": array() + b"Na",
    "item_of_a_list": b"](NNu",
    "item_of_a_tuple": b")NNs",
    "item_of_nothing": NONE * 3 + b"s",
    "key_a_list": b"}]Ns",
    "key_an_array": b"}" + array() + b"Ns",
    "keys_that_are_odd": b"}(Nu",
    "members_of_a_list": b"](N\x90",
    "call_of_a_text": text("x") + b")R",
    "call_with_a_list": named("builtins.set") + b"]R",
    "call_with_too_many": call(f"{CORE}scalar", *[NONE] * 9),
    "name_of_numbers": integer(1) + integer(2) + b"\x93",
    "name_that_is_long": b"c" + b"x" * 5000 + b"\n" + b"y" * 5000 + b"\n",
    "name_of_lines": text("os\nx" * 3000) + text("sys\ntem") + b"\x93",
    "name_of_the_system": call("os.system", text("exit 1")),
    "stack_is_empty": b"000000",
    "mark_is_missing": b"t",
    "unknown_code": b"\xff",
    "protocol_200": b"\x80\xc8N",
}

UTILS = "torch._utils."


def storage(key="0", kind="torch.FloatStorage", count=4, tag="storage"):
    return row(text(tag), named(kind), text(key), text("cpu"), integer(count)) + b"Q"


def tensor(offset=0, sizes=None, steps=None, source=None):
    places = (integer(offset), sizes or shape(4), steps or shape(1))
    hooks = call("collections.OrderedDict")
    return call(f"{UTILS}_rebuild_tensor_v2", source or storage(), *places, b"\x89", hooks)


TENSORS = {
    "offset_beyond": tensor(offset=2**40),
    "offset_by_one": tensor(offset=1),
    "offset_negative": tensor(offset=-1),
    "step_beyond": tensor(steps=shape(2**40)),
    "step_negative": tensor(steps=shape(-1)),
    "size_beyond": tensor(sizes=shape(5)),
    "size_overflows": tensor(sizes=shape(2**32, 2**32), steps=shape(0, 0)),
    "size_repeats": tensor(sizes=shape(2**34), steps=shape(0)),
    "size_negative": tensor(sizes=shape(-1)),
    "size_a_number": tensor(sizes=integer(4)),
    "axes_differ": tensor(steps=shape(1, 1)),
    "storage_too_long": tensor(source=storage(count=2**40)),
    "storage_negative": tensor(source=storage(count=-1)),
    "storage_missing": tensor(source=storage(key="7")),
    "storage_elsewhere": tensor(source=storage(key="../data.pkl")),
    "storage_of_no_type": tensor(source=storage(kind="collections.OrderedDict")),
    "storage_quantized": tensor(source=storage(kind="torch.QInt8Storage")),
    "storage_of_another_tag": tensor(source=storage(tag="module")),
    "storage_of_a_list": tensor(source=b"]"),
    "storage_twice": row(storage(), storage(kind="torch.IntStorage")),
    "storage_alone": storage(),
    "persistent_list": b"]Q",
    "v3_of_no_type": call(
        UTILS + "_rebuild_tensor_v3", storage(), integer(0), shape(1), shape(1), NONE, NONE, NONE
    ),
    "v3_of_truth_values": call(
        UTILS + "_rebuild_tensor_v3",
        storage(),
        integer(0),
        shape(1),
        shape(1),
        NONE,
        NONE,
        named("torch.bool"),
    ),
    **{
        function: call(UTILS + function, *[NONE] * 5)
        for function in (
            *("_rebuild_sparse_tensor", "_rebuild_qtensor", "_rebuild_meta_tensor_no_storage"),
            *("_rebuild_nested_tensor", "_rebuild_wrapper_subclass"),
            *("_rebuild_device_tensor_from_numpy", "_rebuild_parameter"),
        )
    },
    "tensor_by_its_class": call("torch.Tensor", integer(2**36)),
    "tensor_old_with_a_size": call("torch.FloatTensor", integer(2**36)) + b")b",
    "tensor_old_beyond": call("torch.FloatTensor")
    + row(storage(), integer(0), shape(2**36), shape(1))
    + b"b",
    "storage_by_its_class": call("torch.FloatStorage", integer(2**36)),
    "bytes_by_their_class": call("torch.storage.UntypedStorage", integer(2**36)),
    "subclass_by_a_set": call(
        "torch._tensor._rebuild_from_type_v2", named("builtins.set"), NONE, row(), NONE
    ),
    "storage_from_bytes": call("torch.storage._load_from_bytes", raw(b"x")),
    "size_class": call("torch.Size", shape(-1)),
    "device_unknown": call("torch.device", text("x" * 1000)),
    "layout_sparse": call("torch.serialization._get_layout", text("torch.sparse_coo")),
}


def archive(pickle, compression=zipfile.ZIP_STORED, records=(("data/0", bytes(16)),)):
    """What ``torch.save`` would write around a pickle."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as out:
        out.writestr("w/data.pkl", pickle)
        out.writestr("w/version", "3\n")
        for name, data in records:
            out.writestr(f"w/{name}", data)
    return stream.getvalue()


def older(pickle):
    """What ``torch.save`` wrote around a pickle before torch 1.6, with one storage."""
    keys, data = b"]" + text("0") + b"a", struct.pack("<Q", 4) + bytes(16)
    magic = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
    return magic + b"\x80\x02M\xe9\x03." + b"\x80\x02}." + pickle + b"\x80\x02" + keys + b"." + data
