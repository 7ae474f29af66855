"""numpy's own reader is the second implementation."""

import io
import sys
import zipfile

import numpy as np
import pytest

from detrex.checkpoint.reading.numpy_files import read_npz
from detrex.checkpoint.reading.state_dict import read_state_dict
from detrex.errors import CheckpointError

TYPES = ["?", "<i1", ">i2", "<u4", ">i8", "<f2", ">f4", "<f8", "<c8", ">c16", "<U3", "|S2"]


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", [(), (1,), (3, 5), (2, 0, 3)])
def test_read_npz__as_numpy_does(tmp_path, write, dtype, shape):
    numbers = np.arange(max(1, np.prod(shape, dtype=int)))[: np.prod(shape, dtype=int)]
    array = numbers.reshape(shape).astype(dtype)
    write(tmp_path / "w.npz", a=array, **{"b/kernel": np.asfortranarray(array)})
    got = read_npz(tmp_path / "w.npz")
    with np.load(tmp_path / "w.npz") as expected:
        assert list(got) == expected.files == ["a", "b/kernel"]
        for name in expected.files:
            np.testing.assert_array_equal(got[name], expected[name])
            assert got[name].dtype == expected[name].dtype.newbyteorder("=")
    assert sys.byteorder == "little"


def record(header, data=bytes(16), version=1, size=None):
    width = 2 if version == 1 else 4
    size = len(header) if size is None else size
    start = b"\x93NUMPY" + bytes([version, 0]) + size.to_bytes(width, "little")
    return start + header.encode("latin1") + data


def header(descr="'<f4'", shape="(4,)", order="False"):
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}"


def write(file, data, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(file, "w", compression) as out:
        out.writestr("a.npy", data)
    return file


@pytest.mark.parametrize("version", [1, 2, 3])
@pytest.mark.parametrize("shape", ["(4,)", "(4L,)", "(2, 2)", "( 4 , )"])
def test_read_npz__of_other_writers(tmp_path, version, shape):
    data = np.arange(4, dtype="<f4").tobytes()
    file = write(tmp_path / "w.npz", record(header(shape=shape), data, version))
    assert read_npz(file)["a"].ravel().tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (record(header("'|O'")), r"holds a numpy array of the type '\|O'"),
        (record(header("'<V2'")), "holds a numpy array of the type '<V2'"),
        (record(header("'<M8'")), "holds a numpy array of the type '<M8'"),
        (record(header("[('x', '<f4')]")), "holds a numpy array of the type"),
        (record(header("__import__('os').abort()")), "holds a numpy array of the type"),
        (record(header(shape=f"({'1' * 9000}")), "holds a numpy array of the type"),
        (record(header(shape=f"({' ' * 9000}x")), "holds a numpy array of the type"),
        (record("(" * 9000), "holds a numpy array of the type"),
        (record("-" * 9000 + "1"), "holds a numpy array of the type"),
        (record(header(shape="(5,)")), r"shape \(5\) and type float32 has 16 bytes|shape \(5,\)"),
        (record(header(shape="(3,)")), "has 16 bytes"),
        (record(header(shape="(1099511627776,)")), "has 16 bytes"),
        (record(header(shape="(65536, 65536, 65536, 65536)")), "beyond any memory"),
        (record(header(shape="(4294967296, 4294967296, 0)")), "beyond any memory"),
        (record(header(shape="(-1,)")), "holds a numpy array of the type"),
        (record(header(shape=f"({'1,' * 40})")), r"the shape \(1, 1, 1"),
        (record(header("'<U999999'")), "has 16 bytes"),
        (record(header(), size=60_000), "no array of numpy's"),
        (record(header(), size=0), "no array of numpy's"),
        (b"", "no array of numpy's"),
        (b"\x93NUMPY", "no array of numpy's"),
        (b"text", "no array of numpy's"),
    ],
)
def test_read_npz__what_is_no_array_of_numbers(tmp_path, data, match):
    with pytest.raises(CheckpointError, match=match):
        read_state_dict(write(tmp_path / "w.npz", data))


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_read_npz__compressed_otherwise(tmp_path, compression):
    file = write(tmp_path / "w.npz", record(header()), compression)
    with pytest.raises(CheckpointError, match="compressed in a way that numpy does not write"):
        read_state_dict(file)


def test_read_npz__a_changed_byte_is_noticed(tmp_path):
    stream = io.BytesIO()
    np.savez(stream, a=np.arange(100.0))
    data = bytearray(stream.getvalue())
    data[400] ^= 1
    (tmp_path / "w.npz").write_bytes(data)
    with pytest.raises(CheckpointError, match=r"truncated or damaged .*CRC"):
        read_state_dict(tmp_path / "w.npz")
