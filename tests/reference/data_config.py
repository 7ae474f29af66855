"""A config of nothing but data: three drawn pictures, cut to 24 x 40 pixels."""

import pytest

from detrex.data.demo.shapes import write_shapes_dataset

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
def data_config(tmp_path):
    json_file, image_root = write_shapes_dataset(tmp_path / "data", 3, image_size=(32, 32))
    path = tmp_path / "config.py"
    path.write_text(CONFIG.format(name=tmp_path.name, json_file=json_file, image_root=image_root))
    return str(path)
