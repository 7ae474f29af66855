import functools
from enum import Enum, IntEnum
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone import ResNet
from omegaconf import OmegaConf
from torch import nn
from torchvision.transforms import InterpolationMode

from detrex.config import load_config
from detrex.config.building import build_part
from detrex.config.safe_yaml import read_yaml
from detrex.config.yaml_text import is_place, resolved, trust_needed, yaml_text
from detrex.errors import ConfigError
from tests.reference.tiny_detectors import tiny_detector


class Whole(IntEnum):
    TWO = 2


class Colour(Enum):
    RED = "r"


@pytest.fixture
def again(tmp_path):
    def write_and_read(value):
        (tmp_path / "config.yaml").write_text(yaml_text(value), encoding="utf-8")
        return read_yaml(tmp_path / "config.yaml")

    return write_and_read


@pytest.mark.parametrize(
    "value",
    [
        *(
            "1e-4",
            "1_000",
            ".5",
            "012",
            "0x1f",
            "1:2:3",
            "yes",
            "on",
            "null",
            "~",
            "",
            "<<",
            "=",
            "-",
        ),
        *(
            "2024-01-02",
            "true",
            "a: b",
            "# no",
            "!!python/name:os.system",
            "é\n日本 \t",
            "&a",
            "*a",
        ),
        *(1, -7, True, None, 1e-5, 1e300, 0.1, float("inf"), [1, [2, []]], {}, {3: "x", "4": "y"}),
        *("nan", ".nan", "1e5", "+1", "???", "{a}", "res3", "a/b", "https://a/b"),
    ],
)
def test_yaml_text__gives_back_what_was_written(again, value):
    back = again({"x": value})["x"]
    assert back == value
    assert type(back) is type(value)


def test_resolved__has_values_for_references_and_plain_numbers():
    cfg = OmegaConf.create({"width": 7, "part": L(nn.Linear)(a="${width}", b=r"\${width}")})
    cfg.part.c, cfg.part.d = (1, (2, 3)), np.float32(0.5)
    plain = resolved(cfg.part, "part")
    assert plain == {
        **{"a": 7, "b": r"\${width}", "c": [1, [2, 3]], "d": 0.5},
        "_target_": "torch.nn.Linear",
    }
    assert type(plain["d"]) is float


def test_yaml_text__what_looks_like_a_reference_is_none(tmp_path):
    cfg = OmegaConf.create({"part": {"b": r"\${width}", "c": r"a\\\${x}"}})
    (tmp_path / "a.yaml").write_text(yaml_text({"part": resolved(cfg.part, "part")}))
    again = load_config(tmp_path / "a.yaml")
    assert (again.part.b, again.part.c) == (cfg.part.b, cfg.part.c) == ("${width}", r"a\${x}")


def test_yaml_text__classes_functions_shapes_and_partials(again, tmp_path):
    part = L(nn.Conv2d)(
        norm=nn.LayerNorm,
        stage=ResNet.make_stage,
        late=functools.partial(nn.LayerNorm, 3, eps=1e-6),
        shapes={"p3": ShapeSpec(channels=8, stride=4)},
        several=[ShapeSpec(height=2)],
    )
    back = again({"model": resolved(part, "model")})["model"]
    assert back["norm"] is nn.LayerNorm
    assert back["stage"] is ResNet.make_stage
    assert back["shapes"] == {"p3": ShapeSpec(channels=8, stride=4)}
    assert back["several"] == [ShapeSpec(height=2)]
    assert back["late"]().normalized_shape == (3,)
    assert back["late"]().eps == 1e-6
    lines = (tmp_path / "config.yaml").read_text().splitlines()
    text = "\n".join(line for line in lines if "stage:" not in line)  # PyYAML reads no methods
    assert yaml.unsafe_load(text)["model"]["late"]().eps == 1e-6


