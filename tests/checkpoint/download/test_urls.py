"""Addresses are encoded as servers want them, and printed without what is secret in them."""

import base64

import pytest

from detrex.checkpoint.download import shown
from detrex.checkpoint.download.urls import WebAddress, brief, without_secrets
from detrex.errors import DownloadError


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("a/w.pth", "a/w.pth"),
        ("https://a.b/w.pth", "https://a.b/w.pth"),
        ("https://a.b/w.pth#teacher", "https://a.b/w.pth#teacher"),
        ("https://user:secret@a.b:81/w.pth", "https://a.b:81/w.pth"),
        ("https://secret@a.b/w.pth?v=1", "https://a.b/w.pth?..."),
        ("https://user:se@cret@a.b/w.pth", "https://a.b/w.pth"),
        ("https://user:se/cret@a.b/w.pth", "https://a.b/w.pth"),
        ("https://user:se?cret@a.b/w.pth", "https://a.b/w.pth"),
        ("https://user:se#cret@a.b/w.pth", "https://a.b/w.pth"),
        ("https://a.b/w.pth?X-Amz-Signature=secret#teacher", "https://a.b/w.pth?...#teacher"),
        ("https://a.b/w.pth#token=secret", "https://a.b/w.pth"),
        ("https://a.b/@scope/w.pth", "https://a.b/@scope/w.pth"),
        ("https://[::1]:80/@scope/w.pth", "https://[::1]:80/@scope/w.pth"),
        ("hf-hub://owner/name@main", "hf-hub://owner/name@main"),
        ("s3://key:secret@bucket/w.pth", "s3://bucket/w.pth"),
        ("https://a.b/\x1b[31m\n.pth", "https://a.b/?[31m?.pth"),
    ],
)
def test_shown__has_no_secret(source, expected):
    assert shown(source) == expected


def test_shown__is_short():
    text = shown(f"https://a.b/{'x' * 9000}.pth")
    assert len(text) == 160
    assert text.startswith("https://a.b/x")
    assert text.endswith("x.pth")


def test_without_secrets__of_any_address_in_a_text():
    text = "no https://u:secret@a/x?t=secret in 'http://b/y?secret' (Bearer secret, hunter2)"
    assert without_secrets(text, "hunter2", "") == (
        "no https://a/x?... in 'http://b/y?...' (Bearer ... ...)"
    )
    assert brief("a\nb") == "a?b"


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("https://a.b/w.pth", "https://a.b/w.pth"),
        ("HTTPS://A.b:81/w.pth#x", "https://a.b:81/w.pth"),
        ("http://a.b", "http://a.b/"),
        ("http://a.b/ü x.pth?n=ä b", "http://a.b/%C3%BC%20x.pth?n=%C3%A4%20b"),
        ("http://a.b/%C3%BC%20100%.pth", "http://a.b/%C3%BC%20100%25.pth"),
        ("http://bücher.de/w.pth", "http://xn--bcher-kva.de/w.pth"),
        ("http://[::1]:80/w.pth", "http://[::1]:80/w.pth"),
    ],
)
def test_web_address__is_ascii(text, url):
    address = WebAddress.of(text)
    assert (address.url, address.authorization) == (url, "")


def test_web_address__credentials_become_a_header():
    address = WebAddress.of("https://user:p%40ss@a.b/w.pth?token=abcdefgh")
    assert address.url == "https://a.b/w.pth?token=abcdefgh"
    assert base64.b64decode(address.authorization.removeprefix("Basic ")) == b"user:p@ss"
    assert {"user", "p%40ss", "p@ss", "abcdefgh"} <= set(address.secrets)


@pytest.mark.parametrize(
    "text",
    [
        *("http:///w.pth", "http://", "https://:80/w.pth", "http://a:99999/w.pth"),
        *("http://a:-1/w.pth", "http://user:hunter2/w.pth", "http://[::1/w.pth"),
        *("http://[::x]/w.pth", "http://a..b/w.pth", f"http://{'a' * 300}.de/w.pth"),
        *("http://a b/w.pth", "http://a/w%00.pth", "http://a/w\n.pth", "http://a/%0d%0a.pth"),
        *("http://a/\udcff.pth", "http://user:hunter2@a:b/w.pth", "http://a\u2100/hunter2"),
    ],
)
def test_web_address__that_is_none(text):
    with pytest.raises(DownloadError, match="names no file: expected one such as") as caught:
        WebAddress.of(text)
    assert "\n" not in str(caught.value)
    assert "user:hunter2@" not in str(caught.value)
