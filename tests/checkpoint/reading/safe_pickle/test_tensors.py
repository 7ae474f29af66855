import io
import math
from pickle import UnpicklingError

import pytest
import torch
from torch import nn

from detrex.checkpoint.reading.safe_pickle.tensors import Storage, strided
from detrex.checkpoint.reading.state_dict import read_checkpoint
from tests.reference.crafted_pickles import archive, call, integer, pickled, row, shape, storage


def saved(tmp_path, content):
    torch.save(content, tmp_path / "w.pth")
    return read_checkpoint(tmp_path / "w.pth")


@pytest.mark.parametrize(
    ("offset", "size", "stride"),
    [(0, (3, 4), (4, 1)), (2, (4, 2), (1, 5)), (11, (), ()), (5, (7,), (1,)), (0, (9, 4), (0, 3))],
)
def test_strided__is_torchs_view(offset, size, stride):
    values = torch.arange(12.0)
    got = strided(Storage(values), offset, size, stride)
    expected = values.as_strided(size, stride, offset)
    assert got.data_ptr() == expected.data_ptr()
    torch.testing.assert_close(got, expected, rtol=0, atol=0)
    assert got.stride() == expected.stride()


@pytest.mark.parametrize("size", [(0,), (3, 0), (0, 2**20)])
def test_strided__empty(size):
    got = strided(Storage(torch.ones(2)), 0, size, (1,) * len(size))
    assert got.shape == size


@pytest.mark.parametrize("length", [1, 7, 12])
def test_strided__bounds_are_exact(length):
    """Every view of few elements either lies inside or is refused, as enumerating them tells."""
    flat = Storage(torch.arange(float(length)))
    for offset in range(4):
        for size in [(1,), (2,), (2, 3)]:
            for stride in [(1,), (3,), (3, 1), (1, 5), (0, 2)]:
                if len(stride) != len(size):
                    continue
                indices = torch.cartesian_prod(*map(torch.arange, size)).view(math.prod(size), -1)
                last = int((indices * torch.tensor(stride)).sum(1).max()) + offset
                if last < length:
                    assert strided(flat, offset, size, stride).max() == last
                else:
                    with pytest.raises(UnpicklingError, match=f"reaches element {last}"):
                        strided(flat, offset, size, stride)


def test_strided__expanded_within_bounds():
    flat = Storage(torch.ones(1))
    assert strided(flat, 0, (4096, 4096), (0, 0)).shape == (4096, 4096)
    with pytest.raises(UnpicklingError, match="repeats 1 elements"):
        strided(flat, 0, (4096, 4097), (0, 0))


DTYPES = [
    torch.bool,
    *(torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64),
    *(torch.complex64, torch.complex128),
    *(torch.uint16, torch.uint32, torch.uint64, torch.float8_e4m3fn, torch.float8_e5m2),
]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("zipped", [True, False])
def test_read_checkpoint__every_number_type(tmp_path, dtype, zipped):
    values = torch.tensor([0, 1, 2, 3, 100, 77]).to(dtype).view(2, 3)
    content = {"a": values, "t": values.t(), "0d": values[1, 1], "empty": values[:0]}
    torch.save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    got = read_checkpoint(tmp_path / "w.pth")
    for name, expected in content.items():
        assert got[name].dtype == dtype
        assert got[name].shape == expected.shape
        assert got[name].stride() == expected.stride()
        assert got[name].tolist() == expected.tolist()
    assert got["a"].data_ptr() == got["t"].data_ptr()


def test_read_checkpoint__parameters_subclasses_and_signs(tmp_path):
    weight = torch.randn(3, 4)
    tagged = torch.randn(2)
    tagged.note = "x"
    parameter = nn.Parameter(weight)
    parameter.note = "x"
    conjugate = torch.randn(3, dtype=torch.complex64).conj()
    content = dict(p=nn.Parameter(weight), tagged=tagged, noted=parameter, conjugate=conjugate)
    content["negative"] = conjugate.clone().conj().imag
    got = saved(tmp_path, content)
    assert all(type(value) is torch.Tensor for value in got.values())
    for name, expected in content.items():
        torch.testing.assert_close(got[name], expected.detach(), rtol=0, atol=0)


def test_read_checkpoint__descriptions_beside_tensors(tmp_path):
    content = {
        "size": torch.zeros(2, 3).shape,
        "device": torch.device("cuda:1"),
        "cpu": torch.device("cpu"),
        "dtype": torch.bfloat16,
        "layout": torch.strided,
    }
    assert saved(tmp_path, content) == content


def test_read_checkpoint__tensor_of_torch_0_1(tmp_path):
    """A class that is called without arguments, and a state."""
    state = row(storage(), integer(1), shape(3), shape(1)) + b"b"
    records = [("data/0", torch.arange(4.0).numpy().tobytes())]
    (tmp_path / "w.pth").write_bytes(
        archive(pickled(call("torch.FloatTensor") + state), records=records)
    )
    assert read_checkpoint(tmp_path / "w.pth")["a"].tolist() == [1, 2, 3]


def test_read_checkpoint__parameter_of_torch_0_2(tmp_path):
    value = call("torch._utils._rebuild_tensor", storage(), integer(0), shape(4), shape(1))
    parameter = call("torch.nn.parameter.Parameter", value) + row(b"\x88", b"\x89", b"}") + b"b"
    (tmp_path / "w.pth").write_bytes(archive(pickled(parameter)))
    assert read_checkpoint(tmp_path / "w.pth")["a"].tolist() == [0, 0, 0, 0]


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: torch.eye(3).to_sparse(), "a sparse tensor"),
        (lambda: torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8), "quantized"),
        (lambda: torch.empty(2, device="meta"), "device meta"),
        (lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), "nested tensor"),
    ],
)
def test_read_checkpoint__no_dense_tensor(tmp_path, make, match):
    stream = io.BytesIO()
    torch.save({"a": make()}, stream)
    (tmp_path / "w.pth").write_bytes(stream.getvalue())
    with pytest.raises(Exception, match=rf"w.pth holds .*{match}.*expected dense tensors"):
        read_checkpoint(tmp_path / "w.pth")
