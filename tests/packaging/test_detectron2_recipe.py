"""The recipe that repacks detectron2, on a tiny wheel of the same make; no network."""

import base64
import csv
import hashlib
import importlib.util
import io
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

RECIPE = Path(__file__).resolve().parents[2] / "third_party" / "detectron2"
SOURCE = "sal_detectron2-0.7.2"


@pytest.fixture
def backend():
    spec = importlib.util.spec_from_file_location("detectron2_recipe", RECIPE / "backend.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def source(tmp_path):
    """A wheel with one of each kind of file that the recipe treats."""
    path = tmp_path / f"{SOURCE}-cp310-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("detectron2/__init__.py", '__version__ = "0.7.2"\n')
        wheel.writestr("detectron2/data/common.py", "x = 1\n")
        wheel.writestr("detectron2/model_zoo/configs/a.yaml", "a: 1\n")
        wheel.writestr("detectron2/_C.cpython-310-x86_64-linux-gnu.so", b"\x7fELF")
        wheel.writestr("tools/__init__.py", "")
        wheel.writestr(f"{SOURCE}.dist-info/LICENSE", "Apache License")
        wheel.writestr(f"{SOURCE}.dist-info/METADATA", "Name: sal-detectron2\n")
        wheel.writestr(f"{SOURCE}.dist-info/RECORD", "")
    return path


@pytest.fixture
def built(backend, source, tmp_path, monkeypatch):
    monkeypatch.setattr(backend, "fetch", lambda directory: source)
    return zipfile.ZipFile(tmp_path / backend.build_wheel(str(tmp_path)))


def test_build_wheel__is_pure_and_named(built):
    assert Path(built.filename).name == "detectron2-0.6+a59f056-py3-none-any.whl"
    wheel = built.read("detectron2-0.6+a59f056.dist-info/WHEEL").decode()
    assert "Root-Is-Purelib: true" in wheel
    assert "Tag: py3-none-any" in wheel


def test_build_wheel__drops_the_extension_and_tools(built):
    assert {name for name in built.namelist() if ".dist-info/" not in name} == {
        "detectron2/__init__.py",
        "detectron2/data/common.py",
        "detectron2/model_zoo/configs/a.yaml",
    }


def test_build_wheel__keeps_licence_and_says_what_changed(built):
    assert built.read("detectron2-0.6+a59f056.dist-info/LICENSE") == b"Apache License"
    assert b"differs" in built.read("detectron2-0.6+a59f056.dist-info/NOTICE")
    assert built.read("detectron2/__init__.py") == b'__version__ = "0.6"\n'


def test_build_wheel__metadata_states_the_real_requirements(built):
    metadata = Parser().parsestr(built.read("detectron2-0.6+a59f056.dist-info/METADATA").decode())
    assert (metadata["Name"], metadata["Version"]) == ("detectron2", "0.6+a59f056")
    requirements = metadata.get_all("Requires-Dist")
    for requirement in ("fvcore>=0.1.5,<0.1.6", "iopath>=0.1.7,<0.1.10", "setuptools<82", "numpy"):
        assert requirement in requirements


def test_build_wheel__record_matches_every_file(built):
    text = built.read("detectron2-0.6+a59f056.dist-info/RECORD").decode()
    rows = list(csv.reader(io.StringIO(text)))
    assert [name for name, *_ in rows] == built.namelist()
    for name, digest, size in rows[:-1]:
        data = built.read(name)
        expected = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        assert digest == f"sha256={expected}"
        assert int(size) == len(data)


def test_build_wheel__same_bytes_every_time(backend, source, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    for directory in (first, second):
        directory.mkdir()
        backend.repack(source, directory)
    (a,), (b,) = first.iterdir(), second.iterdir()
    assert a.read_bytes() == b.read_bytes()


def test_fetch__refuses_a_file_with_another_hash(backend, source, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(source.parent))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    with pytest.raises(RuntimeError, match=r"could not fetch sal-detectron2==0.7.2.*D2="):
        backend.fetch(tmp_path / "scratch")
    assert "HASH" in capfd.readouterr().err.upper()


def test_build_sdist__is_refused(backend, tmp_path):
    with pytest.raises(NotImplementedError, match=r"pip install \./third_party/detectron2"):
        backend.build_sdist(str(tmp_path))
