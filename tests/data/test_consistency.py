import numpy as np
import pytest
from detectron2.config import LazyCall as L
from detectron2.data import DatasetMapper, MetadataCatalog
from detectron2.data import transforms as T
from detectron2.evaluation import COCOEvaluator
from detectron2.modeling.meta_arch.semantic_seg import SemSegFPNHead
from omegaconf import OmegaConf

from detrex.data import DetrDatasetMapper
from detrex.data.coco.keypoints import check_keypoints
from detrex.data.consistency import check_consistent, check_registered
from detrex.data.datasets import CocoJson
from detrex.errors import ConfigError
from tests.reference.annotation_files import HEIGHT, WIDTH, document

SET = CocoJson("mine", "train.json", "images")
RUN_LENGTHS = {"size": [HEIGHT, WIDTH], "counts": [HEIGHT * WIDTH]}


def config(model, mapper=None, evaluator=None):
    dataloader = {"train": {"mapper": mapper}, "evaluator": evaluator}
    return OmegaConf.create(
        {"model": model, "dataloader": dataloader}, flags={"allow_objects": True}
    )


def annotated(**values):
    def change(content):
        for category in content["categories"]:
            category["keypoints"] = ["nose", "tail"]
        for annotation in content["annotations"]:
            annotation |= {"keypoints": [1, 1, 2, 5, 5, 2], "num_keypoints": 2} | values

    doc = document(change)
    check_keypoints(doc, True)
    return doc


@pytest.mark.parametrize("key", ["num_classes", "roi_heads.num_classes"])
def test_check_consistent__number_of_classes_by_the_detectors_own_key(key):
    cfg = config({})
    for number in (3, None):
        OmegaConf.update(cfg.model, key, number)
        check_consistent(cfg, SET, document(), "train")
    OmegaConf.update(cfg.model, key, 80)
    with pytest.raises(ConfigError, match=f"3 categories .* is for 80: set model.{key}=3"):
        check_consistent(cfg, SET, document(), "train")


SIGMAS = L(COCOEvaluator)(dataset_name="mine", kpt_oks_sigmas=[0.1, 0.1])
HEAD = {"roi_heads": {"keypoint_head": {"num_keypoints": 17}}}


@pytest.mark.parametrize("side", ["train", "test"])
def test_check_consistent__number_of_keypoints(side):
    mapper = L(DetrDatasetMapper)(keypoint_on=True)
    message = r"2 keypoints \(nose, tail\), but the model is for 17: set .*num_keypoints=2\."
    with pytest.raises(ConfigError, match=message):
        check_consistent(config(HEAD, mapper), SET, annotated(), side)
    with pytest.raises(ConfigError, match=message):
        check_consistent(config(HEAD, L(DetrDatasetMapper)()), SET, annotated(), side)
    check_consistent(config({}, mapper), SET, annotated(), side)
    fitting = {"roi_heads": {"keypoint_head": {"num_keypoints": 2}}}
    check_consistent(config(fitting, mapper, SIGMAS), SET, annotated(), side)


@pytest.mark.parametrize(("tasks", "is_held"), [(["bbox", "segm"], False), (None, True)])
def test_check_consistent__evaluators_of_other_tasks_need_no_sigmas(tasks, is_held):
    node = L(COCOEvaluator)(dataset_name="mine", tasks=tasks)
    cfg = config({"roi_heads": {"keypoint_head": {"num_keypoints": 2}}}, evaluator=[node])
    if is_held:
        with pytest.raises(ConfigError, match=r"kpt_oks_sigmas has 0 numbers"):
            check_consistent(cfg, SET, annotated(), "test")
    else:
        check_consistent(cfg, SET, annotated(), "test")


@pytest.mark.parametrize("sigmas", [None, [0.1], [0.1, 0.1]])
def test_check_consistent__sigmas_of_keypoints(sigmas):
    node = L(COCOEvaluator)(dataset_name="mine", tasks=("keypoints",), kpt_oks_sigmas=sigmas)
    cfg = config({}, evaluator=[node])
    check_consistent(cfg, SET, annotated(), "train")
    if sigmas and len(sigmas) == 2:
        check_consistent(cfg, SET, annotated(), "test")
        return
    with pytest.raises(ConfigError, match=r"kpt_oks_sigmas has .* 'mine' has 2 keypoints"):
        check_consistent(cfg, SET, annotated(), "test")


