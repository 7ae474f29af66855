import numpy as np
import pytest
from detectron2.data import MetadataCatalog
from detectron2.data.detection_utils import create_keypoint_hflip_indices

from detrex.data.keypoints import hflip_indices


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["nose", "left_eye", "right_eye"], [0, 2, 1]),
        (["LeftEye", "Mouth", "RightEye"], [2, 1, 0]),
        (["l_wing", "r_wing", "tail", "left"], [1, 0, 2, 3]),
        (["left", "bright"], [0, 1]),
        ([], []),
    ],
)
def test_hflip_indices__partners_by_name(names, expected):
    assert hflip_indices(names) == expected


def test_hflip_indices__of_coco_are_detectron2s():
    name = "keypoints_coco_2017_train"
    expected = np.asarray(create_keypoint_hflip_indices(name)).tolist()
    assert hflip_indices(MetadataCatalog.get(name).keypoint_names) == expected
