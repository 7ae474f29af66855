"""A detector's folder: written whole or not at all, and read back equal to the last bit."""

import copy
import getpass
import json
import os
import pickle
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import LazyCall as L

import detrex
from detrex.checkpoint import load_init_checkpoint, read_state_dict
from detrex.errors import CheckpointError, ConfigError, DetrexError, RunError
from detrex.inference import pretrained
from detrex.inference.exact_weights import unequal_tensors
from detrex.inference.pretrained import is_pretrained, read_pretrained, save_pretrained
from tests.reference.shared_detectors import CLASSES, CONFIGS, shared_detector
from tests.reference.tiny_dino import tiny_dino

FILES = ["README.md", "config.yaml", "detrex.json", "model.safetensors"]
CHILD = """
import socket, sys
import numpy as np, torch
def refused(*_):
    raise AssertionError("nothing is to be fetched")
socket.socket.connect = socket.getaddrinfo = refused
import detrex
image = np.load("image.npy")
for name in sys.argv[1:]:
    detector = detrex.load(name, optimize=False)
    found = detector.predict(image)
    torch.save([detector.class_names, found.boxes, found.scores, found.labels, found.masks],
               name + ".pth")
"""


@pytest.fixture(scope="module")
def image():
    return np.random.RandomState(0).randint(0, 256, (70, 90, 3), np.uint8)


@pytest.fixture(scope="module")
def detector():
    return shared_detector("dino_resnet", optimize=False)


@pytest.fixture(scope="module")
def saved(detector, tmp_path_factory):
    """A folder that is not to be changed."""
    return save_pretrained(detector, tmp_path_factory.mktemp("saved") / "dino", licence="MIT")


@pytest.fixture
def folder(saved, tmp_path):
    """A copy that may be."""
    return Path(shutil.copytree(saved, tmp_path / "copy"))


def test_save_pretrained__reads_back_equal_in_another_process(image, tmp_path):
    check_in_a_child(["dino_timm", "mask_rcnn_resnet"], image, tmp_path)


@pytest.mark.slow
def test_save_pretrained__reads_back_equal_over_every_backbone(image, tmp_path):
    check_in_a_child(list(CONFIGS), image, tmp_path)


