"""The truth about shapes scores 100 in every task, and the whole table is written down."""

import argparse
import json
from pathlib import Path

import numpy as np
import pytest
from detectron2.config import LazyCall as L
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import (
    COCOEvaluator,
    COCOPanopticEvaluator,
    DatasetEvaluators,
    SemSegEvaluator,
)
from omegaconf import OmegaConf

from detrex.config import get_config
from detrex.engine import do_train
from detrex.engine.evaluators import build_evaluator, missing_packages
from detrex.engine.preflight import find_mistakes
from detrex.errors import ConfigError
from tests.reference import panopticapi_stand_in
from tests.reference.panoptic_shapes import register_panoptic_shapes
from tests.reference.shape_oracle import ShapeOracle
from tests.reference.stand_in import stand_in_config

NAME = "evaluators_shapes"
SIZE = (67, 83)


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    root = tmp_path_factory.mktemp("shapes") / "val"
    register_panoptic_shapes(NAME, root, 5, SIZE, size_range=(0.3, 0.6))
    yield root
    DatasetCatalog.remove(NAME)
    MetadataCatalog.remove(NAME)


def config(root, evaluators, **train):
    cfg = stand_in_config(str(root.parent / "out"), max_iter=1, **train)
    cfg.model = L(ShapeOracle)(json_file=str(root / "annotations.json"))
    dataloader = get_config("common/data/shapes.py").dataloader
    cfg.dataloader.test = dataloader.test
    cfg.dataloader.test.dataset.names = NAME
    cfg.dataloader.evaluator = evaluators
    return cfg


def coco(dots="..", **keywords):
    return L(COCOEvaluator)(
        dataset_name=f"${{{dots}test.dataset.names}}",
        use_fast_impl=False,
        kpt_oks_sigmas=[0.05] * 6,
        **keywords,
    )


def panoptic(dots="..."):
    name = f"${{{dots}test.dataset.names}}"
    return [L(SemSegEvaluator)(dataset_name=name), L(COCOPanopticEvaluator)(dataset_name=name)]


EVALUATORS = {
    "list": [coco("..."), *panoptic()],
    "DatasetEvaluators": L(DatasetEvaluators)(evaluators=[coco("...."), *panoptic("....")]),
}


@pytest.mark.parametrize("form", EVALUATORS)
def test_do_train__truth_in_every_task(shapes, form, monkeypatch):
    panopticapi_stand_in.install(monkeypatch)
    cfg = config(shapes, EVALUATORS[form], **{"model_ema": {"enabled": True}})
    cfg.train.output_dir += form
    assert not [m for m in find_mistakes(cfg) if "evaluator" in m]
    metrics = do_train(argparse.Namespace(resume=False), cfg)
    wanted = {"bbox/AP", "segm/AP", "keypoints/AP", "sem_seg/mIoU", "panoptic_seg/PQ"}
    wanted |= {"bbox/AP-circle", "segm/AP-square", "keypoints/AP-triangle", "panoptic_seg/RQ_th"}
    for name in wanted:
        task, metric = name.split("/")
        assert metrics[task][metric] == pytest.approx(100), name
        assert metrics[f"ema/{task}"][metric] == pytest.approx(100), name
    lines = Path(cfg.train.output_dir, "metrics.json").read_text().splitlines()
    written = {key: value for line in lines for key, value in json.loads(line).items()}
    for task, table in metrics.items():
        for metric, value in table.items():
            np.testing.assert_equal(written[f"{task}/{metric}"], value)


def test_build_evaluator__one_stays_itself(shapes):
    assert isinstance(build_evaluator(config(shapes, coco())), COCOEvaluator)


def test_build_evaluator__something_else_in_a_list(shapes):
    cfg = config(shapes, [coco("..."), OmegaConf.create({"_target_": "builtins.dict"})])
    with pytest.raises(ConfigError, match="builds DictConfig, expected an evaluator with reset"):
        build_evaluator(cfg)


def test_missing_packages__panopticapi(shapes, monkeypatch):
    cfg = config(shapes, panoptic())
    assert missing_packages(config(shapes, coco())) == []
    monkeypatch.setattr("detrex.engine.evaluators.find_spec", lambda name: None)
    (mistake,) = missing_packages(cfg)
    assert mistake in find_mistakes(cfg)
    with pytest.raises(ConfigError, match="needs the package panopticapi"):
        build_evaluator(cfg)


@pytest.mark.parametrize("form", EVALUATORS)
def test_find_mistakes__evaluator_of_another_data_set(shapes, form):
    cfg = config(shapes, EVALUATORS[form])
    node = cfg.dataloader.evaluator
    second = node[1] if form == "list" else node.evaluators[1]
    reference = OmegaConf.to_container(second)["dataset_name"]
    second.dataset_name = "coco_2017_val"
    (mistake,) = [m for m in find_mistakes(cfg) if "dataset_name" in m]
    assert mistake.startswith("dataloader.evaluator")
    assert f'write "{reference}"' in mistake
