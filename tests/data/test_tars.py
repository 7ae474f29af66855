"""What is found in tar files, and what is said of broken ones."""

import os
import pickle

import pytest
from detectron2.utils.file_io import PathManager

from detrex.data.pictures import read_image
from detrex.data.tars import samples_of
from detrex.errors import DataError, PictureError
from tests.reference.tar_files import picture, record, write_tar


class Bomb:
    def __reduce__(self):
        return os.abort, ()


def test_samples_of__pictures_are_read_where_they_lie(tmp_path):
    long = "folder/" + "n" * 150
    names = ["a", "x/b", "x/c.left", "d#e", "ü", long]
    members = {}
    for seed, name in enumerate(names):
        members[f"{name}.PNG"] = picture(seed)[1]
        members[f"{name}.json"] = {"is": seed}
    found = list(samples_of(str(write_tar(tmp_path / "one#two.tar", members))))
    assert [content for _, _, content in found] == [b'{"is": %d}' % i for i in range(len(names))]
    for seed, (_, address, _) in enumerate(found):
        assert (read_image(address) == picture(seed)[0]).all()


def test_samples_of__nothing_else_is_read(tmp_path):
    bomb = pickle.dumps(Bomb())
    members = {"__meta__/x.pyd": bomb, "a.pkl": bomb, "a.png": b"", "a.pyd": bomb, "a.json": b"{}"}
    members |= {"a.cls": b"3", "README": b"words"}
    ((name, _, content),) = samples_of(str(write_tar(tmp_path / "a.tar", members)))
    assert name.endswith("a.tar: 'a'")
    assert content == b"{}"


@pytest.mark.parametrize(
    ("members", "sentence"),
    [
        ({"a.png": b"", "b.png": b"", "b.json": b""}, r"a\.tar: 'a' has no json file"),
        ({"a.json": b"", "a.pkl": b""}, r"a\.tar: 'a' has no picture file"),
        ({"a.png": b"", "b.json": b"", "a.json": b""}, r"a\.tar: 'a' has no json file"),
    ],
)
def test_samples_of__an_image_that_is_not_whole(tmp_path, members, sentence):
    with pytest.raises(DataError, match=sentence):
        list(samples_of(str(write_tar(tmp_path / "a.tar", members))))


def test_samples_of__damaged(tmp_path):
    members = {}
    for name in "abc":
        members |= {f"{name}.png": picture(0)[1], f"{name}.json": record(0)}
    path = write_tar(tmp_path / "a.tar", members)
    whole = path.read_bytes()
    last = whole.index(b"c.png")
    flipped = whole[: last + 20] + b"\xff" + whole[last + 21 :]
    cuts = [whole[:700], whole[: last + 700], whole[:last], whole[: last - 1], whole[: last + 9]]
    for content in (*cuts, flipped):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"a\.tar is no tar file .*or is damaged.*write it"):
            list(samples_of(str(path)))


@pytest.mark.parametrize("mode", ["w:gz", "w:xz", None])
def test_samples_of__compressed_or_something_else(tmp_path, mode):
    path = tmp_path / "a.tar"
    if mode:
        write_tar(path, {"a.png": b"", "a.json": b"{}"}, mode)
    else:
        path.write_bytes(b"words")
    with pytest.raises(DataError, match=r"a\.tar is no tar file .*without compression"):
        list(samples_of(str(path)))


def test_picture__that_is_gone_or_damaged_is_named(tmp_path):
    path = write_tar(tmp_path / "a.tar", {"a.png": picture(0)[1][:-40], "a.json": b"{}"})
    ((_, address, _),) = samples_of(str(path))
    with pytest.raises(PictureError, match=r"a\.tar#a\.png@\d+\+\d+ is truncated"):
        read_image(address)
    path.unlink()
    with pytest.raises(PictureError, match=r"a\.tar#a\.png.* does not exist"):
        read_image(address)
    with pytest.raises(ValueError, match="no address"):
        PathManager.open("tar://a.tar", "rb")