def check_in_a_child(names, image, work):
    """Save detectors whose configs ask for pretrained weights, move them, and load them offline."""
    expected = {}
    (work / "elsewhere").mkdir()
    np.save(work / "elsewhere" / "image.npy", image)
    for name in names:
        detector = shared_detector(name, optimize=False)
        backbone = detector.config.model.backbone
        backbone = backbone.get("bottom_up", backbone)
        if "weights" in backbone:
            backbone.weights = True
        expected[name] = detector.predict(image)
        assert len(expected[name]) > 3
        save_pretrained(detector, work / name).rename(work / "elsewhere" / name)
    env = {"PYTHONPATH": os.pathsep.join(map(str, sys.path)), "PATH": os.environ["PATH"]}
    env |= {"HOME": str(work / "home"), "OMP_NUM_THREADS": str(torch.get_num_threads())}
    done = subprocess.run(
        [sys.executable, "-c", CHILD, *names],
        cwd=work / "elsewhere",
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for name, result in expected.items():
        classes, *found = torch.load(work / "elsewhere" / f"{name}.pth")
        assert classes == CLASSES
        for value, wanted in zip(
            found, (result.boxes, result.scores, result.labels, result.masks), strict=True
        ):
            assert (value is None) == (wanted is None)
            assert value is None or torch.equal(value, wanted)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_load__a_detector_in_another_number_format(dtype, image, tmp_path):
    detector = shared_detector("dino_resnet", dtype, optimize=False)
    again = detrex.load(save_pretrained(detector, tmp_path / "a"), optimize=False)
    assert unequal_tensors(detector.model, again.model) == []
    assert again.model.pixel_mean.dtype == dtype
    if dtype == torch.float64:
        assert torch.equal(detector.predict(image).boxes, again.predict(image).boxes)


def test_load__keeps_what_is_known_of_the_detector(saved, detector):
    again = detrex.load(saved)
    assert again.class_names == detector.class_names
    assert again.threshold == detector.threshold == 0
    assert detrex.load(saved, threshold=0.7).threshold == 0.7
    assert (again.min_size, again.max_size) == (72, 120)
    assert again.input_format == detector.input_format
    facts = read_pretrained(saved).facts
    assert facts.licence == "MIT"
    assert facts.measured_on == ("demo_shapes_val",)
    modes = {(saved / file).stat().st_mode for file in FILES}
    assert len(modes) == 1
    assert facts.datasets == ("demo_shapes_train",)
    assert facts.pixel_mean == pytest.approx(detector.model.pixel_mean.flatten().tolist())


def test_load__draws_keypoints_alike(detector, tmp_path):
    other = copy.copy(detector)
    drawn = {
        "keypoint_names": ["top", "left"],
        "keypoint_connection_rules": [("top", "left", (255, 0, 0))],
    }
    other.metadata = drawn | {"name": "of the run"}
    again = detrex.load(save_pretrained(other, tmp_path / "a"))
    assert {key: again.metadata[key] for key in drawn} == drawn


def test_load__a_saved_detector_is_saved_alike(saved, tmp_path):
    again = save_pretrained(detrex.load(saved), tmp_path / "dino", licence="MIT")
    assert sorted(os.listdir(again)) == FILES
    for file in ("model.safetensors", "README.md", "detrex.json"):
        assert (again / file).read_bytes() == (saved / file).read_bytes()


def test_save_pretrained__names_nothing_of_this_machine(saved):
    words = ["/machine", "secret", str(Path.home()) + "/", os.getcwd(), "start.pth"]
    words += [f"{getpass.getuser()}@", str(saved.parent)]
    for file in FILES:
        content = (saved / file).read_bytes()
        assert [word for word in words if word.encode() in content] == [], file
        if file != "model.safetensors":
            assert not re.search(r"(^|[\s'\"=(\[])/\w", content.decode()), file
            assert not re.search(rf"\b{re.escape(socket.gethostname())}\b", content.decode()), file


def test_save_pretrained__is_a_checkpoint_to_train_on_from(saved, detector):
    model = shared_detector("dino_resnet").model
    report = load_init_checkpoint(model, str(saved))
    assert not report.missing
    assert torch.equal(model.label_enc.weight, detector.model.label_enc.weight)
    assert read_state_dict(saved).keys() == model.state_dict().keys()


def test_save_pretrained__leaves_other_folders_alone(detector, tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name, what in (("file", "is no folder"), ("full", "other files"), ("link", "is no folder")):
        with pytest.raises(ConfigError, match=f"{what}, and nothing is written over"):
            save_pretrained(detector, tmp_path / name)
    assert (tmp_path / "full" / "file").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    assert is_pretrained(save_pretrained(detector, tmp_path / "empty"))
    assert is_pretrained(save_pretrained(detector, tmp_path / "a" / "b"))
    assert not list(tmp_path.rglob("*.unfinished"))


@pytest.mark.parametrize("name", ["hf-hub:a/b", "hf-hub:a/b@", "HF-HUB:a/b", "https://hub/a/b"])
def test_save_pretrained__an_address_is_no_folder(detector, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"is no folder, .* owner/name for push_to_hub"):
        save_pretrained(detector, name)
    assert not os.listdir(tmp_path)


def test_save_pretrained__what_is_told_of_it_is_text(detector, tmp_path):
    for told in ({"licence": 5}, {"licence": "x" * 501}, {"datasets": ["a", None]}):
        with pytest.raises(ConfigError, match=r"is no text of at most 500 characters"):
            save_pretrained(detector, tmp_path / "a", **told)
    saved = save_pretrained(detector, tmp_path / "a", datasets="coco")
    assert read_pretrained(saved).facts.datasets == ("coco",)


def test_save_pretrained__replaces_its_own_and_nothing_else(folder, caplog):
    other = shared_detector("dino_resnet", class_names=("a", "b", "c"), optimize=False)
    (folder / "notes.txt").write_text("mine")
    (folder / "loss.png").write_bytes(b"of an earlier save")
    save_pretrained(other, folder)
    assert detrex.load(folder).class_names == ("a", "b", "c")
    assert sorted(os.listdir(folder)) == sorted([*FILES, "notes.txt"])
    assert "a, b, c" in (folder / "README.md").read_text()
    (folder / "README.md").write_text("my own words")
    save_pretrained(other, folder)
    assert (folder / "README.md").read_text() == "my own words"
    assert "was changed since it was written, and stays" in caplog.text


@pytest.mark.parametrize("step", ["write_exactly", "model_card", "unequal_tensors"])
def test_save_pretrained__leaves_nothing_half_done(detector, folder, tmp_path, monkeypatch, step):
    before = {file: (folder / file).read_bytes() for file in FILES}

    def fails(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pretrained, step, fails)
    for target in (tmp_path / "new", folder):
        with pytest.raises(RunError, match=r"cannot be written \(No space left on device\)"):
            save_pretrained(detector, target)
    assert os.listdir(tmp_path) == ["copy"]
    assert {file: (folder / file).read_bytes() for file in FILES} == before


def test_save_pretrained__names_what_has_no_form(saved, tmp_path, caplog):
    detector = shared_detector("dino_resnet")
    detector.config.optimizer.params.lr_factor_func = lambda name: 1
    facts = read_pretrained(save_pretrained(detector, tmp_path / "a")).facts
    assert facts.left_out == ("optimizer",)
    assert "optimizer is left out of what is saved: optimizer.params.lr_factor_func" in caplog.text
    assert "`optimizer`" in (tmp_path / "a" / "README.md").read_text()
    detector.config.model.neck.norm_layer = lambda: None
    with pytest.raises(ConfigError, match=r"model.neck.norm_layer is a function, .* as YAML"):
        save_pretrained(detector, tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_save_pretrained__refuses_a_model_that_its_config_does_not_describe(tmp_path):
    detector = shared_detector("dino_resnet")
    detector.model.further = torch.nn.Linear(2, 2)
    with pytest.raises(CheckpointError, match=r"in which 'further.bias'|in which 'further.weight'"):
        save_pretrained(detector, tmp_path / "a")
    assert os.listdir(tmp_path) == []


def test_load__trusts_what_it_is_told_to(tmp_path):
    detector = shared_detector("dino_resnet")
    detector.config.model = L(tiny_dino)(num_classes=3)
    detector.model = tiny_dino(num_classes=3)
    folder = save_pretrained(detector, tmp_path / "a")
    assert read_pretrained(folder, ["tests"]).facts.trust == ("tests",)
    assert "trust=['tests']" in (folder / "README.md").read_text()
    with pytest.raises(ConfigError, match=r"tests\.reference\.tiny_dino.* is refused"):
        detrex.load(folder)
    again = detrex.load(folder, trust=["tests"])
    assert unequal_tensors(detector.model, again.model) == []


def _edit(file, change):
    def edit(folder):
        (folder / file).write_text(change((folder / file).read_text()))

    return edit


def _facts(**values):
    return _edit("detrex.json", lambda text: json.dumps({**json.loads(text), **values}))


def _weights(content):
    return lambda folder: (folder / "model.safetensors").write_bytes(content)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (_edit("config.yaml", lambda _: "model: {_target_: os.system, x: touch}"), "is refused"),
        (
            _edit("config.yaml", lambda t: t + "\nx: !!python/object/apply:os.system [touch a]"),
            "python/object/apply:os.system in line .* refused",
        ),
        (_edit("config.yaml", lambda _: "train: {}"), "has no 'model'"),
        (_edit("config.yaml", lambda _: "model: 3"), "model is no lazy call"),
        (_edit("config.yaml", lambda _: "model: {_target_: builtins.dict}"), "dict, expected"),
        (_edit("config.yaml", lambda _: "model: {_target_: torch.nn.Linear}"), "cannot be built"),
        (
            _edit("config.yaml", lambda t: t.replace("embed_dim: 32", "embed_dim: 64")),
            "do not fit together",
        ),
        (lambda folder: (folder / "config.yaml").unlink(), "no config.yaml"),
        (lambda folder: (folder / "model.safetensors").unlink(), "no model.safetensors"),
        (_facts(schema=2), "knows forms up to 1"),
        (_edit("detrex.json", lambda text: text + " " * (5 << 20)), "longer than 4194304 bytes"),
        (_edit("detrex.json", lambda _: "[" * 10**5), "is no JSON"),
        (_weights(pickle.dumps({"a": 1})), "no whole safetensors file"),
        (_weights(b"\xff" * 100), "no whole safetensors file"),
        (
            lambda folder: torch.save({"a": torch.zeros(1)}, folder / "model.safetensors"),
            "no whole safetensors file",
        ),
        (
            lambda folder: os.truncate(folder / "model.safetensors", 100_000),
            "no whole safetensors|truncated or damaged",
        ),
    ],
)
def test_load__a_hostile_or_damaged_folder_ends_in_a_sentence(folder, harm, message):
    harm(folder)
    with pytest.raises(DetrexError, match=message) as info:
        detrex.load(folder)
    assert "\n" not in str(info.value)
    assert len(str(info.value)) < 500
    assert not list(folder.parent.rglob("touch"))


def test_load__weights_that_were_changed_or_exchanged(folder):
    file = folder / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"is damaged, or not the one that detrex.json"):
        detrex.load(folder)


@pytest.mark.parametrize("weights", ["true", "a1_in1k", "http://127.0.0.1:9/a.pth", "a.pth"])
def test_read_pretrained__a_config_written_by_hand_asks_for_no_weights(folder, weights):
    network = f"model_name: test_resnet, out_strides: [8, 16], weights: '{weights}'".replace(
        "'true'", "true"
    )
    edited = "model:\n  backbone: {_target_: detrex.modeling.TimmBackbone, " + network + "}\n"
    edited += "  _target_: detrex.modeling.dino.DINO\n  pixel_mean: [1, 2, 3]\n"
    (folder / "config.yaml").write_text(edited)
    assert read_pretrained(folder).config.model.backbone.weights is None
