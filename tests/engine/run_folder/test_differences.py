import pytest
from detectron2.config import LazyCall as L
from omegaconf import OmegaConf
from torch import nn

from detrex.engine.run_folder.differences import describe, differences


def config(**train):
    cfg = OmegaConf.create(flags={"allow_objects": True})
    cfg.model = L(nn.Linear)(in_features="${train.width}", out_features=3)
    cfg.train = {"width": 5, "amp": {"enabled": False}, "sizes": [3, 5], **train}
    return cfg


def test_describe__by_full_key_and_resolved():
    assert describe(config()) == {
        "model._target_": "Linear",
        "model.in_features": 5,
        "model.out_features": 3,
        "train.width": 5,
        "train.amp.enabled": False,
        "train.sizes": "[3, 5]",
    }


def test_describe__what_has_no_form_is_alike_in_each_process():
    cfg = config(link="${nowhere}", empty={}, thing=object(), many=list(range(99)))
    flat = describe(cfg)
    assert flat["model.in_features"] == "${train.width}", "as written where not all resolve"
    assert flat["train.thing"] == "<object object>"
    assert flat["train.empty"] == "{}"
    assert len(flat["train.many"]) < 120
    assert describe(config(many=[*range(98), 99]))["train.many"] != flat["train.many"]


def test_differences__old_and_new_of_each_key():
    old, new = describe(config(seed=float("nan"))), describe(config(seed=float("nan"), width=7))
    assert differences(old, old) == []
    assert differences(old, new) == ["  model.in_features: 5 -> 7", "  train.width: 5 -> 7"]
    assert differences({"a": 1}, {"b": None}) == [
        "  a: 1 -> (not there)",
        "  b: (not there) -> None",
    ]


@pytest.mark.parametrize(("count", "lines"), [(20, 20), (23, 21)])
def test_differences__are_counted_when_they_are_many(count, lines):
    found = differences({}, {f"key{i}": i for i in range(count)})
    assert len(found) == lines
    assert (found[-1] == "  and 3 more") == (count == 23)
