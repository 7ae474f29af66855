import json
from pathlib import Path

import pytest

from detrex.catalog import table
from detrex.catalog.table import (
    Catalog,
    Entry,
    Query,
    packaged_file,
    read_catalog,
    rebuilt_file,
    to_json,
    write_catalog,
)
from detrex.errors import ConfigError

NET = Entry(
    name="net_a",
    library="timm",
    kind="pyramid",
    strides=(4, 8, 16, 32),
    channels=(3, 5, 7, 11),
    norm="batch",
    params=1_300_000,
    gflops=2.5,
    sizes="any",
    mean=(127.5, 127.5, 127.5),
    std=(1.0, 2.0, 3.0),
    tags=("a1_in1k", "b_in22k"),
    licence="apache-2.0",
)
PLAIN = Entry("vit_b", "torchvision", "flat", (16,), (64,), "layer", 7, 1.0, "224x224 tiles")
BROKEN = Entry("broken", "timm", reason="TypeError: no, never")
ALL = Catalog((NET, PLAIN, BROKEN), {"timm": "0", "torchvision": "0"})


def names(**query):
    return [entry.name for entry in ALL.search(Query(**query))]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({}, ["vit_b", "net_a"]),
        ({"pattern": "net"}, ["net_a"]),
        ({"pattern": "*_b"}, ["vit_b"]),
        ({"pattern": "net_?b"}, []),
        ({"pattern": "A net_"}, ["net_a"]),
        ({"pattern": "*_a vit"}, []),
        ({"strides": (8, 32)}, ["net_a"]),
        ({"channels": (7, 64)}, ["vit_b", "net_a"]),
        ({"min_params": 8}, ["net_a"]),
        ({"max_params": 7}, ["vit_b"]),
        ({"min_gflops": 1.5}, ["net_a"]),
        ({"max_gflops": 1.0}, ["vit_b"]),
        ({"norm": "layer"}, ["vit_b"]),
        ({"kind": "pyramid"}, ["net_a"]),
        ({"any_size": True}, ["net_a"]),
        ({"pretrained": True}, ["net_a"]),
        ({"licence": "Apache"}, ["net_a"]),
        ({"tag": "IN22k"}, ["net_a"]),
        ({"library": "torchvision"}, ["vit_b"]),
    ],
)
def test_search__each_filter(query, found):
    assert names(**query) == found


def test_search__sorts():
    assert [e.name for e in ALL.search(Query(), "name")] == ["net_a", "vit_b"]


def test_write_and_read__round_trip(tmp_path):
    file = tmp_path / "deep" / "table.csv"
    write_catalog(ALL.entries, file)
    assert read_catalog(file).entries == ALL.entries
    assert [path.name for path in file.parent.iterdir()] == ["table.csv"]
    assert read_catalog(file).outdated() == {}


def test_outdated__names_other_versions():
    assert set(ALL.outdated()) == {"timm", "torchvision"}


@pytest.mark.parametrize("text", ["", "# timm 1\nname\nx\n", "# timm\n"])
def test_read__damaged_table(text, tmp_path):
    file = tmp_path / "table.csv"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"cannot be read .*detrex backbones rebuild"):
        read_catalog(file)


@pytest.mark.parametrize(
    "damage",
    [
        lambda lines: [*lines[:-1], lines[-1].split(",")[0]],  # cut off within a row
        lambda lines: [*lines[:-1], lines[-1].rsplit(",", 3)[0]],
        lambda lines: [*lines[:-1], lines[-1] + ",more"],
        lambda lines: [*lines[:-1], '"' + "x" * 200_000 + '"'],  # longer than a cell may be
        lambda lines: [lines[0], lines[1].replace("gflops", "flops"), *lines[2:]],
    ],
)
def test_read__damaged_rows(damage, tmp_path):
    file = tmp_path / "table.csv"
    write_catalog(ALL.entries, file)
    file.write_text("\n".join(damage(file.read_text().splitlines())))
    with pytest.raises(ConfigError, match=r"cannot be read .*detrex backbones rebuild"):
        read_catalog(file)


def test_read__without_a_home_or_a_cache_that_can_be_is_the_package_s(monkeypatch):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    for cache_dir in (homeless, lambda: Path(f"/{'n' * 300}")):
        monkeypatch.setattr(table, "default_cache_dir", cache_dir)
        assert read_catalog().entries == read_catalog(packaged_file()).entries


def test_read__prefers_the_table_that_was_rebuilt(tmp_path, monkeypatch):
    monkeypatch.setenv("DETREX_CACHE", str(tmp_path))
    assert read_catalog().entries == read_catalog(packaged_file()).entries
    write_catalog([NET], rebuilt_file())
    assert read_catalog().entries == (NET,)


def test_packaged_table__agrees_with_the_figures_known_of_timm():
    by_name = {(e.library, e.name): e for e in read_catalog(packaged_file()).entries}
    resnet = by_name["timm", "resnet50"]
    assert resnet.channels == (64, 256, 512, 1024, 2048)
    assert resnet.params == 23_508_032
    assert by_name["timm", "vit_small_patch16_dinov3"].kind == "flat"
    assert by_name["torchvision", "resnet50"].tags == ("IMAGENET1K_V1", "IMAGENET1K_V2")


def test_to_json__one_object_a_line():
    assert json.loads(to_json([NET, PLAIN]))[1]["name"] == "vit_b"
    assert len(to_json([NET, PLAIN]).splitlines()) == 4
