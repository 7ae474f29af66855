"""Descriptions that were made before: found, outdated, damaged, and those of the package."""

import gzip
import json
import subprocess
import sys

import pytest

from detrex import files
from detrex.catalog import describe as describing
from detrex.catalog import descriptions
from detrex.catalog.descriptions import (
    SIZE,
    find_description,
    keep_description,
    packaged_descriptions,
    write_descriptions,
)
from detrex.catalog.table import Entry, packaged_file, read_catalog

ENTRY = Entry("a_net", "timm", "flat", (16,))
FACTS = {"name": "a_net", "frozen_params": {1: 10, 2: 20}}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty cache folder, and a package without descriptions."""
    monkeypatch.setattr(files, "default_cache_dir", lambda: tmp_path / "cache")
    monkeypatch.setattr(descriptions, "packaged_file", lambda: tmp_path / "backbones.csv")
    return tmp_path


def test_find_description__of_this_machine(folder):
    assert find_description(ENTRY, (64, 96)) is None
    keep_description(ENTRY, (64, 96), FACTS)
    assert find_description(ENTRY, (64, 96)) == FACTS
    assert find_description(ENTRY, (64, 64)) is None
    assert find_description(Entry("a_net", "torchvision", "flat", (16,)), (64, 96)) is None
    (file,) = (folder / "cache" / "descriptions").iterdir()
    for damaged in ("{", "[]", '{"frozen_params": 3}', "[" * 100_000):
        file.write_text(damaged)
        assert find_description(ENTRY, (64, 96)) is None


def test_find_description__looks_again_with_other_versions(monkeypatch):
    keep_description(ENTRY, SIZE, FACTS)
    monkeypatch.setattr(descriptions, "installed_version", lambda library: "99")
    assert find_description(ENTRY, SIZE) is None


def test_find_description__of_the_package(folder, monkeypatch):
    file = folder / descriptions.FILE_NAME
    write_descriptions([(ENTRY, FACTS)], file)
    write_descriptions([(Entry("b_net", "timm"), FACTS)], file)
    assert [name for _, name in packaged_descriptions()] == ["a_net", "b_net"]
    assert find_description(ENTRY, SIZE) == FACTS
    assert find_description(ENTRY, (64, 96)) is None
    monkeypatch.setattr(descriptions, "installed_version", lambda library: "99")
    assert find_description(ENTRY, SIZE) is None


@pytest.mark.parametrize(
    "content",
    [b"", b"text", gzip.compress(b"a\tb", mtime=0)[:-9], gzip.compress(b"a", mtime=0)],
    ids=["empty", "no archive", "cut short", "one column"],
)
def test_packaged_descriptions__none_in_a_damaged_file(folder, content):
    (folder / descriptions.FILE_NAME).write_bytes(content)
    assert packaged_descriptions() == {}


def test_keep_description__needs_no_folder_that_can_be_written(folder):
    (folder / "cache").write_text("in the way")
    keep_description(ENTRY, SIZE, FACTS)
    assert find_description(ENTRY, SIZE) is None


def test_keep_description__needs_no_home(monkeypatch):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(files, "default_cache_dir", homeless)
    keep_description(ENTRY, SIZE, FACTS)
    assert find_description(ENTRY, SIZE) is None


@pytest.mark.parametrize(("library", "name"), [("timm", "resnet18"), ("torchvision", "resnet18")])
def test_packaged_descriptions__are_what_is_seen(library, name):
    text = packaged_descriptions(packaged_file().with_name(descriptions.FILE_NAME)).get(
        (library, name)
    )
    if text is None:
        pytest.skip("the package has none of the installed version")
    entries = {(e.library, e.name): e for e in read_catalog(packaged_file()).entries}
    seen = describing.describe(entries[library, name], SIZE)
    assert json.loads(text) == json.loads(json.dumps(seen))


def test_packaged_descriptions__are_of_every_row_that_has_maps():
    catalog = read_catalog(packaged_file())
    described = packaged_descriptions(packaged_file().with_name(descriptions.FILE_NAME))
    if catalog.outdated():
        pytest.skip("the package has none of the installed versions")
    assert set(described) == {(e.library, e.name) for e in catalog.entries if e.strides}
    for entry in catalog.entries:
        if entry.strides:
            facts = json.loads(described[entry.library, entry.name])
            strides = {row["stride"] for row in facts["features"]}
            assert strides == set(entry.strides), entry.name
            assert [row["name"] for row in facts["levels"]] == ["res3", "res4", "res5"], entry.name


def test_find_description__imports_no_network_library():
    code = """
import sys
from detrex.catalog.describe import find_entry
from detrex.catalog.descriptions import SIZE, find_description
find_description(find_entry("resnet50"), SIZE)
print(sorted({"torch", "timm", "torchvision", "detectron2"} & set(sys.modules)))
"""
    seen = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert seen.stdout.strip() == "[]"