def test_check_consistent__run_lengths_for_a_mapper_of_polygons():
    doc = annotated(segmentation=RUN_LENGTHS)
    keywords = {"use_instance_mask": True, "instance_mask_format": "polygon"}
    with pytest.raises(ConfigError, match=r"set .*instance_mask_format=bitmask"):
        check_consistent(config({}, L(DatasetMapper)(**keywords)), SET, doc, "train")
    keywords["instance_mask_format"] = "bitmask"
    check_consistent(config({}, L(DatasetMapper)(**keywords)), SET, doc, "train")
    padded = L(DatasetMapper)(augmentations=[L(T.FixedSizeCrop)(crop_size=(9, 9))], **keywords)
    with pytest.raises(ConfigError, match=r"as if that were the object: set seg_pad_value=0"):
        check_consistent(config({}, padded), SET, doc, "train")
    check_consistent(config({}, padded), SET, annotated(), "train")
    padded.augmentations[0].seg_pad_value = 0
    check_consistent(config({}, padded), SET, doc, "train")
    check_consistent(config({}, L(DatasetMapper)()), SET, doc, "train")
    check_consistent(config({}, L(DetrDatasetMapper)(mask_on=True)), SET, doc, "train")
    for annotation in doc.annotations:
        annotation["iscrowd"] = 1
    cfg = config({}, L(DatasetMapper)(use_instance_mask=True))
    check_consistent(cfg, SET, doc, "train")


def test_check_consistent__number_of_flip_indices():
    mapper = L(DetrDatasetMapper)(keypoint_on=True, keypoint_hflip_indices=[0, 2, 1])
    with pytest.raises(ConfigError, match=r"has 3 numbers, but data set 'mine' has 2 keypoints"):
        check_consistent(config({}, mapper), SET, annotated(), "train")
    mapper.keypoint_hflip_indices = np.array([1, 0])
    check_consistent(config({}, mapper), SET, annotated(), "train")


def test_check_consistent__classes_of_pixels_are_in_no_file_of_objects():
    cfg = config({"sem_seg_head": {"num_classes": 2}})
    check_consistent(cfg, SET, document(), "test")
    with pytest.raises(ConfigError, match=r"'mine' has objects only, but model.sem_seg_head"):
        check_consistent(cfg, SET, document(), "train")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"num_classes": 2, "sem_seg_head": {"num_classes": 3}}, None),
        ({}, None),
        ({"roi_heads": {"num_classes": 3}}, r"2 categories .* set model\.roi_heads\.num_classes=2"),
        ({"sem_seg_head": {"num_classes": 54}}, r"3 .* set model\.sem_seg_head\.num_classes=3"),
    ],
)
def test_check_registered__classes_in_detectron2s_catalogue(model, message):
    name = "consistency_registered"
    MetadataCatalog.get(name).set(thing_classes=["a", "b"], stuff_classes=["things", "x", "y"])
    try:
        if message is None:
            check_registered(config(model), name)
        else:
            with pytest.raises(ConfigError, match=message):
                check_registered(config(model), name)
    finally:
        MetadataCatalog.remove(name)


class _SegmentHead:
    """Stands for MaskFormer's, which learns segments and counts the classes of both kinds."""


class _OwnPixelHead(SemSegFPNHead):
    pass


@pytest.mark.parametrize("head", [SemSegFPNHead, _OwnPixelHead])
def test_check_consistent__heads_of_pixels_alone_need_classes_of_pixels(head):
    check_consistent(config({"sem_seg_head": L(_SegmentHead)()}), SET, document(), "train")
    with pytest.raises(ConfigError, match=r"'mine' has objects only, but model.sem_seg_head"):
        check_consistent(config({"sem_seg_head": L(head)()}), SET, document(), "train")


@pytest.mark.parametrize(
    ("evaluator_type", "model", "message"),
    [
        ("coco", {"num_classes": 2, "sem_seg_head": L(_SegmentHead)(num_classes=80)}, None),
        ("sem_seg", {"num_classes": 9, "sem_seg_head": L(_SegmentHead)(num_classes=3)}, None),
        ("cityscapes_sem_seg", {"num_classes": 9}, None),
        ("sem_seg", {"sem_seg_head": L(SemSegFPNHead)(num_classes=54)}, "set model.sem_seg_head"),
        ("coco_panoptic_seg", {"num_classes": 9}, "set model.num_classes=2"),
    ],
)
def test_check_registered__classes_that_the_run_learns(evaluator_type, model, message):
    name = "consistency_semantic"
    metadata = MetadataCatalog.get(name)
    metadata.set(thing_classes=["a", "b"], stuff_classes=["things", "x", "y"])
    metadata.evaluator_type = evaluator_type
    try:
        if message is None:
            check_registered(config(model), name)
        else:
            with pytest.raises(ConfigError, match=message):
                check_registered(config(model), name)
    finally:
        MetadataCatalog.remove(name)
