import numpy as np
import pytest
import torch

from detrex.errors import ConfigError
from detrex.inference.classes import name_of, wanted_labels

NAMES = ("circle", "disc", "7")


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        (None, None),
        ("disc", {1}),
        (2, {2}),
        (["circle", 1, "2"], {0, 1, 2}),
        ("7", {2}),  # a name goes before an index
        ([], set()),
        (np.int64(1), {1}),
        (np.array([0, 2]), {0, 2}),
        (torch.tensor([0, 2]), {0, 2}),
        (torch.tensor(1), {1}),
    ],
)
def test_wanted_labels__by_name_and_index(classes, expected):
    assert wanted_labels(classes, NAMES) == expected


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ("circel", r"classes='circel' is none of .*Did you mean 'circle'"),
        (3, "classes=3 is none of the detector's 3 classes, such as circle, disc, 7"),
        (-1, "classes=-1 is none"),
        (True, "classes=True is none"),
        (b"disc", "classes=b'disc' is none"),
        (1.0, r"classes=1\.0 is none"),
    ],
)
def test_wanted_labels__unknown_ones_are_said(classes, message):
    with pytest.raises(ConfigError, match=message):
        wanted_labels(classes, NAMES)


def test_wanted_labels__all_classes_of_a_name():
    assert wanted_labels("a", ("a", "b", "a")) == {0, 2}


def test_wanted_labels__without_names_only_indices():
    assert wanted_labels([70, "3"], ()) == {3, 70}
    with pytest.raises(ConfigError, match="nothing tells this detector's class names"):
        wanted_labels("dog", ())


def test_name_of__the_index_where_there_is_none():
    assert [name_of(NAMES, label) for label in (0, 3)] == ["circle", "class 3"]
