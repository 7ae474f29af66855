import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances
from PIL import Image
from torch import nn

from demo import demo
from detrex.data import drawing
from detrex.errors import ConfigError, PictureError
from detrex.utils.outputs import save_drawn

CONFIG = """
from detectron2.config import LazyCall as L
from tests.demo.test_demo import StandIn
model = L(StandIn)(scale=1.0)
train = dict(device="cpu", init_checkpoint="")
"""


class StandIn(nn.Module):
    """A detector that finds one object, whose box is the left half of the picture."""

    def __init__(self, scale, input_format="RGB"):
        super().__init__()
        self.weight = nn.Parameter(torch.full((3,), scale))
        self.seen = []

    def forward(self, batch):
        (sample,) = batch
        self.seen.append(sample)
        StandIn.last = sample
        size = (sample["height"], sample["width"])
        boxes = Boxes(torch.tensor([[0.0, 0.0, size[1] / 2, size[0]]]))
        found = Instances(
            size, pred_boxes=boxes, scores=torch.tensor([0.9]), pred_classes=torch.tensor([0])
        )
        return [{"instances": found}]


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("b.png", "a.jpg"):
        Image.fromarray(np.full((31, 47, 3), 90, np.uint8)).save(folder / name)
    (folder / "notes.txt").write_text("no picture")
    return folder


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "config.py"
    path.write_text(CONFIG)
    return str(path)


