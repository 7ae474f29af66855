import io
import pickle
from collections import OrderedDict
from pickle import UnpicklingError

import numpy as np
import pytest

from detrex.checkpoint.reading.safe_pickle.plain_data import UnfitContentError
from detrex.checkpoint.reading.safe_pickle.unpickler import SafeUnpickler
from detrex.checkpoint.reading.safe_pickle.values import NAMES, check_shape
from detrex.checkpoint.reading.state_dict import read_checkpoint, read_state_dict
from tests.reference.crafted_pickles import array, dtype, named, pickled, raw, row, shape, text

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
CODES = ["?", "b", "h", "i", "l", "q", "B", "H", "I", "L", "Q", "e", "f", "d", "F", "D"]


def load(data):
    return SafeUnpickler(io.BytesIO(data), NAMES).load()


def assert_same_bits(got, expected):
    """Equal type but for the byte order, shape and bits."""
    native = expected.dtype.newbyteorder("=")
    assert got.dtype == native
    assert got.shape == expected.shape
    assert got.tobytes() == expected.astype(native).tobytes()


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("code", CODES)
def test_array__every_number_type(code, order, protocol):
    bits = np.random.default_rng(0).integers(0, 256, 24 * 16, dtype=np.uint8)
    bits = bits % 2 if code == "?" else bits
    values = bits.view(np.dtype(code).newbyteorder(order))[:24]
    content = {
        "c": values.reshape(2, 3, 4),
        "f": np.asfortranarray(values.reshape(2, 3, 4)),
        "k": values.reshape(2, 3, 4).transpose(1, 0, 2),
        "part": values.reshape(4, 6)[::2, 1:5],
        "0d": np.array(values[0], dtype=values.dtype),
        "empty": values[:0].reshape(0, 3),
    }
    got = load(pickle.dumps(content, protocol))
    assert got.keys() == content.keys()
    for name, expected in content.items():
        assert_same_bits(got[name], expected)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("code", CODES)
def test_scalar__every_number_type(code, protocol):
    expected = np.array([1.0], np.float64).view(np.uint8).view("?" if code == "?" else np.uint8)
    expected = np.array(expected[6:7] % 7).astype(code)[0]
    got = load(pickle.dumps([expected], protocol))[0]
    assert got.dtype == expected.dtype
    assert got == expected


@pytest.mark.parametrize("package", [b"numpy.core", b"numpy._core"])
def test_array__names_of_numpy_1_and_2(package):
    content = {"a": np.arange(6.0).reshape(2, 3), "s": np.float32(2.5)}
    data = pickle.dumps(content, protocol=2)
    current = b"numpy._core" if b"numpy._core" in data else b"numpy.core"
    got = load(data.replace(current + b".", package + b"."))
    np.testing.assert_array_equal(got["a"], content["a"])
    assert got["s"] == 2.5


@pytest.mark.parametrize("nest", ["model", "blobs"])
def test_array__as_python_2_wrote_it(tmp_path, nest):
    """detectron2's zoo: texts of bytes in place of bytes."""
    values = np.array([[1.5, -2.0, 3e-9], [np.inf, 0.1, 7.0]], np.float32)
    short = b"U" + bytes([values.nbytes]) + values.tobytes()
    number = named("numpy.dtype") + row(b"U\x02f4", b"K\x00", b"K\x01") + b"R"
    number += row(b"K\x03", b"U\x01<", b"NNN", *[b"J\xff\xff\xff\xff"] * 2, b"K\x00") + b"b"
    blank = named("numpy.core.multiarray._reconstruct")
    blank += row(named("numpy.ndarray"), b"K\x00\x85", b"U\x01b") + b"R"
    value = blank + row(b"K\x01", b"K\x02K\x03\x86", number, b"\x89", short) + b"b"
    table = b"}" + b"U\x0bconv.weight" + value + b"s"
    data = b"\x80\x02}" + b"U" + bytes([len(nest)]) + nest.encode() + table + b"s."
    expected = pickle.loads(data, encoding="latin1")[nest]["conv.weight"]
    np.testing.assert_array_equal(expected, values)
    (tmp_path / "w.pkl").write_bytes(data)
    np.testing.assert_array_equal(read_checkpoint(tmp_path / "w.pkl")[nest]["conv.weight"], values)
    np.testing.assert_array_equal(read_state_dict(tmp_path / "w.pkl")["conv.weight"], values)


