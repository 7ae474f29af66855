"""Every page's Python runs, section by section, from the repository's root and off the network."""

import pytest

from tests.docs.code_blocks import ROOT, run, sections

PAGES = ["README.md", *sorted(str(p.relative_to(ROOT)) for p in (ROOT / "docs").rglob("*.md"))]
CASES = [
    pytest.param(page, blocks, id=f"{page}::{heading}")
    for page in PAGES
    if "_build" not in page
    for heading, blocks in sections(page).items()
]


@pytest.mark.parametrize(("page", "blocks"), CASES)
def test_section__runs(page, blocks, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    run(page, blocks)


@pytest.mark.parametrize("page", ["README.md", "docs/tutorials/backbones.md"])
def test_page__shows_python(page):
    assert sections(page)
