"""Detectors on a hub that a server of this machine is, and back."""

import copy
import sys

import pytest
import torch
from huggingface_hub import constants

import detrex
from detrex.errors import CheckpointError, ConfigError, DownloadError, UploadError
from detrex.inference.exact_weights import unequal_tensors
from detrex.inference.hub import push_to_hub
from detrex.inference.pretrained import read_pretrained
from tests.reference.hub_server import TOKEN, hub_on_this_machine
from tests.reference.shared_detectors import CLASSES, shared_detector


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with hub_on_this_machine(monkeypatch, tmp_path / "hub") as server:
        yield server


@pytest.fixture(scope="module")
def detector():
    return shared_detector("dino_resnet", optimize=False)


@pytest.fixture
def saved_quickly(monkeypatch):
    """For what happens after a detector has been saved."""

    def save(_, folder, **__):
        folder.mkdir()
        (folder / "detrex.json").write_text("{}")

    monkeypatch.setattr("detrex.inference.hub.save_pretrained", save)


def test_push_to_hub__and_load_from_there(hub, detector, monkeypatch):
    address = push_to_hub(detector, "owner/name", private=True, licence="mit", message="first")
    assert address == "hf-hub:owner/name"
    assert hub.private == {"owner/name": True}
    files = ["README.md", "config.yaml", "detrex.json", "model.safetensors"]
    assert hub.commits == [("owner/name", "main", "first", files)]
    assert (
        b"detrex.load('hf-hub:owner/name')" in hub.repositories["owner/name"]["main"]["README.md"]
    )
    again = detrex.load(address, optimize=False)
    assert again.class_names == CLASSES
    assert unequal_tensors(detector.model, again.model) == []
    hub.repositories.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert unequal_tensors(detector.model, detrex.load(address, optimize=False).model) == []


def test_push_to_hub__to_a_branch_and_over_an_older_detector(hub, detector):
    def classes(address):
        return read_pretrained(address).facts.class_names

    assert push_to_hub(detector, "name") == "hf-hub:owner/name"
    other = copy.copy(detector)
    other.class_names = ("x", "y", "z")
    assert push_to_hub(other, "owner/name", revision="next") == "hf-hub:owner/name@next"
    assert classes("hf-hub:owner/name@next") == ("x", "y", "z")
    assert classes("hf-hub:owner/name") == CLASSES


def test_push_to_hub__leaves_a_card_that_was_changed(hub, detector, caplog):
    push_to_hub(detector, "owner/name")
    push_to_hub(detector, "owner/name", licence="mit")
    files = hub.repositories["owner/name"]["main"]
    assert b"license: mit" in files["README.md"], "its own is replaced"
    files["README.md"] = b"# Mine"
    push_to_hub(detector, "owner/name")
    assert hub.repositories["owner/name"]["main"]["README.md"] == b"# Mine"
    assert "README.md of owner/name was changed since, and stays as it is." in caplog.text
    assert "README.md" not in hub.commits[-1][-1]


@pytest.mark.usefixtures("saved_quickly")
def test_push_to_hub__leaves_other_models_alone(hub, detector):
    hub.repositories["owner/name"] = {"main": {"pytorch_model.bin": b"mine", "README.md": b""}}
    with pytest.raises(ConfigError, match=r"owner/name holds other files, such as 'pytorch_model"):
        push_to_hub(detector, "owner/name")
    assert hub.commits == []
    hub.repositories["owner/new"] = {"main": {".gitattributes": b"", "README.md": b"hello"}}
    push_to_hub(detector, "owner/new")
    assert len(hub.commits) == 1


@pytest.mark.parametrize("name", ["a/b/c", "", "a b", "-a", "a" * 200, "a/b@c", None])
def test_push_to_hub__no_name_of_a_repository(hub, detector, name):
    with pytest.raises(ConfigError, match="is no name of a repository: expected owner/name"):
        push_to_hub(detector, name)
    assert hub.asked == []


@pytest.mark.parametrize(("refuse", "cure"), [(403, "hf auth login"), (400, "save_pretrained to")])
@pytest.mark.usefixtures("saved_quickly")
def test_push_to_hub__a_refusal_is_one_sentence_without_the_token(hub, detector, refuse, cure):
    hub.refuse = refuse
    with pytest.raises(
        UploadError, match=rf"owner/name cannot be put .*{refuse}.*: .*{cure}"
    ) as info:
        push_to_hub(detector, "owner/name")
    assert "\n" not in str(info.value)
    assert TOKEN not in str(info.value)
    assert len(str(info.value)) < 500


@pytest.mark.usefixtures("saved_quickly")
def test_push_to_hub__no_server(detector, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UploadError, match=r"owner/name cannot be put on the hub \(.*check the net"):
        push_to_hub(detector, "owner/name")


def test_push_to_hub__not_installed(detector, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UploadError, match="pip install huggingface_hub"):
        push_to_hub(detector, "owner/name")


def test_push_to_hub__what_cannot_be_saved_is_not_sent(hub):
    detector = shared_detector("dino_resnet")
    detector.model.label_enc.weight.data[0, 0] = float("nan")
    with pytest.raises(CheckpointError, match="NaN"):
        push_to_hub(detector, "owner/name")
    assert hub.asked == []


def test_load__what_is_no_detector_on_the_hub(hub):
    hub.repositories["owner/other"] = {"main": {"model.safetensors": b""}}
    with pytest.raises(DownloadError, match=r"looked for detrex\.json"):
        detrex.load("hf-hub:owner/other")
    with pytest.raises(DownloadError, match="cannot fetch hf-hub:owner/absent"):
        detrex.load("hf-hub:owner/absent")
    assert torch.is_grad_enabled()
