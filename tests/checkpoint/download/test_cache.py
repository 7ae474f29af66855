import pytest

from detrex.checkpoint.download import cache_dir, cached_path, hash_in_name
from detrex.errors import DownloadError


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet50-11ad3fa6.pth", "11ad3fa6"),
        ("a-b-0123456789abcdef.safetensors", "0123456789abcdef"),
        ("resnet50-11ad3fa.pth", ""),
        ("resnet50-20230131.pth", ""),
        ("resnet50-20231331.pth", "20231331"),
        ("resnet50_11ad3fa6.pth", ""),
        ("resnet50-11AD3FA6.pth", ""),
        ("resnet50.pth", ""),
    ],
)
def test_hash_in_name__(name, expected):
    assert hash_in_name(name) == expected


@pytest.mark.parametrize("url", ["https://a.b", "https://a.b/", "http:///w.pth"])
def test_cached_path__no_file_named(url):
    with pytest.raises(DownloadError, match=r"names no file: expected one such as https://a/b"):
        cached_path(url)


def test_cached_path__stays_in_the_cache():
    path = cached_path("https://user:secret@a.b:81/../x/%2e%2e/../w.pth")
    assert path == cache_dir() / "a.b_81" / "x" / "w.pth"
