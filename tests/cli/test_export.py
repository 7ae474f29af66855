from types import SimpleNamespace

import pytest
import torch
from detectron2.config import LazyConfig

import detrex
from detrex.cli import main
from detrex.inference.exact_weights import unequal_tensors
from tests.reference.tiny_run import CLASSES, build, save, tiny_config

CONFIG = """
from detectron2.config import LazyCall as L
from omegaconf import OmegaConf
from tests.reference.tiny_dino import tiny_dino

model = L(tiny_dino)(levels=1, layers=1)
train = OmegaConf.create(dict(init_checkpoint=""))
"""


@pytest.fixture
def _config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.py").write_text(CONFIG)


@pytest.mark.usefixtures("_config")
def test_export__says_what_was_written_and_how_far_it_is(tmp_path, capsys):
    words = ["export", "config.py", "--part", "backbone", "--output", "a.pt2"]
    sizes = ["--size", "64x96", "97x131", "224x224"]
    assert main([*words, "--format", "torch-export", *sizes]) == 0
    printed = capsys.readouterr()
    steps = [line.partition(" ")[2] for line in printed.err.splitlines()]
    assert steps[0] == "running the model at 64 x 96, 97 x 131, 224 x 224"
    assert "writing a.pt2" in steps
    told = printed.out.splitlines()
    assert told[0].startswith("a.pt2")
    assert told[2] == "outputs p3, p4, p5"
    assert [line.partition(":")[0] for line in told[3:]] == ["64 x 96", "97 x 131", "224 x 224"]
    loaded = torch.export.load(tmp_path / "a.pt2").module()
    assert list(loaded(torch.rand(1, 3, 33, 65))) == ["p3", "p4", "p5"]


@pytest.fixture
def exported(monkeypatch):
    """What would be written: the model and its classes' names, of each call."""
    calls = []
    report = SimpleNamespace(
        files=[], differences={}, description=dict.fromkeys(("dtype", "input", "outputs"), "")
    )

    def export(model, *_, class_names, **__):
        calls.append((model, list(class_names)))
        return report

    monkeypatch.setattr("detrex.export.export_model", export)
    return calls


@pytest.fixture
def averaged_run(tmp_path):
    """A run whose evaluation takes the moving average, which is far from the weights."""
    cfg, run = tiny_config(tmp_path), tmp_path / "run"
    cfg.train.model_ema.update(enabled=True, use_ema_weights_for_eval_only=True)
    run.mkdir()
    LazyConfig.save(cfg, str(run / "config.yaml"))
    model = build(cfg)
    average = {name: value + 1 for name, value in model.state_dict().items()}
    save(model, run / "model_final.pth", ema_state=average)
    return run


def test_export__takes_the_weights_that_are_evaluated_and_predict(averaged_run, exported, tmp_path):
    detector = detrex.load(averaged_run)
    shared = detector.save_pretrained(tmp_path / "shared")
    config, weights = averaged_run / "config.yaml", averaged_run / "model_final.pth"
    for words in ([averaged_run], [shared], [config, "--weights", weights]):
        assert main(["export", *map(str, words), "--output", str(tmp_path / "a.onnx")]) == 0
        model, names = exported[-1]
        assert names == CLASSES
        assert unequal_tensors(model, detector.model) == []


@pytest.mark.usefixtures("_config")
def test_export__says_that_there_are_no_weights(exported, tmp_path, capsys):
    assert main(["export", "config.py", "--output", str(tmp_path / "a.onnx")]) == 0
    assert len(exported) == 1
    assert capsys.readouterr().err == "weights: none, the detector has learnt nothing (--weights)\n"


def test_export__refuses_weights_that_are_not_the_whole_detectors(averaged_run, exported, capsys):
    words = ["export", str(averaged_run), "--output", str(averaged_run / "a.onnx")]
    assert main([*words, "model.num_classes=7"]) == 1
    assert "is of another DINO than the config describes" in capsys.readouterr().err
    assert not exported


@pytest.mark.usefixtures("_config")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["no.py", "--output", "a.onnx"], "no.py"),
        (["config.py", "--output", "a.onnx", "--format", "tflite"], "must be one of onnx"),
        (["no.py", "--output", "a.onnx", "--format", "tflite"], "must be one of onnx"),
        (["config.py", "--output", "a.pt"], "must end in .onnx"),
        (["config.py", "model.levles=2", "--output", "a.onnx"], "levles"),
        (["config.py", "--output", "a.onnx", "--weights", "no.pth"], "no.pth"),
        (["config.py", "--output", "config.py"], "must end in .onnx"),
    ],
)
def test_export__a_mistake_is_one_sentence(words, said, tmp_path, capsys):
    assert main(["export", *words]) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("detrex: ")
    assert said in error
    assert [path.name for path in tmp_path.iterdir()] == ["config.py"]
