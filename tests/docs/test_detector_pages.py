"""What a detector's page says can be set, its config has."""

import re

import pytest

from detrex.config import get_config
from tests.docs.code_blocks import ROOT

PAGES = sorted(path for path in (ROOT / "docs/detectors").glob("*.md") if path.stem != "index")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_options__are_keys_of_the_config(page):
    text = page.read_text(encoding="utf-8")
    config = get_config(re.search(r'get_config\("([^"]+)"\)', text)[1])
    table = text.partition("## Options")[2].partition("\n## ")[0]
    keys = [
        key
        for cell in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
        for key in re.findall(r"`([\w.]+)`", cell)
    ]
    assert len(keys) > 3
    for key in keys:
        node = config
        for part in key.split("."):
            assert part in node, key
            node = node[part]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_files__are_there(page):
    import detectron2

    table = page.read_text(encoding="utf-8").partition("## Where things are")[2]
    files = re.findall(r"`((?:detrex|detectron2)/[\w/.]+)`", table)
    assert files
    above = {"detrex": ROOT, "detectron2": type(ROOT)(detectron2.__file__).parents[1]}
    assert not [file for file in files if not (above[file.split("/")[0]] / file).exists()]