def test_main__draws_every_picture_of_a_folder(pictures, config, tmp_path):
    output = tmp_path / "out"
    demo.main(["--config-file", config, "--input", str(pictures), "--output", str(output)])
    assert sorted(path.name for path in output.iterdir()) == ["a.jpg", "b.png"]
    picture = np.asarray(Image.open(output / "b.png")).astype(int)
    touched = np.abs(picture - 90).max(axis=-1) > 20
    assert touched.any(axis=0)[: picture.shape[1] // 2 - 20].any()
    assert not touched[:, picture.shape[1] // 2 + 20 :].any()


def test_main__one_picture_into_a_file_with_weights_given(pictures, config, tmp_path):
    weights, output = tmp_path / "model.pth", tmp_path / "found.png"
    torch.save({"model": {"weight": torch.zeros(3)}}, weights)
    files = ["--input", str(pictures / "a.jpg"), "--output", str(output)]
    options = ["--confidence-threshold", "0.95", "--opts", f"train.init_checkpoint={weights}"]
    demo.main(["--config-file", config, *files, *options])
    assert np.abs(np.asarray(Image.open(output)).astype(int) - 90).max() <= 3


def test_load__takes_the_copy_for_evaluation(config):
    cfg = demo.load_config(config)
    args = demo.argument_parser().parse_args(["--config-file", config, "--input", "a.png"])
    assert not demo.load(cfg, args).optimize
    cfg.train.inference = {"enabled": True}
    assert demo.load(cfg, args).optimize


def test_load__resizes_as_it_is_told(config):
    cfg = demo.load_config(config)
    sizes = ["--min_size_test", "62", "--max_size_test", "1000"]
    args = ["--config-file", config, "--input", "a.png", "--img_format", "BGR", *sizes]
    detector = demo.load(cfg, demo.argument_parser().parse_args(args))
    image_rgb = np.zeros((31, 47, 3), np.uint8)
    image_rgb[..., 0] = 200
    assert detector.predict(image_rgb).image.shape == (31, 47, 3)
    (seen,) = detector.model.seen
    assert seen["image"].shape == (3, 62, 94)
    assert seen["image"].dtype == torch.uint8
    assert seen["image"][:, 0, 0].tolist() == [0, 0, 200]


def test_main__many_pictures_into_one_file_is_refused(pictures, config, tmp_path):
    arguments = ["--config-file", config, "--input", str(pictures)]
    with pytest.raises(ValueError, match=r"one file, but --input names 2 pictures"):
        demo.main([*arguments, "--output", str(tmp_path / "found.png")])


def _arguments(config, pictures, output, *options):
    files = ["--input", *map(str, pictures), "--output", str(output)]
    return ["--config-file", config, *files, *options]


def test_main__originals_are_not_written_over(pictures, config, tmp_path):
    before = {path: path.read_bytes() for path in pictures.iterdir()}
    (tmp_path / "link.png").symlink_to(pictures / "b.png")
    for inputs, output in (
        ([pictures], pictures),
        ([pictures / "b.png"], pictures / "b.png"),
        ([pictures / "b.png"], tmp_path / "link.png"),
        ([pictures / "a.jpg"], pictures / "b.png"),
    ):
        with pytest.raises(ConfigError, match=r"\.(png|jpg) (is one of the input files|exists)"):
            demo.main(_arguments(config, inputs, output))
    assert {path: path.read_bytes() for path in pictures.iterdir()} == before


def test_main__an_input_that_was_drawn_before_is_an_input(config, tmp_path):
    drawn = tmp_path / "drawn.png"
    save_drawn(np.full((31, 47, 3), 90, np.uint8), drawn)
    before = drawn.read_bytes()
    with pytest.raises(ConfigError, match=r"drawn\.png is one of the input files"):
        demo.main(_arguments(config, [drawn], drawn))
    assert drawn.read_bytes() == before


def test_main__folders_are_kept_and_each_picture_is_drawn_once(pictures, config, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    Image.fromarray(np.full((31, 47, 3), 200, np.uint8)).save(other / "b.png")
    output = tmp_path / "out"
    inputs = [pictures, other, pictures / "b.png"]
    for _ in range(2):  # what was drawn before may be replaced
        demo.main(_arguments(config, inputs, output, "--confidence-threshold", "0.95"))
    drawn = sorted(path.relative_to(output).as_posix() for path in output.rglob("*.*"))
    assert drawn == ["in/a.jpg", "in/b.png", "other/b.png"]
    assert np.asarray(Image.open(output / "in" / "b.png")).max() <= 90
    assert np.asarray(Image.open(output / "other" / "b.png")).min() >= 200


def test_main__goes_on_past_bad_pictures(pictures, config, tmp_path):
    (pictures / "aa.png").write_bytes((pictures / "b.png").read_bytes()[:60])
    Image.new("RGB", (3000, 1)).save(pictures / "strip.png")
    with pytest.raises(SystemExit) as caught:
        demo.main(_arguments(config, [pictures], tmp_path / "out"))
    message = caught.value.code
    assert message.startswith("2 of 4 pictures could not be drawn: ")
    assert "aa.png is truncated" in message
    assert "strip.png, 3000 x 1 pixels" in message
    assert "\n" not in message
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.jpg", "b.png"]


def test_main__turned_and_16_bit_pictures_are_seen_as_in_training(config, tmp_path, monkeypatch):
    grey = np.arange(31 * 47, dtype=np.uint16).reshape(31, 47)
    exif = Image.Exif()
    exif[0x112] = 6
    Image.fromarray(np.rot90(grey)).save(tmp_path / "a.png", exif=exif)
    seen = []

    def remember(self, batch):
        seen.append(batch[0]["image"])
        return forward(self, batch)

    forward = StandIn.forward
    monkeypatch.setattr(StandIn, "forward", remember)
    sizes = ["--min_size_test", "31", "--max_size_test", "100", "--opts"]
    override = "+dataloader.test.mapper.value_range=[0,1456]"
    demo.main(_arguments(config, [tmp_path / "a.png"], tmp_path / "out", *sizes, override))
    np.testing.assert_allclose(seen[0][0].numpy(), grey * (255 / 1456), atol=1e-3)


@pytest.mark.parametrize("asked", [[], ["--metadata_dataset", "coco_2017_val"]])
def test_main__class_names_are_the_checkpoints(pictures, config, tmp_path, monkeypatch, asked):
    words = []
    labels = drawing._labels
    monkeypatch.setattr(drawing, "_labels", lambda *a: words.extend(made := labels(*a)) or made)
    weights = tmp_path / "model.pth"
    torch.save({"model": {"weight": torch.zeros(3)}, "class_names": ["circle", "disc"]}, weights)
    overrides = ["--opts", f"train.init_checkpoint={weights}"]
    demo.main(_arguments(config, [pictures / "b.png"], tmp_path / "out", *asked, *overrides))
    assert words == ["person 90%" if asked else "circle 90%"]


def test_main__without_names_numbers_are_drawn(pictures, config, tmp_path, caplog):
    demo.main(_arguments(config, [pictures / "b.png"], tmp_path / "out"))
    assert "Nothing tells the classes' names" in caplog.text


def test_main__unknown_device_is_an_error(pictures, config, tmp_path):
    with pytest.raises(ConfigError, match=r"train\.device=gpu is no device"):
        demo.main(_arguments(config, [pictures], tmp_path, "--opts", "+train.device=gpu"))


def test_main__config_without_a_model_is_an_error(pictures, tmp_path):
    config = tmp_path / "config.py"
    config.write_text("train = dict(device='cpu')")
    with pytest.raises(ConfigError, match="the config has no 'model'"):
        demo.main(_arguments(str(config), [pictures], tmp_path))


def test_main__unknown_metadata_dataset_is_an_error(pictures, config, tmp_path):
    asked = ["--metadata_dataset", "coco_2017_vol"]
    with pytest.raises(ConfigError, match=r"--metadata_dataset coco_2017_vol .*'coco_2017_val'"):
        demo.main(_arguments(config, [pictures], tmp_path / "out", *asked))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("output", ["in.mp4", "other.mp4", "folder"])
def test_main__video_does_not_replace_a_file(config, tmp_path, output):
    source, folder = tmp_path / "in.mp4", tmp_path / "folder"
    folder.mkdir()
    for path in (source, tmp_path / "other.mp4", folder / "in.mp4"):
        path.write_bytes(b"frames")
    arguments = ["--video-input", str(source), "--output", str(tmp_path / output)]
    with pytest.raises(ConfigError, match=r"\.mp4 (exists and was not|is one of)"):
        demo.main(["--config-file", config, *arguments])
    assert source.read_bytes() == b"frames"


def test_main__without_weights_warns(pictures, config, tmp_path, caplog):
    arguments = ["--config-file", config, "--input", str(pictures / "a.jpg")]
    demo.main([*arguments, "--output", str(tmp_path / "out")])
    assert "weights are random" in caplog.text


def test_main__video_in_and_out(config, tmp_path):
    cv2 = pytest.importorskip("cv2")
    source, target = str(tmp_path / "in.avi"), tmp_path / "out.avi"
    writer = cv2.VideoWriter(source, cv2.VideoWriter_fourcc(*"MJPG"), 5.0, (48, 32))
    for _ in range(3):
        writer.write(np.full((32, 48, 3), 90, np.uint8))
    writer.release()
    demo.main(["--config-file", config, "--video-input", source, "--output", str(target)])
    video = cv2.VideoCapture(str(target))
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == 3
    assert video.get(cv2.CAP_PROP_FPS) == pytest.approx(5.0)


def test_main__unreadable_video_is_said(config, tmp_path):
    pytest.importorskip("cv2")
    with pytest.raises(PictureError, match=r"video .*absent\.mp4 does not exist"):
        demo.main(["--config-file", config, "--video-input", str(tmp_path / "absent.mp4")])


@pytest.mark.parametrize("name", ["absent.png", "*.gif"])
def test_main__nothing_there_is_said(pictures, config, name):
    with pytest.raises(PictureError, match=r"--input .* names no picture: expected a file"):
        demo.main(["--config-file", config, "--input", str(pictures / name)])


@pytest.mark.parametrize(
    ("options", "expected"), [([], [30, 20, 10]), (["--img_format", "RGB"], [10, 20, 30])]
)
def test_main__channels_come_as_the_config_says(config, tmp_path, options, expected):
    picture, output = tmp_path / "a.png", tmp_path / "out"
    Image.fromarray(np.full((31, 47, 3), (10, 20, 30), np.uint8)).save(picture)
    StandIn.last = None
    arguments = ["--config-file", config, "--input", str(picture), "--output", str(output)]
    demo.main([*arguments, *options, "--opts", "+model.input_format=BGR"])
    assert StandIn.last["image"][:, 0, 0].tolist() == expected
