import pytest
from detectron2.config import LazyCall as L
from detectron2.data import DatasetMapper
from detectron2.evaluation import COCOEvaluator, DatasetEvaluators, SemSegEvaluator
from omegaconf import OmegaConf

from detrex.data import (
    DetrDatasetMapper,
    MaskFormerInstanceDatasetMapper,
    MaskFormerSemanticDatasetMapper,
)
from detrex.data.tasks import (
    READERS,
    evaluators_of,
    is_call_of,
    keypoints_wanted,
    masks_wanted,
    num_classes_of,
)


def config(**parts):
    return OmegaConf.create(parts, flags={"allow_objects": True})


def evaluator(**keywords):
    return L(COCOEvaluator)(dataset_name="a", **keywords)


@pytest.mark.parametrize(
    ("dataloader", "masks", "keypoints"),
    [
        ({}, False, False),
        ({"train": {"mapper": L(DetrDatasetMapper)(mask_on=True)}}, True, False),
        ({"train": {"mapper": L(DetrDatasetMapper)(keypoint_on=True)}}, False, True),
        ({"train": {"mapper": L(MaskFormerInstanceDatasetMapper)()}}, True, False),
        ({"train": {"mapper": L(MaskFormerSemanticDatasetMapper)()}}, False, False),
        ({"train": {"mapper": L(DatasetMapper)(use_instance_mask=True)}}, True, False),
        ({"test": {"mapper": L(DatasetMapper)(use_keypoint=True)}}, False, True),
        ({"train": {"mapper": L(DatasetMapper)(use_keypoint=False)}}, False, False),
        ({"evaluator": evaluator(tasks=("bbox", "segm"))}, True, False),
        ({"evaluator": [evaluator(), evaluator(tasks=["keypoints"])]}, False, True),
        (
            {"evaluator": L(DatasetEvaluators)(evaluators=[evaluator(tasks=("segm",))])},
            True,
            False,
        ),
    ],
)
def test_wanted__by_mappers_and_tasks(dataloader, masks, keypoints):
    cfg = config(dataloader=dataloader)
    assert masks_wanted(cfg) is masks
    assert keypoints_wanted(cfg) is keypoints


@pytest.mark.parametrize("head", ["mask_head", "keypoint_head"])
def test_wanted__by_the_detectors_heads(head):
    cfg = config(model={"roi_heads": {head: {"_target_": "builtins.dict"}}})
    assert (masks_wanted(cfg), keypoints_wanted(cfg)) == (head[0] == "m", head[0] == "k")


def test_evaluators_of__each_call_once():
    one, two = evaluator(), L(SemSegEvaluator)(dataset_name="a")
    assert evaluators_of(config(dataloader={"evaluator": None})) == []
    assert evaluators_of(config(dataloader={"evaluator": one})) == [one]
    nested = [one, L(DatasetEvaluators)(evaluators=[two])]
    assert evaluators_of(config(dataloader={"evaluator": nested})) == [one, two]


class Own(DatasetMapper):
    pass


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        (L(Own)(), True),
        (L(DetrDatasetMapper)(), True),
        (L(MaskFormerSemanticDatasetMapper)(), True),
        (config(_target_="detectron2.data.DatasetMapper"), True),
        (config(_target_="builtins.dict"), False),
        (Own(True, augmentations=[], image_format="RGB"), True),
        (None, False),
    ],
)
def test_is_call_of__classes_and_subclasses(node, expected):
    assert is_call_of(node, *READERS) is expected


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ({"num_classes": 3}, ("model.num_classes", 3)),
        ({"roi_heads": {"num_classes": 5}}, ("model.roi_heads.num_classes", 5)),
        ({"head": {"num_classes": "${..num_classes}"}, "num_classes": 7}, ("model.num_classes", 7)),
        ({}, ("model.num_classes", None)),
        ({"num_classes": "many"}, ("model.num_classes", None)),
    ],
)
def test_num_classes_of__with_the_key_that_says_it(model, expected):
    assert num_classes_of(config(model=model)) == expected
