"""Files that are no pictures, or bombs: refused by name, content or header."""

import io
import os
import socket
import struct
import zlib

import numpy as np
import pytest
from detectron2.data.detection_utils import read_image as read_by_detectron2
from PIL import EpsImagePlugin, Image

from detrex.data import picture_files
from detrex.data.picture_files import (
    MAX_PIXELS,
    files_below,
    max_pixels,
    opened,
    require_file,
    shown,
)
from detrex.data.pictures import read_image
from detrex.errors import ConfigError, PictureError

COLOURS = np.random.default_rng(0).integers(0, 256, (23, 37, 3), np.uint8)
POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"


def png(width, height, extra=b""):
    """A PNG of grey rows, whose header may say more than there is."""

    def chunk(kind, data):
        sum_ = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + sum_

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    text = chunk(b"zTXt", b"k\0\0" + zlib.compress(extra)) if extra else b""
    rows = chunk(b"IDAT", zlib.compress(b"\0" * 90))
    return b"\x89PNG\r\n\x1a\n" + header + text + rows + chunk(b"IEND", b"")


def encoded(kind, **options):
    stream = io.BytesIO()
    Image.fromarray(COLOURS).save(stream, kind, **options)
    return stream.getvalue()


def with_size(kind, old, new):
    data = encoded(kind)
    assert old in data
    return data.replace(old, new, 1)


def many_scans():
    data = encoded("JPEG", progressive=True)
    scan = data[data.rindex(b"\xff\xda") : -2]
    header = scan[: 2 + struct.unpack(">H", scan[2:4])[0]]
    return data[:-2] + (header + b"\0\0") * 101 + b"\xff\xd9"


BOMBS = {
    "PNG": (png(60000, 60000), "has too many pixels .*raise the limit of 178956970 by"),
    "PNG text": (png(8, 8, bytes(9 << 20)), "Decompressed data too large"),
    "JPEG": (
        with_size("JPEG", struct.pack(">HH", 23, 37), struct.pack(">HH", 65000, 65000)),
        "has too many pixels",
    ),
    "JPEG scans": (many_scans(), "it has 1.. scans, more than 100"),
    "GIF": (
        with_size("GIF", struct.pack("<HH", 37, 23), struct.pack("<HH", 65535, 65535)),
        "has too many pixels",
    ),
    "TIFF": (
        with_size("TIFF", struct.pack("<HHI", 256, 4, 1), struct.pack("<HHII", 256, 4, 1, 1 << 31)),
        "is truncated|is no picture|too many pixels",
    ),
    "BMP": (
        with_size("BMP", struct.pack("<ii", 37, 23), struct.pack("<ii", 60000, 60000)),
        "has too many pixels",
    ),
    "PPM": (b"P6 60000 60000 255\n", "has too many pixels"),
    "PPM comment": (b"P6\n#" + b"x" * 9999, "a header of more than 4096 bytes"),
    "PPM second comment": (b"P6 1 1\n#" + b"x" * 9999, "a header of more than 4096 bytes"),
    "QOI": (b"qoif" + struct.pack(">II", 60000, 60000) + b"\3\0", "has too many pixels"),
    "PostScript": (POSTSCRIPT, r"is no picture \(it is PostScript, which is not read\)"),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_opened__refuses_by_the_header(tmp_path, kind):
    data, message = BOMBS[kind]
    path = tmp_path / "photo.jpg"
    path.write_bytes(data)
    with pytest.raises(PictureError, match=f"(?i:{message})") as info, opened(path):
        pass
    assert "\n" not in str(info.value)
    assert len(str(info.value)) < 500


def test_opened__ordinary_headers(tmp_path):
    comment = b"# " + b"x" * 60 + b"\n"
    data = b"P6\n" + comment * 9 + b"37 " + comment + b"23\n255\n" + COLOURS.tobytes() * 2
    (tmp_path / "a.ppm").write_bytes(data)
    np.testing.assert_array_equal(read_image(tmp_path / "a.ppm"), COLOURS)
    (tmp_path / "a.jpg").write_bytes(encoded("JPEG", progressive=True))
    assert read_image(tmp_path / "a.jpg").shape == COLOURS.shape


def test_max_pixels__is_a_setting(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(encoded("PNG"))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
    monkeypatch.setenv(MAX_PIXELS, "850")
    with pytest.raises(PictureError, match="raise the limit of 850 by the environment variable"):
        read_image(tmp_path / "a.png")
    monkeypatch.setenv(MAX_PIXELS, "851")
    assert max_pixels() == 851
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), COLOURS)
    for text in ("many", "0", "-1", "9" * 30):
        monkeypatch.setenv(MAX_PIXELS, text)
        with pytest.raises(ConfigError, match="is no number of pixels"):
            read_image(tmp_path / "a.png")


