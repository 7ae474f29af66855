import pytest
from PIL import Image

from detrex.data.demo.shapes import write_shapes_dataset
from tools import visualize_data

CONFIG = """
import detectron2.data.transforms as T
from detectron2.config import LazyCall as L
from detectron2.data import get_detection_dataset_dicts
from detrex.data import DetrDatasetMapper
from detrex.data.datasets import register_coco_json
from detrex.data.loader import build_train_loader

dataloader = dict(
    train=L(build_train_loader)(
        dataset=L(get_detection_dataset_dicts)(
            names=L(register_coco_json)(
                name="visualize_data_{name}", json_file="{json_file}", image_root="{image_root}"
            )
        ),
        mapper=L(DetrDatasetMapper)(
            augmentation=[L(T.Resize)(shape=(24, 40))],
            augmentation_with_crop=None,
            is_train=True,
            img_format="RGB",
        ),
        total_batch_size=2,
        num_workers=0,
    )
)
"""


@pytest.fixture
def config(tmp_path):
    json_file, image_root = write_shapes_dataset(tmp_path / "data", 3, image_size=(32, 32))
    path = tmp_path / "config.py"
    path.write_text(CONFIG.format(name=tmp_path.name, json_file=json_file, image_root=image_root))
    return str(path)


def _run(config, output, *options):
    visualize_data.main(["--config-file", config, "--output-dir", str(output), *options])
    return sorted(output.iterdir())


def test_main__output_dir_may_be_spelt_with_an_underscore(config, tmp_path):
    arguments = ["--source", "annotation", "--config-file", config, "-n", "1"]
    visualize_data.main([*arguments, "--output_dir", str(tmp_path / "other")])
    assert len(list((tmp_path / "other").iterdir())) == 1


def test_main__show_opens_a_viewer_and_writes_nothing(config, tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(Image.Image, "show", lambda self, title=None: shown.append(title))
    assert not _run(config, tmp_path / "out", "--source", "annotation", "--show")
    assert shown == ["000000.png", "000001.png", "000002.png"]


@pytest.mark.parametrize("count", ["0", "-1"])
def test_main__number_of_images_is_at_least_one(config, tmp_path, count, capsys):
    with pytest.raises(SystemExit):
        _run(config, tmp_path / "out", "--source", "annotation", "-n", count)
    assert "expected a whole number of at least 1" in capsys.readouterr().err
