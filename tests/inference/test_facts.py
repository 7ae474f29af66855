import dataclasses
import json
import os

import pytest

import detrex
from detrex.errors import CheckpointError
from detrex.inference.facts import SCHEMA, Facts, facts_bytes, own_versions, read_facts

FULL = Facts(
    class_names=("a", "b|c\n日本", "\udcff"),
    category_ids=(1, 7, -3),
    keypoint_names=("top", "left"),
    keypoint_lines=[["top", "left", [255, 0, 7]]],
    input_format="BGR",
    min_size=640,
    max_size=1000,
    threshold=0.25,
    pixel_mean=(103.53, 116.28, 123.675),
    pixel_std=(1.0, 1.0, 1.0),
    licence="Apache-2.0",
    datasets=("coco",),
    measured_on=("coco_val",),
    metrics={"bbox": {"AP": 41.25, "APs": 20.0}},
    iteration=89999,
    trust=("my_package",),
    left_out=("optimizer",),
    sha256={"model.safetensors": "0" * 64},
    versions={"detrex": "0.6.0"},
)


@pytest.mark.parametrize("facts", [FULL, Facts()])
def test_read_facts__gives_back_what_was_written(tmp_path, facts):
    file = tmp_path / "detrex.json"
    file.write_bytes(facts_bytes(facts))
    again = read_facts(file)
    assert again == dataclasses.replace(facts, keypoint_lines=tuple(facts.keypoint_lines))
    assert again.drawing == (
        {}
        if facts is not FULL
        else {
            "keypoint_names": ["top", "left"],
            "keypoint_connection_rules": [("top", "left", (255, 0, 7))],
        }
    )


def test_own_versions__are_those_installed():
    versions = own_versions()
    assert versions["detrex"] == detrex.__version__
    assert {"python", "torch", "timm"} <= versions.keys()


def _changed(**values):
    return json.dumps({**json.loads(facts_bytes(FULL)), **values})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (_changed(schema=SCHEMA + 1), r"is of form 2, .* knows forms up to 1: .* it \(0.6.0\), or"),
        (_changed(schema=10**30, versions={"detrex": "x\ny"}), "one that wrote it, or a newer one"),
        (_changed(schema=0), "has the schema 0, expected 1"),
        (_changed(schema=True), "has the schema True, expected 1"),
        (_changed(schema="1"), "has the schema '1', expected 1"),
        (json.dumps({"schema": 1, "class_names": "abc"}), "class_names='abc', expected a list of"),
        (_changed(class_names=[1]), r"class_names=\[1\], expected a list of texts"),
        (_changed(class_names=["a" * 501]), "class_names="),
        (_changed(class_names=["a"]), "1 class_names and 3 category_ids, expected one for each"),
        (_changed(category_ids=[1, 2.5, 3]), "category_ids="),
        (_changed(category_ids=[1, 2, 1]), "has an id twice in category_ids"),
        (_changed(category_ids=[1, 2, 10**40]), "category_ids="),
        (_changed(input_format="GRB"), "input_format='GRB', expected RGB, BGR or L"),
        (_changed(input_format=[]), r"input_format=\[\], expected RGB"),
        (_changed(min_size=-1), "min_size=-1, expected a number of pixels"),
        (_changed(max_size=True), "max_size=True"),
        (_changed(threshold=1.5), "threshold=1.5, expected a number from 0 to 1"),
        (_changed(threshold=float("nan")), "threshold=nan"),
        (_changed(pixel_mean=["x"]), "pixel_mean="),
        (_changed(licence=3), "licence=3, expected a text"),
        (_changed(metrics={"bbox": {"AP": "41"}}), "metrics="),
        (_changed(metrics=[]), r"metrics=\[\]"),
        (_changed(iteration=1.0), "iteration=1.0"),
        (_changed(keypoint_lines=[["a", "b", [1, 2, 256]]]), "two names and a colour each"),
        (_changed(keypoint_lines=[["a", "b"]]), "keypoint_lines="),
        (_changed(sha256={"a": 1}), "sha256="),
        ("[1]", "holds a list, expected an object"),
        ("{", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ('{"schema": ' + "9" * 5000 + "}", "is no JSON|is of form"),
        (" " * (5 << 20), "is longer than 4194304 bytes"),
    ],
)
def test_read_facts__refuses_in_one_sentence(tmp_path, text, message):
    file = tmp_path / "detrex.json"
    file.write_text(text)
    with pytest.raises(CheckpointError, match=message) as info:
        read_facts(file)
    assert "\n" not in str(info.value)
    assert len(str(info.value)) < 500


def test_read_facts__what_is_no_file(tmp_path):
    with pytest.raises(CheckpointError, match="is no file"):
        read_facts(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(CheckpointError, match="is no file"):
        read_facts(tmp_path / "pipe")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CheckpointError, match="is no JSON"):
        read_facts(tmp_path / "bytes")