def test_read_state_dict__another_byte_order_and_layout(tmp_path):
    values = np.arange(6.0).reshape(2, 3)
    content = {"a": values.astype(">f8"), "b": np.asfortranarray(values), "c": values[:, ::-1]}
    (tmp_path / "w.pkl").write_bytes(pickle.dumps(content))
    got = read_state_dict(tmp_path / "w.pkl")
    for name, expected in content.items():
        np.testing.assert_array_equal(got[name].numpy(), expected)


def test_array__owns_its_memory():
    """Two arrays of the same bytes of a file are two, as they were."""
    twice = raw(b"\0\0\x80\x3f") + b"q\x09"
    first = array(sizes=shape(1), data=twice)
    second = array(sizes=shape(1), data=b"h\x09")
    got = load(pickled(b"]" + first + b"a" + second + b"a"))["a"]
    got[0][0] = 5
    assert got[1][0] == 1


def test_array__truth_values_are_0_or_1():
    got = load(pickled(array(number=dtype("b1"), sizes=shape(3), data=raw(b"\x00\x02\xff"))))["a"]
    assert got.tobytes() == b"\x00\x01\x01"


@pytest.mark.parametrize(
    ("values", "match"),
    [
        (np.array(["x"]), "type 'U1'"),
        (np.array([b"x"]), "type 'S1'"),
        (np.array([None]), "Python objects"),
        (np.zeros(2, "M8[s]"), "type 'M8'"),
        (np.zeros(2, np.longdouble), f"type 'f{np.dtype(np.longdouble).itemsize}'"),
        (np.zeros(2, [("a", "f4"), ("b", "O")]), "array of records"),
        (np.zeros(2, "f4,f4"), "array of records"),
        (np.str_("x"), "type 'U1'"),
    ],
)
def test_array__of_no_numbers(values, match):
    with pytest.raises(UnfitContentError, match=match):
        load(pickle.dumps({"a": values}, 2))


@pytest.mark.parametrize(
    ("value", "match"),
    [
        (array(sizes=shape(1)), r"shape \(1,\) and type float32 takes 4 bytes, and there are 8"),
        (array(sizes=shape(3)), r"shape \(3,\) and type float32 takes 12 bytes, and there are 8"),
        (
            named("numpy.core.multiarray._reconstruct") + row(b"N", shape(0), raw(b"b")) + b"R",
            "an array is of the class NoneType",
        ),
    ],
)
def test_array__of_other_bytes_or_class(value, match):
    with pytest.raises(UnpicklingError, match=match):
        load(pickled(value))


@pytest.mark.parametrize("given", [(), (0,), (2**48,), (1,) * 32, (3, 0, 2**40)])
def test_check_shape__fits(given):
    assert check_shape(given) == given


@pytest.mark.parametrize(
    "given", [(2**48 + 1,), (1,) * 33, (-1,), (1.0,), (True,), [1], None, "12", (0, 2**31, 2**31)]
)
def test_check_shape__refused(given):
    with pytest.raises(UnpicklingError, match="shape"):
        check_shape(given)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_ordered_dict__keeps_its_order(protocol):
    content = OrderedDict([("b", 1), ("a", 2)])
    assert list(load(pickle.dumps(content, protocol)).items()) == [("b", 1), ("a", 2)]


def test_ordered_dict__from_pairs_as_python_2_wrote_it():
    pairs = b"]" + b"](" + text("b") + b"K\x01e" + b"a](" + text("a") + b"K\x02ea"
    data = b"\x80\x02" + named("collections.OrderedDict") + pairs + b"\x85R."
    assert load(data) == pickle.loads(data) == OrderedDict([("b", 1), ("a", 2)])
