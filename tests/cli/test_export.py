import pytest
import torch

from detrex.cli import main

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