def test_yaml_text__members_of_enums(tmp_path):
    part = L(nn.Identity)(mode=InterpolationMode.BILINEAR, all=[InterpolationMode.BOX], n=Whole.TWO)
    (tmp_path / "a.yaml").write_text(yaml_text({"part": resolved(part, "part")}))
    again = load_config(tmp_path / "a.yaml").part
    assert build_part(again.mode, "mode") is InterpolationMode.BILINEAR
    assert build_part(again["all"][0], "mode") is InterpolationMode.BOX
    assert again.n == 2
    with pytest.raises(ConfigError, match=r"part.in.x is a Colour, .* only what is an argument"):
        resolved(L(nn.Identity)(**{"in": {"x": Colour.RED}}), "part")


def _local():
    def inner():
        raise AssertionError

    return inner


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (lambda x: x, "no other program finds it by its name: define it in a module"),
        (_local(), "<locals>.inner, which cannot be written as YAML"),
        (functools.partial(lambda x: x, 1), "no other program finds it"),
        (torch, "is a module"),
        (torch.float16, "is a dtype, torch.float16"),
        (Path("a"), "write a lazy call"),
        (np.zeros(2), r"is a ndarray, array\(\[0., 0.\]\)"),
        ({1, 2}, "is a set"),
        (1j, "is a complex"),
        (object(), "is a object"),
        ("\udcff", "half of a character"),
        ("/data/weights.pth", "names a place on this machine"),
        ("~/weights.pth", "names a place on this machine"),
        (r"C:\weights.pth", "names a place on this machine"),
        ("C:/weights.pth", "names a place on this machine"),
        (r"\\host\share", "names a place on this machine"),
        ("file:///weights.pth", "names a place on this machine"),
    ],
)
def test_resolved__names_what_cannot_be_written(value, message):
    cfg = OmegaConf.create({"model": {"a": []}}, flags={"allow_objects": True})
    cfg.model.a.append({"inner": value})
    with pytest.raises(ConfigError, match=message) as info:
        resolved(cfg.model, "model")
    assert str(info.value).startswith(("model.a[0].inner is", "model.a[0].inner="))
    assert "\n" not in str(info.value)
    assert len(str(info.value)) < 500


def test_resolved__what_is_missing_or_refers_to_nothing():
    with pytest.raises(ConfigError, match=r"model.x cannot be written down: Missing"):
        resolved(OmegaConf.create({"model": {"x": "???"}}).model, "model")
    with pytest.raises(ConfigError, match=r"model.x cannot be written down: .*absent"):
        resolved(OmegaConf.create({"model": {"x": "${absent}"}}).model, "model")


@pytest.mark.parametrize("text", ["a/b", "res3", "https://a/b", "c:d", "datasets/coco", "BN", ""])
def test_is_place__no_full_path(text):
    assert not is_place(text)


@pytest.mark.parametrize("name", ["cascade_rcnn", "retinanet", "mask_rcnn_vitdet"])
def test_yaml_text__of_detectors_is_the_same_the_second_time(again, name):
    plain = resolved(tiny_detector(name), "model")
    back = again({"model": plain})
    config = OmegaConf.create(back, flags={"allow_objects": True})
    assert resolved(config.model, "model") == plain
    assert trust_needed(plain) == []


def test_trust_needed__names_packages_and_parts():
    part = L(nn.Identity)(a=L(Colour)(value="r"), f=yaml.safe_load, b=[L(torch.hub.load)()])
    assert trust_needed(resolved(part, "model"), "model") == ["tests", "torch.hub", "yaml"]
    partial = L(nn.Identity)(p=functools.partial(yaml.safe_load, stream=""))
    assert trust_needed(resolved(partial, "model")) == ["yaml"]


def test_trust_needed__what_a_package_only_imports_stays_refused():
    with pytest.raises(ConfigError, match=r"torch\.os\.system' is refused"):
        trust_needed({"model": {"_target_": "torch.os.system"}})
