import numpy as np
import pytest
import torch
from PIL import Image

from detrex.data.picture_files import PICTURE_SUFFIXES
from detrex.errors import ConfigError, PictureError
from detrex.inference.inputs import are_several, image_files, pictures
from tests.reference.file_server import serving

GENERATOR = np.random.default_rng(0)
PIXELS = GENERATOR.integers(0, 256, (31, 47, 3), dtype=np.uint8)
GREY = np.repeat(PIXELS[..., :1], 3, axis=2)


def read(images, *arguments, **keywords):
    return [each() for each in pictures(images, *arguments, **keywords)]


@pytest.fixture
def folder(tmp_path):
    for name in ("b.png", "a.PNG", "deep/c.png", "deep/d.txt", "film.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
        if name.lower().endswith(".png"):
            Image.fromarray(PIXELS).save(tmp_path / name)
    return tmp_path


@pytest.mark.parametrize(
    ("image", "order", "expected"),
    [
        (PIXELS, "RGB", PIXELS),
        (PIXELS[:, :, ::-1], "BGR", PIXELS),
        (PIXELS[..., 0], "RGB", GREY),
        (PIXELS[..., :1], "BGR", GREY),
        (np.asfortranarray(PIXELS), "RGB", PIXELS),
        (torch.from_numpy(PIXELS).permute(2, 0, 1), "RGB", PIXELS),
        (torch.from_numpy(PIXELS[:, :, ::-1].copy()).permute(2, 0, 1), "BGR", PIXELS),
        (torch.from_numpy(PIXELS[..., :1]).permute(2, 0, 1), "RGB", GREY),
        (torch.from_numpy(PIXELS).permute(2, 0, 1).float() / 255, "RGB", PIXELS),
        (torch.from_numpy(PIXELS).permute(2, 0, 1).double() / 255, "RGB", PIXELS),
        (Image.fromarray(PIXELS), "BGR", PIXELS),  # which knows its own order
        (Image.fromarray(PIXELS[..., 0]), "RGB", GREY),
        (Image.fromarray(PIXELS).convert("RGBA"), "RGB", PIXELS),
    ],
)
def test_pictures__one_of_every_kind(image, order, expected):
    (picture,) = read(image, order)
    np.testing.assert_array_equal(picture.pixels, expected)
    assert picture.pixels.dtype == np.uint8
    assert picture.path is None
    assert not are_several(image)


def test_pictures__as_the_evaluation_reads_files(tmp_path):
    exif = Image.Exif()
    exif[0x112] = 6
    Image.fromarray(np.rot90(PIXELS)).save(tmp_path / "turned.png", exif=exif)
    levels = np.arange(31 * 47, dtype=np.uint16).reshape(31, 47)
    Image.fromarray(levels).save(tmp_path / "deep.png")
    turned, deep = read([tmp_path / "turned.png", tmp_path / "deep.png"], "RGB", (0, 1456))
    np.testing.assert_array_equal(turned.pixels, PIXELS)
    np.testing.assert_allclose(deep.pixels[..., 1], levels * (255 / 1456), atol=1e-3)
    with Image.open(tmp_path / "turned.png") as image:
        np.testing.assert_array_equal(read(image)[0].pixels, PIXELS)
    (deep,) = read(Image.fromarray(levels), "RGB", (0, 1456))
    np.testing.assert_allclose(deep.pixels[..., 0], levels * (255 / 1456), atol=1e-3)


def test_pictures__lists_folders_and_patterns_in_order(folder):
    stack = np.stack([PIXELS, PIXELS])
    mixed = [folder / "b.png", str(folder), PIXELS, (stack, torch.from_numpy(PIXELS.T.copy()))]
    paths = [picture.path and picture.path.removeprefix(f"{folder}/") for picture in read(mixed)]
    assert paths == ["b.png", "a.PNG", "b.png", "deep/c.png", None, None, None, None]
    assert len(read(str(folder / "*.png"))) == 1
    assert len(read(str(folder / "**" / "*.png"))) == 2
    assert len(read(PIXELS for _ in range(3))) == 3
    several = [mixed, folder, str(folder / "*"), stack, (p for p in mixed), []]
    assert all(map(are_several, several))


def test_pictures__suffixes_of_a_folder_are_those_of_training(folder):
    for suffix in PICTURE_SUFFIXES:
        (folder / f"all{suffix}").write_bytes(b"")
    assert {path.suffix for path in image_files([str(folder)])} == {*PICTURE_SUFFIXES, ".PNG"}


@pytest.mark.parametrize("order", ["RGB", "BGR"])
@pytest.mark.parametrize("of", [np.asarray, lambda a: torch.from_numpy(a).permute(2, 0, 1)])
def test_pictures__do_not_change_with_a_buffer_that_is_used_again(of, order):
    buffer = PIXELS.copy()
    (picture,) = read(of(buffer), order)
    buffer[:] = 0
    expected = PIXELS if order == "RGB" else PIXELS[:, :, ::-1]
    np.testing.assert_array_equal(picture.pixels, expected)


def test_pictures__hidden_ones_of_a_folder_are_left_out(folder):
    (folder / "linked").symlink_to(folder / "deep")  # is entered, and once
    for name in ("._a.png", ".hidden/a.png", "deep/.b.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"no picture")
    assert [p.path for p in read(folder)] == [
        str(folder / name) for name in ("a.PNG", "b.png", "deep/c.png")
    ]
    with pytest.raises(PictureError, match=r"\._a\.png is no picture"):
        read(folder / "._a.png")  # which is asked for


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.zeros(3, 4, 5).to_sparse(), "of the layout torch.sparse_coo holds no pixels"),
        (torch.zeros(3, 4, 5, device="meta"), "on the meta device holds no pixels"),
    ],
)
def test_pictures__tensors_without_pixels(tensor, message):
    with pytest.raises(PictureError, match=message):
        read(tensor)


