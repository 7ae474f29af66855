"""What is kept of networks: equal to what was found, and found anew where anything may differ."""

import json
from collections import OrderedDict

import pytest
import timm

from detrex import files
from detrex.modeling.backbone import TimmBackbone, TorchvisionBackbone
from detrex.modeling.backbone.features.coverage import Coverage
from detrex.modeling.backbone.features.input_size import InputSize
from detrex.modeling.backbone.inspection import findings
from detrex.modeling.backbone.inspection.findings import NetworkKey, recall
from detrex.modeling.backbone.inspection.stages import Stage

KEY = NetworkKey(timm.create_model, "a network")
FOUND = (
    (Stage(("stem", "layer1"), ("cls_token",)), Stage()),
    InputSize(2, (3, 4), {"dynamic_img_size": True}, Coverage(5, 6, 7), (8,)),
    (1, 2.5, "x", None, True, ()),
)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty folder, and nothing kept in the process."""
    monkeypatch.setattr(files, "default_cache_dir", lambda: tmp_path)
    monkeypatch.setattr(findings, "_KEPT", {})
    return tmp_path / "networks"


def forget():
    findings._KEPT.clear()


def never():
    raise AssertionError("looked again")


def test_recall__from_the_process_and_from_the_disk(folder):
    assert recall(KEY, lambda: FOUND) is FOUND
    assert recall(KEY, never) is FOUND
    forget()
    assert recall(KEY, never) == FOUND
    assert len(list(folder.iterdir())) == 1
    assert recall(KEY / "detail", lambda: 3) == 3
    assert recall(NetworkKey(timm.list_models, KEY.text), lambda: FOUND) == FOUND


def test_recall__keeps_nothing_without_a_key(folder):
    assert [recall(None, lambda value=value: value) for value in (1, 2)] == [1, 2]
    assert not folder.exists()


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[:40],
        lambda text: "[]",
        lambda text: text.replace("Stage", "Sage"),
        lambda text: text.replace("modules", "nodules"),
        lambda text: text.replace('{"modules"', '[{"modules"', 1).replace("}}", "}]}", 1),
        lambda text: "[" * 100_000,
        lambda text: json.dumps({**json.loads(text), "of": "another network"}),
    ],
)
def test_recall__looks_again_where_a_file_is_damaged(folder, damage):
    recall(KEY, lambda: FOUND)
    forget()
    (file,) = folder.iterdir()
    file.write_text(damage(file.read_text()))
    assert recall(KEY, lambda: "again") == "again"
    forget()
    assert recall(KEY, never) == "again"


def test_recall__needs_no_folder_that_can_be_written(folder):
    folder.write_text("in the way")
    assert recall(KEY, lambda: FOUND) is FOUND
    assert recall(KEY, never) is FOUND


def test_recall__needs_no_home(monkeypatch):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(files, "default_cache_dir", homeless)
    assert recall(KEY, lambda: FOUND) is FOUND


def test_recall__looks_again_with_other_code(monkeypatch):
    recall(KEY, lambda: FOUND)
    forget()
    monkeypatch.setattr(findings, "_code", lambda: "torch 99")
    assert recall(KEY, lambda: "again") == "again"


def test_network_key__of_what_stays_the_same():
    build = timm.model_entrypoint("resnet18")
    key = NetworkKey.of(build, "resnet18", {"a": 1, "b": (1, 2)})
    assert key == NetworkKey.of(build, "resnet18", OrderedDict(b=(1, 2), a=1))
    others = [
        *({"a": True, "b": (1, 2)}, {"a": 1.0, "b": (1, 2)}, {"a": "1", "b": (1, 2)}),
        *({"a": 1, "b": [1, 2]}, {"a": 1}, {"a": None, "b": (1, 2)}),
    ]
    assert key not in [NetworkKey.of(build, "resnet18", other) for other in others]
    assert key != NetworkKey.of(build, "resnet18.a1_in1k", {"a": 1, "b": (1, 2)})


@pytest.mark.parametrize("value", [object(), print, str, [{1}]])
def test_network_key__none_for_objects_and_functions_of_users(value):
    assert NetworkKey.of(timm.create_model, "x", {"norm_layer": value}) is None
    assert NetworkKey.of(never, "x", {}) is None


@pytest.mark.parametrize(
    ("wrapper", "name", "keywords"),
    [
        (TimmBackbone, "test_vit", {"out_strides": (8, 32), "freeze_at": 2, "frozen_norm": False}),
        (TimmBackbone, "test_resnet", {"frozen_norm": True, "freeze_at": 3, "in_channels": 4}),
        (TimmBackbone, "mixer_s32_224", {}),
        (TorchvisionBackbone, "resnet18", {"out_strides": (4, 8), "freeze_at": 1}),
        (TorchvisionBackbone, "squeezenet1_1", {"return_nodes": {"features.5": "a"}}),
    ],
)
def test_recall__backbone_of_kept_findings_is_the_one_before(monkeypatch, wrapper, name, keywords):
    first = wrapper(name, **keywords)
    forget()
    monkeypatch.setattr(findings, "_write", never)  # nothing new is found
    second = wrapper(name, **keywords)
    for attribute in ("spec", "features", "input_size", "stages", "preprocess", "parameter_table"):
        assert getattr(second, attribute) == getattr(first, attribute), attribute
    assert second.frozen_modules == first.frozen_modules
    trainable = [[n for n, p in b.named_parameters() if p.requires_grad] for b in (first, second)]
    assert trainable[0] == trainable[1]
    assert second.output_shape() == first.output_shape()
