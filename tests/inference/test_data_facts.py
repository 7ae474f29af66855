import pytest
from omegaconf import OmegaConf

from detrex.inference.data_facts import data_facts
from tests.reference.tiny_run import CLASSES, tiny_config


def test_data_facts__ids_by_name_whatever_the_order(trained):
    cfg = tiny_config(trained)
    assert data_facts(cfg, CLASSES).category_ids == (1, 2, 3)
    assert data_facts(cfg, CLASSES[::-1]).category_ids == (3, 2, 1)
    assert data_facts(cfg, [*CLASSES, "star"]).category_ids == ()


@pytest.mark.parametrize(
    ("name", "ids", "joined"),
    [("coco_2017_val", (18, 1), False), ("keypoints_coco_2017_val", (), True)],
)
def test_data_facts__of_a_known_set_without_its_files(name, ids, joined):
    cfg = OmegaConf.create({"dataloader": {"test": {"dataset": {"names": [name]}}}})
    facts = data_facts(cfg, ["person"] if joined else ["dog", "person"])
    assert facts.category_ids == ids
    assert ("keypoint_names" in facts.metadata) == joined


def test_data_facts__nothing_where_nothing_is_here(tmp_path):
    assert data_facts(tiny_config(tmp_path), CLASSES).category_ids == ()
    assert data_facts(OmegaConf.create(), CLASSES).category_ids == ()
