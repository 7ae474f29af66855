import json

import numpy as np
import pytest
from PIL import Image, ImageDraw

from detrex.cli.data_pictures import Drawing, draw_annotations, draw_samples
from detrex.config import load_config
from detrex.engine.overrides import apply_overrides
from detrex.errors import ConfigError
from tests.reference.data_config import CONFIG, data_config  # noqa: F401


def _run(config, output, source, count=None, overrides=()):
    cfg = apply_overrides(load_config(config), list(overrides))
    drawing = Drawing(output, "--output", count)
    draw = {"annotation": draw_annotations, "dataloader": draw_samples}[source]
    draw(cfg, drawing).end()
    return sorted(output.iterdir())


def test_draw__annotation_draws_every_image(data_config, tmp_path):  # noqa: F811
    files = _run(data_config, tmp_path / "out", "annotation")
    assert [file.name for file in files] == ["000000.png", "000001.png", "000002.png"]
    original = Image.open(tmp_path / "data" / "images" / "000000.png").resize((480, 480))
    drawn = np.asarray(Image.open(files[0])).astype(int)
    assert (np.abs(drawn - np.asarray(original).astype(int)).max(axis=-1) > 100).any()


@pytest.mark.parametrize("left", ["", "dataloader = dict(train=dict(dataset=None))"])
def test_draw__config_without_data_is_an_error(tmp_path, left):
    config = tmp_path / "config.py"
    config.write_text(f"train = dict()\n{left}")
    with pytest.raises(ConfigError, match=r"the config has no 'dataloader\.train\.dataset'"):
        _run(str(config), tmp_path / "out", "annotation")


def test_draw__dataloader_draws_augmented_samples(data_config, tmp_path):  # noqa: F811
    files = _run(data_config, tmp_path / "out", "dataloader", 5)
    assert len(files) == 5
    assert Image.open(files[0]).size == (800, 480)


@pytest.fixture
def difficult(tmp_path):
    """Two pictures of one name, a turned one, one of 16 bits with a box each, and a broken one."""
    root = tmp_path / "data" / "images"
    for folder in ("a", "b"):
        (root / folder).mkdir(parents=True)
    upright = Image.new("RGB", (48, 32), (60, 60, 60))
    ImageDraw.Draw(upright).rectangle((4, 5, 19, 24), fill=(230, 40, 40))
    exif = Image.Exif()
    exif[0x112] = 6
    upright.save(root / "a" / "x.png")
    upright.save(root / "b" / "x.png")
    upright.rotate(90, expand=True).save(root / "turned.jpg", exif=exif, quality=98, subsampling=0)
    Image.fromarray(np.asarray(upright)[..., 0].astype(np.uint16) * 257).save(root / "wide.png")
    (root / "cut.jpg").write_bytes((root / "turned.jpg").read_bytes()[:-200])
    files = ["a/x.png", "b/x.png", "cut.jpg", "turned.jpg", "wide.png"]
    box = {"bbox": [4, 5, 16, 20], "area": 320, "iscrowd": 0, "category_id": 1}
    coco = {
        "images": [
            {"id": n, "file_name": name, "height": 32, "width": 48} for n, name in enumerate(files)
        ],
        "annotations": [{"id": n + 1, "image_id": n, **box} for n in range(len(files))],
        "categories": [{"id": 1, "name": "square"}, {"id": 2, "name": "other"}],
    }
    json_file = tmp_path / "data" / "annotations.json"
    json_file.write_text(json.dumps(coco))
    path = tmp_path / "difficult.py"
    path.write_text(
        CONFIG.format(name=f"difficult_{tmp_path.name}", json_file=json_file, image_root=root)
    )
    return str(path)


