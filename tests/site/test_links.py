"""Links of the built pages: those inside the folder lead to something, and none is absolute."""

from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

import pytest


class Links(HTMLParser):
    """What a page points to, what it loads, and the anchors in it."""

    def __init__(self, text):
        super().__init__()
        self.targets, self.loads, self.anchors = [], [], {"", "top"}
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.anchors |= {values[name] for name in ("id", "name") if values.get(name)}
        if tag == "a" and values.get("href"):
            self.targets.append(values["href"])
        if tag == "link" and values.get("href"):
            self.loads.append(values["href"])
        if tag in ("script", "img", "source", "iframe") and values.get("src"):
            self.loads.append(values["src"])


@pytest.fixture(scope="module")
def pages(site):
    return {path: Links(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}


def test_links__lead_somewhere(pages, site):
    broken = []
    for path, links in pages.items():
        for link in links.targets + links.loads:
            parts = urlsplit(link)
            if parts.scheme in ("http", "https", "mailto", "data"):
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if parts.path.startswith("/") or not target.is_file():
                broken.append(f"{path.relative_to(site)}: {link}")
                continue
            anchor = "" if parts.fragment.startswith("find?") else unquote(parts.fragment)
            if target in pages and anchor not in pages[target].anchors:
                broken.append(f"{path.relative_to(site)}: {link} (no such anchor)")
    assert not broken, "or pages of an earlier build are left: `make clean site` builds all anew"


def test_pages__load_nothing_from_elsewhere(pages, site):
    foreign = [
        f"{path.relative_to(site)}: {link}"
        for path, links in pages.items()
        for link in links.loads
        if urlsplit(link).scheme or link.startswith("//")
    ]
    assert not foreign
