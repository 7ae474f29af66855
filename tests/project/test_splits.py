import random

import pytest

from detrex.errors import DataError
from detrex.project.splits import hold_out


def content(labelled, empty=0):
    images = [{"id": i, "file_name": f"{i}.png"} for i in range(labelled + empty)]
    annotations = [{"id": i, "image_id": i, "iscrowd": 0} for i in range(labelled)]
    return {"images": images, "annotations": annotations, "categories": [{"id": 0}]}


def names(part):
    return {image["file_name"] for image in part["images"]}


@pytest.mark.parametrize(
    ("labelled", "empty", "held"), [(2, 0, 1), (3, 2, 1), (20, 0, 3), (100, 40, 21), (7, 1, 1)]
)
def test_hold_out__a_share_of_each_kind(labelled, empty, held):
    whole = content(labelled, empty)
    first, second = hold_out(whole, "x")
    assert names(first) | names(second) == names(whole)
    assert not names(first) & names(second)
    assert len(names(second)) == held
    for part in (first, second):
        inside = {image["id"] for image in part["images"]}
        assert part["annotations"]
        assert {a["image_id"] for a in part["annotations"]} <= inside
        assert part["categories"] == whole["categories"]
    assert len(first["annotations"]) + len(second["annotations"]) == labelled


def test_hold_out__does_not_depend_on_the_order_but_on_the_seed():
    whole = content(40)
    shuffled = {**whole, "images": random.Random(1).sample(whole["images"], 40)}
    (_, first), (_, again) = hold_out(whole, "x"), hold_out(shuffled, "x")
    assert names(first) == names(again)
    assert names(hold_out(whole, "x", seed=1)[1]) != names(first)


def test_hold_out__a_picture_that_is_listed_twice_is_on_one_side():
    whole = content(8)
    whole["images"] += [{"id": 100 + i, "file_name": f"{i}.png"} for i in range(8)]
    first, second = hold_out(whole, "x")
    assert not names(first) & names(second)


@pytest.mark.parametrize(("labelled", "empty"), [(1, 5), (0, 3)])
def test_hold_out__too_few_pictures_with_objects(labelled, empty):
    with pytest.raises(DataError, match=f"here: objects are in {labelled} of"):
        hold_out(content(labelled, empty), "here")
