from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import pytest
from detectron2.config import LazyCall as L
from omegaconf import OmegaConf
from torch import nn

from detrex.config import get_detectron2_config, load_config
from detrex.config.config import configs_root
from detrex.config.types import check_types

MAPPING = "target() must be collections.abc.Mapping[str, float]"


def target(
    count: int = 1,
    rate: float = 0.5,
    name: str = "",
    is_on: bool = False,
    sizes: Sequence[int] = (),
    maybe: int | None = None,
    anything: object = None,
    part: nn.Module | None = None,
    function: Callable[[int], int] = abs,
    weights: Mapping[str, float] = MappingProxyType({}),
) -> None:
    """Annotated for the tests."""


def test_check_types__auto_becomes_numbers_before_the_detector_is_built():
    model = get_detectron2_config("common/models/mask_rcnn_fpn.py").model
    model.pixel_mean, model.pixel_std = "auto", "none"
    (mistake,) = check_types(model)
    assert mistake.startswith("pixel_std of GeneralizedRCNN() must be")


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
        ({"count": {"a": 1}}, ["count of target() must be int, got {'a': 1}."]),
        ({"count": L(len)(obj="ab"), "sizes": L(len)(obj=""), "weights": L(len)(obj="")}, []),
        ({"part": L(nn.ReLU)(), "function": len, "weights": {"a": 1, "b": 0.5}}, []),
        ({"part": None}, []),
        (
            {"sizes": {"a": 1}},
            ["sizes of target() must be collections.abc.Sequence[int], got {'a': 1}."],
        ),
        ({"weights": {"a": "b"}}, [f"weights of {MAPPING}, got {{'a': 'b'}}."]),
        ({"weights": [1]}, [f"weights of {MAPPING}, got [1]."]),
        ({"sizes": 8}, ["sizes of target() must be collections.abc.Sequence[int], got 8."]),
    ],
)
def test_check_types(values, expected):
    assert check_types(L(target)(**values)) == expected


@pytest.mark.parametrize("name", ["part", "function"])
@pytest.mark.parametrize("value", [5, "abc", [], {}, True])
def test_check_types__plain_values_are_no_modules_and_no_functions(name, value):
    (finding,) = check_types(L(target)(**{name: value}))
    assert finding.startswith(f"{name} of target() must be ")
    assert finding.endswith(f"got {value!r}.")


def test_check_types__classes_by_their_names():
    (finding,) = check_types(L(target)(part=5))
    assert finding == "part of target() must be Module or None, got 5."


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
