import io
import pickle
import struct
import sys
import zipfile

import pytest
import torch

from detrex.checkpoint.reading.state_dict import read_checkpoint
from detrex.checkpoint.reading.torch_files import read_pickle, read_zip
from detrex.errors import CheckpointError
from tests.reference.crafted_pickles import archive, older, pickled, row, shape, storage, tensor


def write(tmp_path, data):
    (tmp_path / "w.pth").write_bytes(data)
    return tmp_path / "w.pth"


def assert_refused(tmp_path, data, match):
    with pytest.raises(CheckpointError, match=match):
        read_checkpoint(write(tmp_path, data))


def checkpoint():
    weight = torch.randn(5, 7)
    return {
        "model": {"a": weight, "tied": weight, "part": weight[1:3, ::2], "n": torch.tensor(3)},
        "optimizer": {"state": {0: {"step": torch.tensor(4.0)}}, "param_groups": [{"lr": 0.1}]},
        "iteration": 7,
    }


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(("read", "zipped"), [(read_zip, True), (read_pickle, False)])
def test_read__as_torch_does(tmp_path, read, zipped, protocol):
    content = checkpoint()
    options = dict(pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    torch.save(content, tmp_path / "w.pth", **options)
    got = read(tmp_path / "w.pth")
    expected = torch.load(tmp_path / "w.pth", weights_only=False)
    torch.testing.assert_close(got["model"], expected["model"], rtol=0, atol=0)
    assert got["optimizer"] == expected["optimizer"]
    assert got["iteration"] == 7
    assert got["model"]["a"].data_ptr() == got["model"]["tied"].data_ptr()
    got["model"]["a"].fill_(2)
    assert got["model"]["part"].eq(2).all()


def test_read_zip__of_a_machine_of_the_other_byte_order(tmp_path):
    pickle = pickled(row(tensor(), tensor(source=storage("1", "torch.ComplexDoubleStorage", 4))))
    real, numbers = struct.pack(">4f", 1, 2, 3, 4), struct.pack(">8d", *range(8))
    records = [("data/0", real), ("data/1", numbers), ("byteorder", b"big")]
    got = read_zip(write(tmp_path, archive(pickle, records=records)))["a"]
    assert sys.byteorder == "little"
    assert got[0].tolist() == [1, 2, 3, 4]
    assert got[1].tolist() == [1j, 2 + 3j, 4 + 5j, 6 + 7j]


def test_read_zip__truth_values_are_0_or_1(tmp_path):
    pickle = pickled(tensor(source=storage(kind="torch.BoolStorage")))
    got = read_zip(write(tmp_path, archive(pickle, records=[("data/0", b"\0\1\2\xff")])))["a"]
    assert got.view(torch.uint8).tolist() == [0, 1, 1, 1]


def test_read_zip__compressed(tmp_path):
    data = archive(pickled(tensor()), compression=zipfile.ZIP_DEFLATED)
    assert_refused(tmp_path, data, "holds compressed records, which torch.save does not write")


def test_read_zip__a_record_that_inflates(tmp_path):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("w/data.pkl", bytes(2**26))
    assert len(stream.getvalue()) < 2**17
    assert_refused(tmp_path, stream.getvalue(), "compressed records")


def test_read_zip__records_that_share_their_bytes(tmp_path):
    """Many names in the directory for one record: their sum is beyond the file."""
    count, stream = 9, io.BytesIO()
    sources = [storage(str(i), count=2**14) for i in range(count)]
    with zipfile.ZipFile(stream, "w") as out:
        out.writestr("w/data/0", bytes(2**16))
        for i in range(1, count):
            entry = zipfile.ZipInfo(f"w/data/{i}")
            out.filelist.append(entry)
            first = out.filelist[0]
            for name in ("header_offset", "CRC", "compress_size", "file_size"):
                setattr(entry, name, getattr(first, name))
        out.writestr("w/data.pkl", pickled(row(*(tensor(source=s) for s in sources))))
    assert_refused(tmp_path, stream.getvalue(), "truncated or damaged")


@pytest.mark.parametrize(
    ("records", "match"),
    [
        ([], "lacks the record data/0"),
        ([("data/0", bytes(15))], "record data/0 has 15 bytes and 4 elements of 4"),
    ],
)
def test_read_zip__records_that_lack(tmp_path, records, match):
    assert_refused(tmp_path, archive(pickled(tensor()), records=records), match)


def test_read_zip__changed_data_are_noticed(tmp_path):
    data = bytearray(archive(pickled(tensor()), records=[("data/0", b"abcdefghijklmnop")]))
    data[data.index(b"abcdefgh")] ^= 1
    assert_refused(tmp_path, bytes(data), "truncated or damaged .*CRC")


def test_read_pickle__a_part_of_a_storage(tmp_path):
    """Before torch 0.4 the part that a tensor has was described beside its storage."""
    whole = storage()
    view = row(b"K\x05", b"K\x01", b"K\x02")
    part = whole.replace(b"\x8a\x01\x04t", b"\x8a\x01\x04" + view + b"t")
    assert part != whole
    data = older(pickled(tensor(source=part, sizes=shape(2))))
    values = struct.pack("<4f", 1, 2, 3, 4)
    assert read_pickle(write(tmp_path, data[:-16] + values))["a"].tolist() == [2, 3]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda d: d[:-1], "ends too early"),
        (lambda d: d[:-24] + struct.pack("<Q", 5) + d[-16:], "not as long as it should be"),
        (lambda d: d.replace(b"M\xe9\x03", b"M\xea\x03"), "its version is 1002, and 1001 is known"),
        (lambda d: d.replace(b"]X\x01\0\0\0" + b"0a.", b"]X\x01\0\0\0" + b"8a."), "names others"),
    ],
)
def test_read_pickle__damaged(tmp_path, change, match):
    data = older(pickled(tensor()))
    assert change(data) != data
    assert_refused(tmp_path, change(data), match)


