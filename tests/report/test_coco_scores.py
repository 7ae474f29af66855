import numpy as np
import pytest
from faster_coco_eval import COCO, COCOeval_faster

from detrex.report.coco_scores import scores_of
from tests.reference.report_runs import evaluated, made_up_run


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scores")
    run = made_up_run(folder, 12, masks=True)
    return folder / "val/annotations.json", run / "coco_instances_results.json"


@pytest.mark.parametrize("task", ["bbox", "segm"])
def test_scores_of__are_those_that_coco_prints(files, task):
    evaluation = evaluated(*files, task)
    evaluation.summarize()
    names = ("AP", "AP50", "AP75", "APs", "APm", "APl", None, None, "AR", "ARs", "ARm", "ARl")
    total = scores_of(evaluation)["total"]
    for name, value in zip(names, evaluation.stats, strict=True):
        if name:
            expected = None if value < 0 else pytest.approx(100 * value, abs=1e-9)
            assert total[name] == expected, name


def test_scores_of__a_class_alone_is_its_evaluation_alone(files):
    whole = scores_of(evaluated(*files))
    for one in whole["classes"]:
        evaluation = evaluated(*files)
        evaluation.params.catIds = [one["id"]]
        evaluation.evaluate()
        evaluation.accumulate()
        alone = scores_of(evaluation)["total"]
        assert {k: v for k, v in one.items() if k in alone} == pytest.approx(alone, nan_ok=True)
    assert [one["name"] for one in whole["classes"]] == ["circle", "square", "triangle"]


def test_scores_of__faster_coco_eval_gives_the_same(files):
    truth = COCO(str(files[0]))
    evaluation = COCOeval_faster(truth, truth.loadRes(str(files[1])), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    expected, got = scores_of(evaluated(*files)), scores_of(evaluation)
    assert got["total"] == pytest.approx(expected["total"], abs=1e-6)
    assert type(got["classes"][0]["id"]) is int
    np.testing.assert_equal(
        [one["name"] for one in got["classes"]], [one["name"] for one in expected["classes"]]
    )
