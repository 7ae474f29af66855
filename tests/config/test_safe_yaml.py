import functools
import pickle

import pytest
from detectron2.config import LazyCall as L
from detectron2.config import LazyConfig
from detectron2.layers import ShapeSpec
from omegaconf import OmegaConf
from torch import nn

from detrex.config import load_config
from detrex.config.optim import backbone_lr_factor
from detrex.config.safe_yaml import read_yaml
from detrex.errors import ConfigError

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 9)
)
MERGE_BOMB = "a0: &a0 {k0: 1}\n" + "".join(
    f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}], k{i}: 1}}\n" for i in range(1, 9)
)

PROPOSALS = """
d: !!python/object/apply:functools.partial
  state:
  - !!python/name:detectron2.data.build.get_detection_dataset_dicts ''
  - [[coco], true, 0, [proposals.pkl]]
  - {{}}
  - null
"""


@pytest.fixture
def read(tmp_path):
    def write_and_read(text):
        (tmp_path / "config.yaml").write_text(text)
        return read_yaml(tmp_path / "config.yaml")

    return write_and_read


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "train: !!python/object/apply:os.system ['touch {ran}']",
            "!!python/object/apply:os.system",
        ),
        ("train: !!python/object/new:os.system ['touch {ran}']", "in line 1 is refused"),
        ("a: 1\ntrain: !!python/object:detectron2.config.LazyCall {{}}", "in line 2 is refused"),
        ("train: !!python/module:os ''", "is refused"),
        ("train: !!python/name:os.system ''", "is refused: YAML and the command line may name"),
        ("train: !!python/name:torch.os.system ''", "is refused: YAML and"),
        (
            "train: !!python/object/apply:functools.partial {{args: [1]}}",
            "functools.partial in line",
        ),
        (
            "train: !!python/object/apply:functools.partial\n"
            "  {{state: [!!python/name:os.system '', ['touch {ran}'], {{}}, null]}}",
            "is refused",
        ),
        ("train: !!binary aGk=", "the tag !!binary"),
        ("train: !mine 3", "the tag !mine"),
        ("model: {{_target_: os.system, command: 'touch {ran}'}}", "model._target_='os.system' is"),
        ("model: {{_target_: '${{oc.env:HOME}}'}}", "expected the name of a class"),
        ("model: '${{oc.create:{{_target_:os.system}}}}'", "oc.create makes a part"),
        ("a: &a [*a]", "holds itself"),
        ("a: 1\nb: 2\na: 3", "a is given twice in line 3"),
        ("a: 1\n" + "k" * 1000 + ": 1\n" + "k" * 1000 + ": 2", "kkk is given twice"),
        ("a: " + "9" * 5000, "the number '99999999999999999999'... in line 1 is none"),
        *((f"a: {text}", "is none") for text in ("1:2:3", "!!int x", "!!float x")),
        ("a: !!bool x", "'x' in line 1 is no bool"),
        ("a: !!map 1", "is no YAML in line 1: expected a mapping"),
        ("? [1, 2]\n: 3", "a key in line 1 is a list"),
        ('a: "\\ud800"', "holds half of a character"),
        ("a: " + "[" * 60 + "]" * 60, "more than 50 levels"),
        ("a: [" + "1," * 100_001 + "]", "more than 100000 values"),
        ("# " + "x" * (2 << 20), "is longer than 2097152 bytes"),
        ("%TAG !e! tag:yaml.org,2002:python/object/apply:\n---\na: !e!os.system [ls]", "refused"),
        ("d: {{proposal_files: [proposals.pkl]}}", "is read by pickle"),
        (PROPOSALS, r"partial\[1\].proposal_files=.* is read by pickle"),
        ("a: [1", "is no YAML in line"),
        ("a: 1\n---\nb: 2", "is no YAML in line"),
        ("[1, 2]", "holds a list, expected keys"),
        ("3", "holds a int"),
        ("[" * 5000, "nested too deeply"),
        ("a: " + "[" * 3000 + "]" * 3000, "nested too deeply"),
        (BOMB, "more than 100000 values"),
        (MERGE_BOMB.replace("{", "{{").replace("}", "}}"), "more than 100000 values"),
    ],
)
def test_read_yaml__refuses_in_one_sentence(read, tmp_path, text, message):
    if text is not BOMB:
        text = text.format(ran=tmp_path / "ran")
    with pytest.raises(ConfigError, match=message) as info:
        read(text)
    assert "\n" not in str(info.value)
    assert len(str(info.value)) < 500
    assert not (tmp_path / "ran").exists()


def test_read_yaml__bytes_that_are_no_text(tmp_path):
    (tmp_path / "config.yaml").write_bytes(pickle.dumps({"a": 1}) + b"\xff\xfe")
    with pytest.raises(ConfigError, match="is no YAML"):
        read_yaml(tmp_path / "config.yaml")


def test_read_yaml__values_written_by_hand(read):
    text = "a: 1e-4\nb: 1.0e-5\nc: 2024-01-02\nd: [1, .5, true, null, .inf]\n"
    value = read(text + "<<: {e: 7}\nf: &f {g: 1}\nh: *f\n")
    assert value["a"] == 1e-4
    assert value["b"] == 1e-5
    assert value["c"] == "2024-01-02"
    assert value["d"] == [1, 0.5, True, None, float("inf")]
    assert (value["e"], value["h"]) == (7, {"g": 1})
    assert read("") == {}


def test_read_yaml__what_a_run_saves(tmp_path):
    cfg = OmegaConf.create(flags={"allow_objects": True})
    cfg.model = L(nn.Conv2d)(in_channels=3, out_channels=8, kernel_size=(3, 3))
    cfg.factor = {"function": backbone_lr_factor, "shape": {"p3": ShapeSpec(channels=8, stride=4)}}
    cfg.norm = {"layer": functools.partial(nn.LayerNorm, eps=1e-6)}
    LazyConfig.save(cfg, str(tmp_path / "config.yaml"))
    again = load_config(tmp_path / "config.yaml")
    assert again.factor.function is backbone_lr_factor
    assert again.factor["shape"].p3.channels == 8
    assert again.norm.layer(3).eps == 1e-6
    assert list(again.model.kernel_size) == [3, 3]
