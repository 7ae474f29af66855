"""Segments and classes of pixels together."""

import numpy as np
import pytest

from detrex.data.dataset_mappers import MaskFormerPanopticDatasetMapper


@pytest.mark.parametrize("names", ["no such set", ["no such set"]])
def test_call__segments_and_classes(scene, names):
    mapper = MaskFormerPanopticDatasetMapper(
        dataset_names=names,
        augmentations=scene.augmentation(),
        image_format="RGB",
        ignore_label=99,
        size_divisibility=8,
    )
    mapped = mapper(scene.record)
    ids, labels = np.full((24, 40), -1), np.full((24, 40), 99)
    ids[:20, :36] = scene.moved(scene.ids, -1)
    labels[:20, :36] = scene.moved(scene.labels, 99)
    assert np.array_equal(mapped["sem_seg"], labels)
    assert mapped["instances"].gt_classes.tolist() == [4, 2]
    assert np.array_equal(mapped["instances"].gt_masks, np.stack([ids == 70000, ids == 300]))
    del scene.record["sem_seg_file_name"]
    alone = mapper(scene.record)
    assert "sem_seg" not in alone
    assert alone["instances"].gt_classes.tolist() == [4, 2]
    mapper.is_train = False
    assert "instances" not in mapper(scene.record)
