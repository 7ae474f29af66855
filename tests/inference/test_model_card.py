import json

import pytest
import yaml
from huggingface_hub import ModelCard

from detrex.inference.facts import Facts
from detrex.inference.model_card import COLUMNS, Curves, model_card

FACTS = Facts(
    class_names=("cat", "a|b", "<img src=x>\n# head", "*"),
    licence="Apache-2.0",
    datasets=("my_set_train",),
    measured_on=("my_set_val",),
    metrics={"bbox": {"AP": 41.234, "AP50": 60.0}, "segm": {"AP": 37.0}},
    iteration=89999,
    versions={"detrex": "0.6.0"},
)


def card_of(facts=FACTS, name="owner/name", pictures=("loss.png",)):
    return model_card(facts, name, pictures, "GeneralizedRCNN", "resnet50.a1_in1k")


def front_matter(card):
    return yaml.safe_load(card.split("---\n")[1])


def test_model_card__front_matter_is_what_the_hub_reads(tmp_path):
    (tmp_path / "README.md").write_text(card_of())
    data = ModelCard.load(tmp_path / "README.md").data
    assert (data.library_name, data.pipeline_tag) == ("detrex", "object-detection")
    assert (data.license, data.datasets) == ("apache-2.0", ["my_set_train"])
    assert {"detrex", "detectron2", "generalizedrcnn", "resnet50.a1-in1k"} <= set(data.tags)
    told = {(r.task_type, r.metric_type, r.metric_value) for r in data.eval_results}
    assert told == {
        ("object-detection", "ap", 41.234),
        ("object-detection", "ap50", 60.0),
        ("image-segmentation", "ap", 37.0),
    }
    assert {r.dataset_name for r in data.eval_results} == {"my_set_val"}


def test_model_card__nothing_is_claimed_that_was_not_measured():
    card = card_of(Facts(), "folder", ())
    assert front_matter(card).keys() == {"library_name", "pipeline_tag", "tags"}
    assert "## Measured" not in card
    assert "## Classes" not in card
    assert "detrex.load('folder')" in card
    assert "without a word on their licence" in card


def test_model_card__other_licences_by_their_name():
    matter = front_matter(card_of(Facts(licence="My Own: Licence 2")))
    assert (matter["license"], matter["license_name"]) == ("other", "my-own-licence-2")


def test_model_card__says_how_to_use_it():
    assert "detrex.load('hf-hub:owner/name')" in card_of()
    card = card_of(Facts(trust=("my_package",)))
    assert "detrex.load('hf-hub:owner/name', trust=['my_package'])" in card
    assert "loading runs that code" in card


def test_model_card__names_of_strangers_are_words():
    card = card_of()
    assert r"cat, a\|b, \<img src=x\>\\n\# head, \*" in card
    assert "\n# head" not in card
    many = card_of(Facts(class_names=tuple(map(str, range(300)))))
    assert "99, and 200 more in `detrex.json`" in many


def test_model_card__table_and_pictures():
    lines = card_of().splitlines()
    assert "| | AP | AP50 |" in lines
    assert "| boxes | 41.2 | 60.0 |" in lines
    assert "| masks | 37.0 |  |" in lines
    assert r"AP in percent, as COCO defines it, on my\_set\_val after iteration 90000." in lines
    assert "![losses over the iterations](loss.png)" in lines


ROWS = [
    {"iteration": 9, "total_loss": 3.0, "loss_class": 1.0},
    {"iteration": 19, "total_loss": 2.0, "bbox/AP": 10.0, "bbox/AP50": float("nan")},
    {"iteration": 19, "ema/bbox/AP": 12.0, "bbox/AP-cat": 3.0},
    {"iteration": 29, "total_loss": 1.0, "bbox/AP": 20.0, "segm/APl": 5.0},
    {"iteration": 30, "bbox/AP75": 7.0},
]


@pytest.fixture
def run(tmp_path):
    (tmp_path / "metrics.json").write_text("\n".join(map(json.dumps, ROWS)) + '\n{"cut": ')
    return tmp_path


@pytest.mark.parametrize(
    ("iteration", "ema", "metrics"),
    [
        (19, False, {"bbox": {"AP": 10.0}}),
        (19, True, {"bbox": {"AP": 12.0}}),
        (29, False, {"bbox": {"AP": 20.0, "AP75": 7.0}, "segm": {"APl": 5.0}}),
        (24, False, {}),
        (-1, False, {}),
    ],
)
def test_curves__ap_is_that_of_the_weights(run, iteration, ema, metrics):
    assert Curves.of_run(run, iteration, ema).metrics == metrics


def test_curves__are_drawn_where_there_are_any(run, tmp_path):
    (tmp_path / "out").mkdir()
    assert Curves.of_run(run, 29).draw(tmp_path / "out") == ["loss.png", "ap.png"]
    assert all((tmp_path / "out" / name).stat().st_size > 5000 for name in Curves.FILES)
    assert Curves().draw(tmp_path / "out") == []


def test_curves__no_run_or_a_damaged_one(tmp_path, caplog):
    assert Curves.of_run(None, 3) == Curves.of_run(tmp_path, 3) == Curves()
    (tmp_path / "metrics.json").write_text('{"a": 1}\n')
    assert Curves.of_run(tmp_path, 3) == Curves()
    assert "no curves are drawn" in caplog.text


def test_columns__are_those_of_cocos_evaluation():
    assert COLUMNS == ("AP", "AP50", "AP75", "APs", "APm", "APl")