@pytest.mark.parametrize("kind", ["pipe", "socket", "link to a pipe", "/dev/zero"])
def test_require_file__does_not_wait(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    os.symlink("pipe", "link to a pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
        with pytest.raises(PictureError, match="is no regular file"):
            require_file(kind)


@pytest.mark.parametrize("name", ["a\0.png", "\ud800.png"])
def test_require_file__names_that_no_file_has(name):
    with pytest.raises(PictureError, match="is no name that a file can have"):
        require_file(name)


def test_opened__names_that_lead_nowhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.symlink("loop.png", "loop.png")
    for name, message in (("loop.png", "Too many levels"), ("x" * 300, "File name too long")):
        with pytest.raises(PictureError, match=rf"cannot be opened \({message}"), opened(name):
            pass
    path = os.fsencode(tmp_path) + b"/\xff.png"
    with open(path, "wb") as stream:
        stream.write(encoded("PNG"))
    np.testing.assert_array_equal(read_image(os.fsdecode(path)), COLOURS)


def test_without_ghostscript__for_other_readers(tmp_path, monkeypatch):
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", "ghostscript_that_must_not_run")
    (tmp_path / "a.jpg").write_bytes(POSTSCRIPT)
    picture_files.without_ghostscript()
    with pytest.raises(OSError, match="Unable to locate Ghostscript"):
        read_by_detectron2(str(tmp_path / "a.jpg"))


def test_read_image__formats_that_pillow_lacks_are_no_error(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    Image.fromarray(COLOURS).save(path)
    monkeypatch.delitem(Image.OPEN, "AVIF", raising=False)
    picture_files._formats.cache_clear()
    try:
        assert "AVIF" not in picture_files._formats()
        np.testing.assert_array_equal(read_image(path), COLOURS)
    finally:
        monkeypatch.undo()
        picture_files._formats.cache_clear()


def test_shown__is_one_line_and_not_too_long():
    assert shown("a\nb.png") == "'a\\nb.png'"
    assert shown("ä/b.png") == "ä/b.png"
    assert shown("x" * 300 + ".png").endswith("xx.png")
    assert len(shown("x" * 300)) == 203


def test_files_below__links_once_and_nothing_hidden(tmp_path):
    root, other = tmp_path / "root", tmp_path / "other"
    for file in (root / "b", root / "in" / "a", root / ".hidden" / "c", root / ".d", other / "e"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("")
    (root / "in" / "circle").symlink_to(root)
    (root / "link").symlink_to(other)
    found = [str(file.relative_to(root)) for file in files_below(root)]
    assert found == ["b", "in/a", "link/e"]
    assert [p.name for p in files_below(root, lambda folder: folder.name != "link")] == ["b", "e"]
    assert [p.name for p in files_below(root, lambda _: True)] == ["b"]


def test_files_below__warns_of_a_folder_that_cannot_be_read(tmp_path, monkeypatch, caplog):
    for name in ("closed", "open"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a").write_text("")
    scandir = os.scandir

    def refusing(path):
        if os.fspath(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    assert [file.parent.name for file in files_below(tmp_path)] == ["open"]
    assert f"{tmp_path / 'closed'} cannot be read (Permission denied)" in caplog.text