def test_pictures__an_open_file_is_none(folder):
    with (folder / "b.png").open("rb") as stream, pytest.raises(TypeError, match="BufferedReader"):
        read(stream)


def test_pictures__are_read_when_it_is_their_turn(tmp_path):
    asked = list(pictures([tmp_path / "absent.png", PIXELS]))
    assert asked[1]().pixels.shape == PIXELS.shape
    with pytest.raises(PictureError, match=r"absent\.png does not exist"):
        asked[0]()


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (PIXELS.astype(np.float32), r"array of float32 says nothing of its range.*astype"),
        (PIXELS.astype(np.uint16), "array of uint16"),
        (PIXELS.transpose(2, 0, 1), r"\(3, 31, 47\) is no picture.*array\.transpose\(1, 2, 0\)"),
        (np.dstack([PIXELS, PIXELS[..., :1]]), r"leave the alpha channel out by array\[\.\.\., :3"),
        (PIXELS[:0], r"\(0, 47, 3\) is no picture"),
        (PIXELS[0, 0], r"\(3,\) is no picture"),
        (torch.from_numpy(PIXELS), r"\(31, 47, 3\) is no picture.*tensor\.permute\(2, 0, 1\)"),
        (torch.zeros(3, 4, 5, dtype=torch.int32), "tensor of int32 says nothing of its range"),
        (torch.full((3, 4, 5), 255.0), r"values from 0 to 1, got 255 to 255: divide"),
        (torch.full((3, 4, 5), -0.1), "got -0.1 to -0.1"),
        (torch.full((1, 4, 5), torch.nan), "got nan to nan"),
    ],
)
def test_pictures__what_is_ambiguous_is_refused(image, message):
    with pytest.raises(PictureError, match=message):
        read(image)


@pytest.mark.parametrize("image", [None, b"bytes", {"file_name": "a.png"}, 1.5])
def test_pictures__something_else_is_no_picture(image):
    with pytest.raises(TypeError, match="a picture is a path, an address, an array, a tensor or"):
        read(image)


def test_pictures__mistakes_are_said(folder):
    with pytest.raises(ConfigError, match="image_format is RGB or BGR"):
        pictures(PIXELS, "GBR")
    for several in (folder / "film.mp4", 0, "rtsp://camera/1"):
        with pytest.raises(PictureError, match=r"is a video or a camera.*detector\.stream"):
            read(several)
    with pytest.raises(PictureError, match=r"^rtsp://camera/1 is a video") as error:
        read("rtsp://me:secret@camera/1")
    assert "secret" not in str(error.value)
    with pytest.raises(PictureError, match="--input is empty, expected a file"):
        image_files([""])
    (folder / "empty").mkdir()
    for name in ("empty", "*.gif"):
        with pytest.raises(PictureError, match="names no picture: expected a file, a pattern"):
            read(str(folder / name))


def test_pictures__a_truncated_picture_of_pillow_is_named(folder):
    whole = (folder / "b.png").read_bytes()
    (folder / "b.png").write_bytes(whole[: len(whole) // 2])
    with Image.open(folder / "b.png") as image, pytest.raises(PictureError, match=r"b\.png cannot"):
        read(image)


def test_pictures__from_the_web(folder):
    with serving() as server:
        server.files = {"/b.png": (folder / "b.png").read_bytes(), "/page.png": b"<html>no</html>"}
        url = server.url("/b.png?key=secret")
        (picture,) = read(url)
        np.testing.assert_array_equal(picture.pixels, PIXELS)
        assert picture.path == server.url("/b.png?...")
        with pytest.raises(PictureError, match=r"/page\.png is no picture"):
            read(server.url("/page.png"))


@pytest.mark.parametrize("path", ["", "ftp://host/a.png"])
def test_pictures__no_place_to_read_from(path):
    with pytest.raises(PictureError, match="is no place that a picture is read from: name a file"):
        read(path)


def test_pictures__a_home_folder_is_known(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder))
    assert read("~/b.png")[0].path == str(folder / "b.png")
    assert len(read("~/deep")) == len(read("~/d*/*.png")) == 1


def test_image_files__of_one_level_or_deep(folder):
    names = [str(folder), str(folder / "*.png")]
    assert [path.name for path in image_files(names)] == ["a.PNG", "b.png", "b.png"]
    assert [p.name for p in image_files([str(folder)], deep=True)] == ["a.PNG", "b.png", "c.png"]
    assert "film.mp4" in {p.name for p in image_files([str(folder)], videos=True)}
