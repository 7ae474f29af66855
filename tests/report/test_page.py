import dataclasses
import re
import shutil
from html.parser import HTMLParser

import pytest

from detrex.report.collect import collect
from detrex.report.page import MARK, page_of
from tests.reference.report_runs import made_up_run

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
HOSTILE = "</style></script><script>document.title='taken'</script><img src=x onerror=alert(1)>"


class Outline(HTMLParser):
    """Tags that open and close, headings, ids, and addresses."""

    def __init__(self, text):
        super().__init__()
        self.open, self.headings, self.ids, self.links = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.ids += [attrs["id"]] if "id" in attrs else []
        self.links += [value for key, value in attrs.items() if key in ("src", "href", "srcset")]
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag not in ("meta", "link", "br", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if self.open and self.open[-1] == tag:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return collect(
        made_up_run(tmp_path_factory.mktemp("page") / ("of_a_long_name" * 9), 5, masks=True), 3
    )


def test_page__is_whole_refers_to_nothing_outside_and_is_small(run):
    text = page_of(run)
    outline = Outline(text)
    assert outline.open == []
    assert outline.headings[0] == 1
    assert set(outline.headings[1:]) == {2}
    assert len(outline.ids) == len(set(outline.ids))
    for link in outline.links:
        assert link.startswith("data:image/") or link.removeprefix("#") in outline.ids
    assert MARK in text[:2000]
    assert "hunter2" not in text
    assert not re.search(r"url\(|@import|https?://(?!host/x\.pth)", text)
    assert len(text) < 500_000


def test_page__of_hostile_names_is_the_page_of_others(run):
    record = {**run.record, "detector": HOSTILE, "config_file": HOSTILE, "config": HOSTILE}
    data = dataclasses.replace(run.data, names=(HOSTILE,) * 3)
    drawn = [dataclasses.replace(d, name=HOSTILE, truth=(d.truth[0], HOSTILE)) for d in run.drawn]
    hostile = dataclasses.replace(
        run, record=record, data=data, drawn=drawn, config=HOSTILE, notes=[HOSTILE]
    )
    hostile.log.warnings[HOSTILE] = 1
    try:
        text = page_of(hostile)
    finally:
        del hostile.log.warnings[HOSTILE]
    assert "<script>document" not in text
    assert "<img src=x" not in text
    assert text.count("<script>") == 1
    assert Outline(text).open == []


def test_page__of_metrics_alone(run):
    bare = dataclasses.replace(
        run, record={}, data=None, found=None, confusion=None, drawn=[], config=""
    )
    outline = Outline(page_of(bare))
    assert {"figures", "curves", "classes"} <= set(outline.ids)
    assert not {"confusion", "worst-pictures", "time", "config"} & set(outline.ids)


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("no Chromium")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def address(run, tmp_path_factory):
    file = tmp_path_factory.mktemp("browser") / "report.html"
    file.write_text(page_of(run))
    return file.as_uri()


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 360)])
def test_page__in_a_browser(browser, address, scheme, width):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    said = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(address)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert all(page.evaluate("[...document.images].map((image) => image.naturalWidth)"))
    assert axe.Axe().run(page).response["violations"] == []
    assert said == []
    page.close()


def test_page__sorts_and_names_values_by_its_script(browser, address):
    page = browser.new_page()
    page.goto(address)
    column = "#classes table >> nth=0 >> tbody td:nth-child(2)"
    button = page.locator("#classes thead button >> nth=1")
    button.click()
    falling = [float(text) for text in page.locator(column).all_inner_texts()]
    assert falling == sorted(falling, reverse=True)
    button.click()
    assert [float(text) for text in page.locator(column).all_inner_texts()] == falling[::-1]
    assert page.locator("#classes th[aria-sort=ascending]").count() == 1
    page.locator("svg >> nth=0").hover()
    assert "total_loss, iteration" in page.locator("#tip").inner_text()
    page.close()
