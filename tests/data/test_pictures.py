"""What is read from a file, against detectron2's reader, the drawn levels and Pillow's turns."""

import logging
import struct
import zlib

import numpy as np
import pytest
import torch
from detectron2.data import detection_utils
from detectron2.data import transforms as T
from PIL import Image, ImageOps

from detrex.data import picture_files, pictures
from detrex.data.pictures import as_uint8, augment, check_image_size, read_image, upright_size
from detrex.errors import ConfigError, PictureError

HEIGHT, WIDTH = 23, 37
COLOURS = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
GREY = COLOURS[..., 0]


@pytest.fixture(autouse=True)
def _warn_afresh(monkeypatch):
    monkeypatch.setattr(pictures, "_warned", set())


def _png(pixels, bit_depth, colour_type):
    """A PNG written by hand, since Pillow writes no 16-bit colours; pixels ``(H, W, C)``."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    height, width = pixels.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, bit_depth, colour_type, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(f">u{bit_depth // 8}").tobytes() for row in pixels)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def _tiff_of_12_bits(values):
    """A TIFF that packs two values into three bytes, written by hand; values ``(H, W)``, W even."""
    height, width = values.shape
    first, second = values[:, ::2].astype(int), values[:, 1::2].astype(int)
    packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], -1)
    data = packed.astype(np.uint8).tobytes()
    fields = {256: width, 257: height, 258: 12, 259: 1, 262: 1, 273: 8, 277: 1, 278: height}
    fields[279] = len(data)
    directory = struct.pack("<H", len(fields)) + b"".join(
        struct.pack("<HHII", tag, 4, 1, value) for tag, value in fields.items()
    )
    return struct.pack("<2sHI", b"II", 42, 8 + len(data)) + data + directory + b"\0\0\0\0"


@pytest.mark.parametrize("image_format", ["RGB", "BGR", "L", "YUV-BT.601"])
@pytest.mark.parametrize(
    ("mode", "suffix"),
    [
        *[(mode, "png") for mode in ("1", "L", "LA", "P", "RGB", "RGBA")],
        *[("RGB", suffix) for suffix in ("jpg", "bmp", "gif", "ppm", "tif", "webp")],
        *[("CMYK", "jpg"), ("CMYK", "tif"), ("PA", "tif"), ("L", "png.jpg")],
    ],
)
def test_read_image__equals_detectron2_for_8_bits(tmp_path, mode, suffix, image_format):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(COLOURS).convert(mode).save(path, format="PNG" if "png" in suffix else None)
    image = read_image(path, image_format)
    expected = detection_utils.read_image(str(path), image_format)
    assert image.dtype == expected.dtype
    np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_read_image__is_upright(tmp_path, suffix, orientation):
    path, exif = tmp_path / f"a.{suffix}", Image.Exif()
    exif[0x112] = orientation
    Image.fromarray(COLOURS).save(path, exif=exif)
    with Image.open(path) as picture:
        expected = np.asarray(ImageOps.exif_transpose(picture))
    np.testing.assert_array_equal(read_image(path), expected)
    sides = (WIDTH, HEIGHT) if orientation >= 5 else (HEIGHT, WIDTH)
    assert expected.shape[:2] == sides


@pytest.mark.parametrize("suffix", ["png", "tif", "ppm", "jp2"])
def test_read_image__16_bits_keep_their_levels(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    values = GREY.astype(np.uint16) * 257 + (GREY < 200).astype(np.uint16)
    if suffix == "ppm":  # which older Pillows read and do not write
        path.write_bytes(b"P5 37 23 65535\n" + values.astype(">u2").tobytes())
    else:
        Image.fromarray(values).save(path)
    for image_format, channels in (("RGB", 3), ("BGR", 3), ("L", 1)):
        image = read_image(path, image_format)
        assert image.dtype == np.float32
        assert image.shape == (HEIGHT, WIDTH, channels)
        expected = values[..., None].astype(np.float64) * 255 / 65535
        np.testing.assert_allclose(image, np.broadcast_to(expected, image.shape), atol=1e-4)


def test_read_image__16_bits_are_turned_too(tmp_path):
    path, exif = tmp_path / "a.png", Image.Exif()
    exif[0x112] = 6
    Image.fromarray(GREY.astype(np.uint16) * 257).save(path, exif=exif)
    expected = np.rot90(GREY, -1).astype(np.float32)
    np.testing.assert_allclose(read_image(path, "L")[..., 0], expected, atol=1e-4)


def test_read_image__12_bits_by_the_files_own_word(tmp_path):
    values = np.random.default_rng(1).integers(0, 4096, (HEIGHT, WIDTH + 1))
    (tmp_path / "a.tif").write_bytes(_tiff_of_12_bits(values))
    image = read_image(tmp_path / "a.tif", "L")[..., 0]
    np.testing.assert_allclose(image, values * 255 / 4095, atol=1e-4)


def test_read_image__12_bits_in_16_by_the_config(tmp_path, caplog):
    path, values = tmp_path / "a.png", GREY.astype(np.uint16) * 16
    Image.fromarray(values).save(path)
    image = read_image(path, "L", (0, 4080))[..., 0]
    np.testing.assert_allclose(image, GREY, atol=1e-4)
    assert not caplog.text
    dark = read_image(path, "L")[..., 0]
    assert len(np.unique(dark)) == len(np.unique(GREY))
    np.testing.assert_allclose(dark, values * (255 / 65535), atol=1e-4)
    read_image(path)
    assert caplog.text.count("a.png has 16 bits but no value over 40") == 1


@pytest.mark.parametrize(
    ("values", "value_range"),
    [
        (GREY.astype(np.float32) / 255, (0, 1)),
        (GREY.astype(np.int32) * 1000 - 70000, (-70000, 185000)),
    ],
    ids=["floats", "32-bit integers"],
)
def test_read_image__of_unknown_range_needs_the_config(tmp_path, values, value_range):
    path = tmp_path / "a.tif"
    Image.fromarray(values).save(path)
    with pytest.raises(
        PictureError, match=r"a\.tif is a picture of .* set value_range=\[low, high"
    ):
        read_image(path)
    np.testing.assert_allclose(read_image(path, "L", value_range)[..., 0], GREY, atol=1e-3)
    low, high = value_range
    clipped = read_image(path, "L", (low, (low + high) / 2))[..., 0]
    np.testing.assert_allclose(clipped, np.clip(2.0 * GREY, 0, 255), atol=1e-3)


def test_read_image__nan_is_refused(tmp_path):
    values = GREY.astype(np.float32)
    values[3, 5] = np.nan
    Image.fromarray(values).save(tmp_path / "a.tif")
    with pytest.raises(PictureError, match=r"a\.tif holds NaN"):
        read_image(tmp_path / "a.tif", "L", (0, 255))


@pytest.mark.parametrize("alpha", [False, True])
def test_read_image__16_bit_colours(tmp_path, alpha):
    """Of full range they come as 8 bits; of 12 bits there would be 16 levels left."""
    colours = COLOURS.astype(np.uint16) * 257
    path, kind = tmp_path / "a.png", 6 if alpha else 2
    if alpha:
        colours = np.concatenate([colours, np.full_like(colours[..., :1], 65535)], -1)
    path.write_bytes(_png(colours, 16, kind))
    np.testing.assert_array_equal(read_image(path), COLOURS)
    colours[..., :3] >>= 4
    path.write_bytes(_png(colours, 16, kind))
    with pytest.raises(PictureError, match=r"a\.png has 16 bits per channel but values of less"):
        read_image(path)


@pytest.mark.parametrize("suffix", ["gif", "tif", "webp"])
def test_read_image__several_frames_are_said(tmp_path, caplog, suffix):
    path, frames = tmp_path / f"a.{suffix}", [Image.fromarray(GREY), Image.fromarray(255 - GREY)]
    frames[0].save(path, save_all=True, append_images=frames[1:], lossless=True)
    np.testing.assert_array_equal(read_image(path, "L")[..., 0], GREY)
    assert "a." + suffix + " is a" in caplog.text
    assert "of several frames or pages, of which the first" in caplog.text


def _jpeg(path):
    Image.fromarray(COLOURS).save(path, format="JPEG", quality=95)
    return path.read_bytes()


def _cut(path):
    path.write_bytes(_jpeg(path)[:-300])


def _cut_png(path):
    Image.fromarray(COLOURS).save(path, format="PNG")
    path.write_bytes(path.read_bytes()[:200])


def _bomb(path):
    huge = np.zeros((1, 30000, 1), np.uint8)
    data = bytearray(_png(huge, 8, 0))
    data[20:24] = struct.pack(">I", 30000)
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    path.write_bytes(bytes(data))


BROKEN = {
    "missing": (lambda path: None, r"does not exist: correct the path"),
    "folder": (lambda path: path.mkdir(), r"is a folder, expected a picture"),
    "empty": (lambda path: path.touch(), r"is no picture \(it is empty\), expected one of .*JPEG"),
    "text": (lambda path: path.write_text("hello"), r"is no picture, expected one of"),
    "web page": (lambda path: path.write_text("<html>"), r"is no picture \(it is a web page\)"),
    "pointer": (
        lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"),
        r"is no picture \(it is a Git LFS pointer: run `git lfs pull`\)",
    ),
    "postscript": (lambda path: path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n"), r"is no picture"),
    "cut JPEG": (_cut, r"is truncated or damaged \(image file is truncated"),
    "cut PNG": (_cut_png, r"is truncated or damaged \("),
    "bomb": (_bomb, r"has too many pixels \(Image size \(900000000 pixels\).*cut it into tiles"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_read_image__broken_file_is_named_in_one_sentence(tmp_path, kind):
    write, reason = BROKEN[kind]
    path = tmp_path / "photo 1.jpg"
    write(path)
    with pytest.raises(PictureError, match=reason) as caught:
        read_image(path)
    message = str(caught.value)
    assert message.startswith(f"{path} ")
    assert "\n" not in message
    assert len(message) - len(str(tmp_path)) < 400


def test_read_image__unreadable_file(tmp_path, monkeypatch):
    _jpeg(tmp_path / "a.jpg")

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(picture_files.PathManager, "open", refuse)
    with pytest.raises(PictureError, match=r"a\.jpg may not be read"):
        read_image(tmp_path / "a.jpg")


@pytest.mark.parametrize(
    ("said", "hint"),
    [
        ({"height": WIDTH, "width": HEIGHT}, "EXIF orientation turns it"),
        ({"height": HEIGHT, "width": WIDTH + 1}, "correct the record"),
        ({"height": HEIGHT - 1, "width": None}, "correct the record"),
    ],
)
def test_check_image_size__other_sizes_are_said(said, hint):
    record = {"file_name": "a.jpg", **said}
    with pytest.raises(PictureError, match=rf"a\.jpg has 37 x 23 pixels .*{hint}"):
        check_image_size(record, COLOURS)


@pytest.mark.parametrize("said", [{}, {"height": None, "width": None}, {"width": WIDTH}])
def test_check_image_size__what_is_missing_is_filled_in(said):
    record = {"file_name": "a.jpg", **said}
    check_image_size(record, COLOURS)
    assert (record["height"], record["width"]) == (HEIGHT, WIDTH)


def test_augment__a_strip_that_would_vanish_is_named():
    strip = np.zeros((1, 3000, 3), np.uint8)
    resize = T.ResizeShortestEdge(800, 1333)
    with pytest.raises(PictureError, match=r"a\.png, 3000 x 1 pixels .* cannot be augmented"):
        augment([resize], strip, "a.png")


def test_augment__levels_survive_detectron2s_augmentations():
    """Their results stay float32 and are those of the uint8 path where no resampling comes in."""
    augmentations = [
        T.RandomFlip(prob=1.0),
        T.RandomBrightness(0.8, 0.8),
        T.RandomContrast(1.1, 1.1),
        T.RandomSaturation(0.5, 0.5),
        T.CropTransform(3, 2, 17, 13),
    ]
    grey = np.repeat(GREY[..., None], 3, 2)
    expected, _ = augment(augmentations, grey, "a.png")
    image, transforms = augment(augmentations, grey.astype(np.float32), "a.png")
    assert image.dtype == np.float32
    np.testing.assert_allclose(np.clip(image, 0, 255), expected, atol=3.01)
    assert len(transforms.transforms) == 5


def test_augment__floats_are_resized_as_torch_resizes_them():
    image = np.repeat(GREY[..., None], 3, 2).astype(np.float32)
    resized, _ = augment([T.Resize((46, 74))], image, "a.png")
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(image).permute(2, 0, 1)[None], (46, 74), mode="bilinear"
    )[0].permute(1, 2, 0)
    np.testing.assert_allclose(resized, expected.numpy(), atol=1e-3)


def test_as_uint8__rounds_and_clips():
    image = np.array([-3.0, 0.4, 0.6, 254.6, 300.0], np.float32)
    assert as_uint8(image).tolist() == [0, 0, 1, 255, 255]
    assert as_uint8(COLOURS) is COLOURS


@pytest.mark.parametrize(
    "wrong", [5, [0], [0, 1, 2], [4, 4], [5, 0], ["a", "b"], [0, float("nan")]]
)
def test_checked_value_range__says_what_it_takes(wrong):
    with pytest.raises(ValueError, match=r"value_range .*give two numbers such as \[0, 4095\]"):
        pictures.checked_value_range(wrong)


def test_refuse_wide__reads_the_header_only(tmp_path):
    Image.fromarray(GREY.astype(np.uint16)).save(tmp_path / "wide.png")
    Image.fromarray(GREY).save(tmp_path / "plain.png")
    with pytest.raises(PictureError, match=r"wide\.png has more than 8 bits .* clip"):
        pictures.refuse_wide(tmp_path / "wide.png", "a mapper")
    pictures.refuse_wide(tmp_path / "plain.png", "a mapper")
    pictures.refuse_wide(tmp_path / "absent.png", "a mapper")


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("orientation", [None, *range(1, 9)])
def test_upright_size__is_that_of_the_picture_as_read(tmp_path, suffix, orientation):
    exif = Image.Exif()
    if orientation:
        exif[0x112] = orientation
    file = tmp_path / f"picture.{suffix}"
    Image.fromarray(COLOURS).save(file, exif=exif)
    height, width = read_image(file).shape[:2]
    assert upright_size(file) == (width, height)


def test_upright_size__no_picture(tmp_path):
    (tmp_path / "a.png").write_text("no")
    with pytest.raises(PictureError, match=r"a\.png is no picture"):
        upright_size(tmp_path / "a.png")


def test_read_image__an_ordinary_picture_is_read_without_a_word(tmp_path, caplog):
    Image.fromarray(COLOURS).save(tmp_path / "a.png")
    with caplog.at_level(logging.DEBUG):
        read_image(tmp_path / "a.png")
    assert not [record for record in caplog.records if record.name.startswith("detrex")]


def test_read_image__names_the_formats(tmp_path):
    Image.new("RGB", (3, 2)).save(tmp_path / "a.png")
    with pytest.raises(ConfigError, match=r"image_format is BGR, .* got 'XYZ'"):
        read_image(tmp_path / "a.png", "XYZ")
