import pytest
from detectron2.config import LazyCall as L
from detectron2.data import DatasetMapper
from detectron2.data import transforms as T
from omegaconf import OmegaConf

from detrex.data import COCOInstanceNewBaselineDatasetMapper, DetrDatasetMapper
from detrex.engine.heads import head_mistakes
from tests.reference.tiny_detectors import DETECTORS, tiny_detector


def config(model, mapper=None, test_mapper=None):
    dataloader = {"train": {"mapper": mapper}, "test": {"mapper": test_mapper}}
    return OmegaConf.create(
        {"model": model, "dataloader": dataloader}, flags={"allow_objects": True}
    )


@pytest.mark.parametrize("name", DETECTORS)
def test_head_mistakes__none_in_detectron2s_own(name):
    assert list(head_mistakes(config(tiny_detector(name)))) == []


@pytest.mark.parametrize(
    ("name", "head", "key"),
    [
        ("mask_rcnn_fpn", "roi_heads.box_predictor", "roi_heads.num_classes"),
        ("mask_rcnn_fpn", "roi_heads.mask_head", "roi_heads.num_classes"),
        ("cascade_rcnn", "roi_heads.box_predictors[1]", "roi_heads.num_classes"),
        ("retinanet", "head", "num_classes"),
        ("fcos", "head", "num_classes"),
    ],
)
def test_head_mistakes__number_of_classes(name, head, key):
    model = tiny_detector(name)
    OmegaConf.update(model, f"{head}.num_classes", 80)
    (mistake,) = head_mistakes(config(model))
    assert mistake.startswith(f"model.{head}.num_classes=80 differs from model.{key}=3:")


def test_head_mistakes__mask_head_for_all_classes_alike():
    model = tiny_detector("mask_rcnn_fpn")
    model.roi_heads.mask_head.num_classes = 1
    assert list(head_mistakes(config(model))) == []


@pytest.mark.parametrize(
    ("name", "mapper", "switch"),
    [
        ("mask_rcnn_fpn", DetrDatasetMapper, "mask_on"),
        ("mask_rcnn_c4", DatasetMapper, "use_instance_mask"),
        ("keypoint_rcnn_fpn", DetrDatasetMapper, "keypoint_on"),
        ("keypoint_rcnn_fpn", DatasetMapper, "use_keypoint"),
    ],
)
@pytest.mark.parametrize("value", [None, False, True])
def test_head_mistakes__head_without_anything_to_learn_from(name, mapper, switch, value):
    node = L(mapper)(**({} if value is None else {switch: value}))
    mistakes = list(head_mistakes(config(tiny_detector(name), node)))
    if value:
        assert mistakes == []
    else:
        (mistake,) = mistakes
        assert mistake.startswith(f"dataloader.train.mapper.{switch}=False cannot be used: model.")


@pytest.mark.parametrize(
    ("flip", "indices", "count"),
    [
        (L(T.RandomFlip)(), None, 1),
        (L(T.RandomFlip)(horizontal=True), None, 1),
        (L(T.RandomFlip)(horizontal=False, vertical=True), None, 0),
        (L(T.RandomFlip)(), [0, 2, 1], 0),
        (L(T.RandomBrightness)(intensity_min=1, intensity_max=2), None, 0),
    ],
)
def test_head_mistakes__flipped_keypoints_need_their_partners(flip, indices, count):
    model = tiny_detector("keypoint_rcnn_fpn")
    for node in (
        L(DetrDatasetMapper)(augmentation=[flip], keypoint_on=True),
        L(DatasetMapper)(augmentations=[flip], use_keypoint=True),
    ):
        if indices:
            node.keypoint_hflip_indices = indices
        assert len(list(head_mistakes(config(model, node)))) == count
    unused = L(DetrDatasetMapper)(augmentation=[flip], augmentation_with_crop=None)
    assert list(head_mistakes(config(tiny_detector("fcos"), unused))) == []


def test_head_mistakes__masks_as_tensors():
    node = L(COCOInstanceNewBaselineDatasetMapper)(augmentation=[], image_format="RGB")
    (mistake,) = head_mistakes(config(tiny_detector("mask_rcnn_fpn"), node))
    assert mistake.startswith("dataloader.train.mapper gives masks as plain tensors")
    assert list(head_mistakes(config(tiny_detector("fcos"), node))) == []


class _AlwaysWithMasks(DatasetMapper):
    def __init__(self, augmentations):
        super().__init__(True, augmentations=augmentations, image_format="RGB")


class _WithMasksUnlessToldOtherwise(DetrDatasetMapper):
    def __init__(self, mask_on=True):
        super().__init__([], None, mask_on=mask_on)


class _MasksAsBitMasks(COCOInstanceNewBaselineDatasetMapper):
    pass


@pytest.mark.parametrize(
    ("node", "count"),
    [
        (L(_AlwaysWithMasks)(augmentations=[]), 0),
        (L(_WithMasksUnlessToldOtherwise)(), 0),
        (L(_WithMasksUnlessToldOtherwise)(mask_on=False), 1),
        (L(_MasksAsBitMasks)(augmentation=[], image_format="RGB"), 0),
    ],
)
def test_head_mistakes__mappers_of_ones_own(node, count):
    assert len(list(head_mistakes(config(tiny_detector("mask_rcnn_fpn"), node)))) == count


class _Embedding:
    """A head that counts other classes than the detector's."""


def test_head_mistakes__heads_of_ones_own_count_what_they_like():
    model = tiny_detector("mask_rcnn_fpn")
    model.roi_heads.box_predictor = L(_Embedding)(num_classes=1203)
    assert list(head_mistakes(config(model))) == []
