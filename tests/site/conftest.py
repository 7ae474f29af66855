"""The built pages, and a Chromium to open them in; what needs one that lacks is skipped."""

import os
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
WIDE, NARROW = {"width": 1400, "height": 900}, {"width": 360, "height": 740}


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.site)


@pytest.fixture(scope="session")
def site():
    """The folder of the pages: ``$SITE``, or where `make docs` puts them."""
    folder = Path(os.environ.get("SITE") or ROOT / "docs" / "_build" / "html").resolve()
    if not (folder / "index.html").is_file():
        pytest.skip(f"no pages at {folder}: `make docs` builds them")
    return folder


@pytest.fixture(scope="session")
def browser():
    """A headless Chromium: ``$CHROMIUM``, one of PATH, or Playwright's own."""
    api = pytest.importorskip("playwright.sync_api", reason="detrex[site] is not installed")
    with api.sync_playwright() as playwright:
        own = Path(playwright.chromium.executable_path)
        found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
        if not found and not own.is_file():
            pytest.skip("no Chromium: install one, or name it by CHROMIUM=")
        chromium = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser, site):
    """Opens a page as a file; in the end there must have been no error in its console."""
    contexts, told = [], []

    def opened(name, viewport=WIDE, **options):
        context = browser.new_context(viewport=viewport, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda m: m.type == "error" and told.append(f"{name}: {m.text}"))
        page.on("pageerror", lambda error: told.append(f"{name}: {error}"))
        page.goto(f"{site.as_uri()}/{name}")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not told
