"""All pages: no error, no scrolling sideways; some of them also held against axe's rules."""

import pytest

from .conftest import NARROW, WIDE

LOOKED_AT = {
    "front page": "index.html",
    "catalog": "catalog.html#find?q=resnet&kind=pyramid",
    "details": "catalog.html#find?show=timm/resnet50",
    "detector": "detectors/dino.html",
    "gallery": "gallery.html",
    "tutorial": "tutorials/backbones.html",
    "API": "api/catalog.html",
}
_OPTIONS = {"preload": False}  # it would read style sheets, which a page from a file may not


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", LOOKED_AT)
def test_axe__finds_no_serious_violation(name, scheme, open_page):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    for viewport in (WIDE, NARROW):
        page = open_page(LOOKED_AT[name], viewport, color_scheme=scheme)
        page.wait_for_timeout(150)
        faults = [
            (fault["id"], fault["help"], [node["html"][:200] for node in fault["nodes"]][:3])
            for fault in axe.run(page, options=_OPTIONS).response["violations"]
            if fault["impact"] in ("serious", "critical")
        ]
        assert not faults


def test_theme__follows_the_switch(open_page):
    page = open_page("catalog.html#find?show=timm/resnet50", color_scheme="light")
    colour = "selector => getComputedStyle(document.querySelector(selector)).backgroundColor"
    seen = {}
    for theme in ("light", "dark"):
        page.evaluate("theme => { document.body.dataset.theme = theme; }", theme)
        seen[theme] = {
            selector: page.evaluate(colour, selector)
            for selector in ("body", "#catalog .catalog-form", "#catalog dialog", ".catalog-code")
        }
    assert all(seen["light"][selector] != seen["dark"][selector] for selector in seen["light"])


def test_search__of_pages_that_are_files(open_page):
    page = open_page("search.html?q=freezing")
    found = page.locator("#search-results li a")
    found.first.wait_for()
    page.wait_for_timeout(300)  # for what the results might still read
    assert any("cookbook/freezing.html" in link.get_attribute("href") for link in found.all())


def test_pages__have_no_error_and_fit_a_small_screen(open_page, site):
    """Every page, in one tab; what the console says of an error is asserted by the fixture."""
    pages = sorted(path.relative_to(site).as_posix() for path in site.rglob("*.html"))
    pages = [name for name in pages if not name.startswith("_modules/")]
    page = open_page("index.html", NARROW)
    wide = []
    for name in pages:
        page.goto(f"{site.as_uri()}/{name}", wait_until="load")
        over = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        if over > 0:
            wide.append((name, over))
    assert len(pages) > 10
    assert not wide
