"""What the extensions of the pages make: columns of the catalog, tables of configs, mended HTML."""

import importlib
import json
from dataclasses import asdict

import pytest

from detrex.catalog.describe import config_of
from detrex.catalog.table import packaged_file, read_catalog
from detrex.config.listing import list_configs, read_card
from tests.docs.code_blocks import ROOT

pytest.importorskip("docutils")


@pytest.fixture
def extension(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "_extensions"))
    return importlib.import_module


def cells(column):
    """A column's cells, as docs/_static/catalog/rows.js reads them."""
    return column if isinstance(column, list) else [column["of"][place] for place in column["at"]]


def test_table__holds_every_row(extension):
    columns = extension("catalog_page").table()["columns"]
    entries = read_catalog(packaged_file()).entries
    expected = [json.loads(json.dumps(asdict(e) | {"config": config_of(e)})) for e in entries]
    for name in expected[0]:
        read = cells(columns[name])
        if name == "config":
            pairs = zip(read, entries, strict=True)
            read = [text.replace("\N{SYMBOL FOR NULL}", entry.name) for text, entry in pairs]
        assert read == [row[name] for row in expected]


def test_columns__of_few_and_of_many_values(extension):
    records = [{"one": "the same for all", "each": place} for place in range(9)]
    columns = extension("catalog_page").columns(records)
    assert columns == {"one": {"of": ["the same for all"], "at": [0] * 9}, "each": list(range(9))}


def test_data__is_a_script_that_a_page_from_a_file_may_load(extension, tmp_path):
    extension("catalog_page").write_data(tmp_path)
    for name, variable in (("data", "table"), ("descriptions", "descriptions")):
        text = (tmp_path / f"{name}.js").read_text(encoding="utf-8")
        head, _, content = text.partition(f".{variable} = ")
        assert head == "(window.detrexCatalog ??= {})"
        assert json.loads(content.rstrip(";\n"))


@pytest.mark.parametrize(
    ("name", "line"),
    [
        (
            "dino/dino_swin_tiny_224_4scale_12ep.py",
            "detrex train dino/dino_swin_tiny_224_4scale_12ep.py --num-gpus 8 "
            "train.init_checkpoint=swin_tiny_patch4_window7_224.pth",
        ),
        (
            "vitdet/mask_rcnn_vit_base_100ep.py",
            "detrex train vitdet/mask_rcnn_vit_base_100ep.py --num-gpus 8 --num-machines 8",
        ),
        ("dino/demo_shapes.py", "python demo/run.py --act shapes"),
    ],
)
def test_command__of_a_config(name, line, extension):
    assert extension("config_table").command(read_card(name)) == line


def test_detector_pages__list_every_config_once():
    listed = []
    for page in (ROOT / "docs" / "detectors").glob("*.md"):
        for line in page.read_text(encoding="utf-8").splitlines():
            if line.startswith("```{configs} "):
                listed += [card.name for card in list_configs(line.split()[1])]
    assert sorted(listed) == [card.name for card in list_configs()]


def test_mend__headings_and_what_scrolls(extension):
    mend = extension("accessible").mend
    assert mend('<p role="heading">') == '<p role="heading" aria-level="2">'
    assert 'tabindex="0"' in mend('<div class="highlight"><pre>x</pre>')


def test_make_gallery__stays_small(tmp_path, monkeypatch):
    from PIL import Image

    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    gallery = importlib.import_module("make_gallery")
    monkeypatch.setattr(gallery, "FOLDER", tmp_path / "drawn")
    act = tmp_path / "demo" / "shapes"
    (act / "pictures").mkdir(parents=True)
    for path in (act / "loss.png", act / "ap.png", *(act / f"pictures/{n}.png" for n in range(6))):
        Image.new("RGB", (1300, 500), "red").save(path)
    (tmp_path / "demo" / "unfinished").mkdir()
    files = gallery.draw(tmp_path / "demo")
    assert {file.stem for file in files} == {
        f"shapes_{name}" for name in ("loss", "ap", "1", "2", "3", "4")
    }
    assert Image.open(files[0]).size == (720, 277)


def test_gallery__of_the_repository_is_small():
    files = list((ROOT / "docs" / "_static" / "gallery").glob("*"))
    assert sum(file.stat().st_size for file in files) < 400_000
