from collections.abc import Sequence

import pytest
from detectron2.config import LazyCall as L
from omegaconf import OmegaConf

from detrex.config import load_config
from detrex.config.config import configs_root
from detrex.config.types import check_types


def target(
    count: int = 1,
    rate: float = 0.5,
    name: str = "",
    is_on: bool = False,
    sizes: Sequence[int] = (),
    maybe: int | None = None,
    anything: object = None,
) -> None:
    """Annotated for the tests."""


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"count": 3, "rate": 1, "name": "a", "is_on": True, "sizes": [1, 2], "maybe": None}, []),
        ({"anything": {"a": 1}}, []),
        ({"count": "three"}, ["count of target() must be int, got 'three'."]),
        ({"count": True}, ["count of target() must be int, got True."]),
        ({"is_on": 1}, ["is_on of target() must be bool, got 1."]),
        ({"rate": "fast"}, ["rate of target() must be float, got 'fast'."]),
        ({"maybe": 1.5}, ["maybe of target() must be int or None, got 1.5."]),
        (
            {"sizes": [1, "b"]},
            ["sizes of target() must be collections.abc.Sequence[int], got [1, 'b']."],
        ),
        ({"sizes": 8}, ["sizes of target() must be collections.abc.Sequence[int], got 8."]),
    ],
)
def test_check_types(values, expected):
    assert check_types(L(target)(**values)) == expected


def test_check_types__says_where_and_leaves_references_alone():
    cfg = OmegaConf.create({"n": 3}, flags={"allow_objects": True})
    cfg.part = L(target)(count="${n}")
    cfg.other = L(target)(name=5, count="${absent}")
    assert check_types(cfg) == ["other.name of target() must be str, got 5."]


@pytest.mark.parametrize(
    "path", sorted((configs_root() / "dino").glob("*.py")), ids=lambda p: p.stem
)
def test_check_types__finds_nothing_in_our_configs(path):
    assert check_types(load_config(path)) == []
