"""The truth about shapes scores 100 in every task, and the whole table is written down."""

import argparse
import json
from pathlib import Path

import numpy as np
import pycocotools.mask as mask_util
import pytest
from detectron2.config import LazyCall as L
from detectron2.data import MetadataCatalog
from detectron2.evaluation import (
    COCOEvaluator,
    COCOPanopticEvaluator,
    DatasetEvaluators,
    SemSegEvaluator,
    coco_evaluation,
)
from omegaconf import OmegaConf

from detrex.config import get_config
from detrex.engine import do_train
from detrex.engine.evaluators import (
    build_evaluator,
    coco_metrics,
    missing_packages,
    source_of,
)
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
    return root


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


SIDE, KEYPOINTS = 200, 6


def _thing(rng, image, category, keypoints=True):
    """A random triangle with its box and keypoints, as COCO's files write one."""
    corners = rng.uniform(0, SIDE * 0.6, 2) + rng.uniform(0, SIDE * 0.4, (3, 2))
    (x0, y0), (x1, y1) = corners.min(0), corners.max(0)
    outline = [corners.flatten().tolist()]
    points = np.concatenate(
        [rng.uniform((x0, y0), (x1, y1), (KEYPOINTS, 2)), rng.integers(0, 3, (KEYPOINTS, 1))], 1
    )
    points[0, 2] = 2
    return {
        "image_id": image,
        "category_id": category,
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "segmentation": outline,
        "keypoints": points.flatten().tolist(),
        "num_keypoints": int((points[:, 2] > 0).sum()),
    }


@pytest.fixture(scope="module")
def random_data(tmp_path_factory):
    """Annotations with crowds, an image without any, and a category that is nowhere."""
    rng = np.random.default_rng(0)
    annotations = []
    for image in range(1, 9):
        for _ in range(int(rng.integers(1, 9))):
            thing = _thing(rng, image, int(rng.choice([3, 7])))
            x, y, w, h = thing["bbox"]
            annotations.append({**thing, "area": w * h / 2, "iscrowd": int(rng.random() < 0.1)})
            annotations[-1]["id"] = len(annotations)
            if annotations[-1]["iscrowd"]:
                mask = np.zeros((SIDE, SIDE), np.uint8, order="F")
                mask[int(y) : int(y + h) + 1, int(x) : int(x + w) + 1] = 1
                rle = mask_util.encode(mask)
                annotations[-1]["segmentation"] = {**rle, "counts": rle["counts"].decode()}
    names = {3: "circle", 5: "nowhere", 7: "square"}
    file = tmp_path_factory.mktemp("coco") / "random.json"
    images = [{"id": i, "height": SIDE, "width": SIDE, "file_name": ""} for i in range(1, 11)]
    categories = [{"id": i, "name": name} for i, name in names.items()]
    file.write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )
    MetadataCatalog.get("random_coco").set(
        json_file=str(file),
        thing_classes=list(names.values()),
        thing_dataset_id_to_contiguous_id={i: place for place, i in enumerate(names)},
    )
    yield annotations
    MetadataCatalog.remove("random_coco")


def _found(annotations):
    """Each object twice, moved by a little or more, some of another class, and inventions."""
    rng = np.random.default_rng(1)
    classes, predictions = {3: 0, 5: 1, 7: 2}, {image: [] for image in range(1, 10)}
    for truth in [*annotations, *annotations]:
        shift = rng.normal(0, rng.choice([1, 12]), 2)
        thing = _thing(rng, truth["image_id"], classes[truth["category_id"]])
        thing["bbox"] = [*(np.array(truth["bbox"][:2]) + shift), *truth["bbox"][2:]]
        points = np.array(truth["keypoints"]).reshape(-1, 3) + np.array([*shift, 0])
        thing["keypoints"] = points.flatten().tolist()
        if not truth["iscrowd"]:
            outline = np.array(truth["segmentation"]).reshape(-1, 2) + shift
            thing["segmentation"] = [outline.flatten().tolist()]
        predictions[truth["image_id"]].append(thing)
    for image, things in predictions.items():
        things += [_thing(rng, image, int(rng.integers(3))) for _ in range(5)]
        for thing in things:
            (rle,) = mask_util.frPyObjects(thing["segmentation"], SIDE, SIDE)
            thing["segmentation"] = {**rle, "counts": rle["counts"].decode()}
            thing["score"] = float(rng.random())
    return [{"image_id": image, "instances": things} for image, things in predictions.items()]


def _agree(scores, metrics):
    """What the report gets is what the evaluator says, by class too."""
    told = {f"AP-{one['name']}": one["AP"] for one in scores["classes"]} | scores["total"]
    shared = told.keys() & metrics.keys()
    assert {"AP", "AP50", "AP75", "APm", "AP-circle"} <= shared
    for name in shared:
        expected = None if np.isnan(metrics[name]) else pytest.approx(metrics[name], abs=1e-9)
        assert told[name] == expected, name


@pytest.mark.parametrize("limit", [None, 100, 7])
def test_coco_metrics__equal_pycocotools(random_data, limit, caplog):
    pytest.importorskip("faster_coco_eval")
    results = []
    for fast in (False, True):
        call = L(COCOEvaluator)(
            dataset_name="random_coco",
            tasks=("bbox", "segm", "keypoints"),
            use_fast_impl=fast,
            max_dets_per_image=limit,
            kpt_oks_sigmas=[0.05] * KEYPOINTS,
            allow_cached_coco=False,
        )
        evaluator = build_evaluator(OmegaConf.create({"dataloader": {"evaluator": [call]}}))
        evaluator.reset()
        evaluator._evaluators[0]._predictions = _found(random_data)
        with caplog.at_level("INFO"), coco_metrics(evaluator) as scores:
            results.append(evaluator.evaluate())
        for task, metrics in results[-1].items():
            _agree(scores[task], metrics)
    told = [r.getMessage() for r in caplog.records if r.getMessage().startswith("COCO's metrics")]
    assert [message.split()[5] for message in told] == ["pycocotools", "faster-coco-eval"]
    assert results[0].keys() == {"bbox", "segm", "keypoints"}
    for task, expected in results[0].items():
        found = results[1][task]
        assert found.keys() == expected.keys()
        assert 0 < expected["AP"] < 90
        np.testing.assert_allclose(list(found.values()), list(expected.values()), 0, 1e-9)


@pytest.mark.parametrize("folder", [None, "out"])
def test_source_of__what_is_compared_and_where_the_detections_go(random_data, folder):
    evaluator = COCOEvaluator("random_coco", ("bbox",), output_dir=folder)
    source = source_of(DatasetEvaluators([evaluator]))
    assert source["name"] == "random_coco"
    assert Path(source["json_file"]).is_file()
    results = str(Path("out/coco_instances_results.json").absolute()) if folder else None
    assert source["results"] == results
    assert source_of(DatasetEvaluators([])) == {}


def test_coco_metrics__without_the_package(random_data, monkeypatch, caplog):
    monkeypatch.setattr("detrex.engine.evaluators.find_spec", lambda name: None)
    own = coco_evaluation.COCOeval_opt
    evaluator = COCOEvaluator("random_coco", ("bbox",), use_fast_impl=True)
    with caplog.at_level("INFO"), coco_metrics(evaluator):
        assert coco_evaluation.COCOeval_opt is own
    assert "faster-coco-eval" not in caplog.text
