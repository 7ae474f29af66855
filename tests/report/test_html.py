from html.parser import HTMLParser

import pytest

from detrex.report.html import Html, element, escape, joined

HOSTILE = "<script>alert('1')</script> & \"two\""


class Reader(HTMLParser):
    """What a browser makes of HTML: tags with attributes, and the text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def test_element__text_and_attributes_come_back_as_they_are():
    read = Reader(element("p", HOSTILE, [element("b", 7), None, [" 8.5"]], title=HOSTILE))
    assert read.tags == [("p", {"title": HOSTILE}), ("b", {})]
    assert read.text == f"{HOSTILE}7 8.5"


def test_element__attributes_by_pythons_names():
    assert element("th", class_="a", aria_label="b", hidden=True, id=None, lang=False) == (
        '<th class="a" aria-label="b" hidden></th>'
    )


def test_element__without_content_that_has_none():
    assert element("img", src="x") == '<img src="x"/>'
    assert element("circle", element("title", "t")) == "<circle><title>t</title></circle>"


@pytest.mark.parametrize("text", ["a\x00b", "a\x1bb", "a\ud800b", "a\x85b"])
def test_escape__what_no_page_can_hold(text):
    assert escape(text) == "a\ufffdb"
    joined(text).encode()


def test_escape__html_stays():
    assert escape(Html("<b>")) == "<b>"
    assert joined([Html("<b>"), "<b>"]) == "<b>&lt;b&gt;"