def test_draw__goes_on_past_a_bad_picture_and_reads_as_training_does(difficult, tmp_path):
    output = tmp_path / "out"
    with pytest.raises(
        SystemExit, match=r"^1 of 5 pictures could not be drawn: .*cut\.jpg is trun"
    ):
        _run(difficult, output, "annotation")
    files = sorted(path.relative_to(output).as_posix() for path in output.rglob("*.*"))
    assert files == ["a/x.png", "b/x.png", "turned.jpg", "wide.png"]
    red = np.array([230, 40, 40])
    for name, inside in (("a/x.png", red), ("turned.jpg", red), ("wide.png", red[[0, 0, 0]])):
        drawn = np.asarray(Image.open(output / name).convert("RGB")).astype(int)
        assert drawn.shape == (480, 720, 3)
        # Fifteen times the size: the object fills its box up to the line, and nothing beside it.
        for y, x in ((5, 4), (5, 19), (24, 4), (24, 19)):
            pixel = drawn[y * 15 + 7, x * 15 + 7]
            assert np.abs(pixel - inside).max() < 30, name
        assert np.abs(drawn[28 * 15, 12 * 15] - 60).max() < 30
        assert np.abs(drawn[15 * 15, 24 * 15] - 60).max() < 30


@pytest.mark.parametrize("source", ["annotation", "dataloader"])
def test_draw__goes_on_past_a_missing_picture(data_config, tmp_path, source):  # noqa: F811
    (tmp_path / "data" / "images" / "000001.png").unlink()
    with pytest.raises(SystemExit, match=r"^1 of \d+ pictures .*000001\.png does not exist"):
        _run(data_config, tmp_path / "out", source, 8)
    assert len(list((tmp_path / "out").iterdir())) == (2 if source == "annotation" else 8)


def test_draw__dataloader_goes_on_past_a_bad_picture(difficult, tmp_path):
    output = tmp_path / "out"
    with pytest.raises(SystemExit, match=r"^1 of 12 pictures could not be drawn: .*cut\.jpg is tr"):
        _run(difficult, output, "dataloader", 12)
    drawn = sorted(output.iterdir())
    assert len(drawn) == 12
    assert {path.stem[-1] for path in drawn} == {"0", "1", "3", "4"}


@pytest.mark.parametrize("inside", [".", "a/..", "link"])
def test_draw__inputs_are_not_written_over(difficult, tmp_path, inside):
    images = tmp_path / "data" / "images"
    (images / "link").symlink_to(images)
    before = {path: path.read_bytes() for path in images.glob("**/*.*g")}
    with pytest.raises(ConfigError, match=r"is one of the input files"):
        _run(difficult, images / inside, "annotation")
    assert {path: path.read_bytes() for path in images.glob("**/*.*g")} == before


@pytest.mark.parametrize("source", ["annotation", "dataloader"])
def test_draw__other_files_of_the_users_are_not_written_over(data_config, tmp_path, source):  # noqa: F811
    output = tmp_path / "out"
    files = _run(data_config, output, source)
    assert _run(data_config, output, source)[: len(files)] == files[: len(files)]
    mine = files[1].with_name("000001.png" if source == "annotation" else files[1].name)
    Image.new("RGB", (5, 5)).save(mine)
    before = mine.read_bytes()
    with pytest.raises(ConfigError, match="exists and was not drawn by this program"):
        _run(data_config, output, source)
    assert mine.read_bytes() == before


def test_draw__record_of_another_size_is_named_and_the_range_is_the_mappers(difficult, tmp_path):
    json_file = tmp_path / "data" / "annotations.json"
    coco = json.loads(json_file.read_text())
    del coco["images"][2], coco["annotations"][2]  # cut.jpg
    coco["images"][0]["width"] = 47
    json_file.write_text(json.dumps(coco))
    override = "+dataloader.train.mapper.value_range=[0,131070]"
    with pytest.raises(SystemExit, match=r"^1 of 4 pictures .*a/x\.png has 48 x 32 pixels"):
        _run(difficult, tmp_path / "out", "annotation", None, [override])
    wide = np.asarray(Image.open(tmp_path / "out" / "wide.png")).astype(int)
    assert np.abs(wide[15 * 15, 12 * 15] - 115).max() <= 2