def test_read_pickle__storages_that_claim_more_than_the_file(tmp_path):
    data = older(pickled(tensor(source=storage(count=2**12))))
    assert_refused(tmp_path, data, "its storages are larger than the file")


def test_read_zip__a_flipped_bit_is_noticed_or_changes_nothing(tmp_path):
    content = {"a": torch.arange(5.0), "b": torch.tensor([True, False]), "lr": 0.25}
    torch.save(content, tmp_path / "w.pth")
    whole = (tmp_path / "w.pth").read_bytes()
    expected = repr(read_checkpoint(tmp_path / "w.pth"))
    refused = 0
    for at in range(0, len(whole), 5):
        data = bytearray(whole)
        data[at] ^= 1 << at % 8
        try:
            assert repr(read_checkpoint(write(tmp_path, data))) == expected
        except CheckpointError:
            refused += 1
    assert refused > 100


@pytest.mark.parametrize("extra", [2, 4, 100])
def test_read_zip__a_record_that_is_longer_than_described(tmp_path, extra):
    records = [("data/0", bytes(16 + extra))]
    file = write(tmp_path, archive(pickled(tensor()), records=records))
    if extra < 4:  # torch writes such of a tensor that was seen as one of a narrower type
        assert read_zip(file)["a"].tolist() == [0] * 4
    else:
        with pytest.raises(CheckpointError, match=f"data/0 has {16 + extra} bytes and 4 elements"):
            read_checkpoint(file)


def test_read_zip__written_without_checksums(tmp_path):
    content = {"a": torch.arange(5.0)}
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(content, tmp_path / "w.pth")
    finally:
        torch.serialization.set_crc32_options(True)
    assert read_checkpoint(tmp_path / "w.pth")["a"].tolist() == [0, 1, 2, 3, 4]
