import re

import pytest
from torch import nn

from detrex.errors import ConfigError
from tools import analyze_model

CONFIG = """
from detectron2.config import LazyCall as L
from tests.tools.test_analyze_model import OneConvolution
model = L(OneConvolution)(width=5)
train = dict(device="cpu")
"""


class OneConvolution(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.frozen = nn.Linear(2, 3, bias=False).requires_grad_(False)

    def forward(self, batch):
        return self.conv(batch[0]["image"][None].float())


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "config.py"
    path.write_text(CONFIG)
    return str(path)


def test_main__flops_and_activations_of_random_pictures(config, capsys):
    tasks = ["--tasks", "flop", "activation", "-n", "2", "--input-size", "7", "11"]
    analyze_model.main([*tasks, "--config-file", config, "model.width=10"])
    printed = capsys.readouterr().out
    multiply_adds = 7 * 11 * 3 * 10 * 3 * 3
    assert f"Mean of 2 pictures: {multiply_adds / 1e9:.3f} +- 0.000 GFLOPs" in printed
    assert f"{7 * 11 * 10 / 1e6:.3f} million activations  conv" in printed
    assert f"{multiply_adds / 1e3:.2f}K" in printed


def test_main__parameters_and_structure(config, capsys):
    analyze_model.main(["--tasks", "parameter", "structure", "--config-file", config])
    printed = capsys.readouterr().out
    assert f"Parameters: {141 / 1e6:.3f} M, of which {135 / 1e6:.3f} M are trained" in printed
    assert "conv.weight" in printed
    assert "(conv): Conv2d(3, 5" in printed


def test_main__without_a_test_set_says_what_to_do(config):
    with pytest.raises(ConfigError, match=r"no dataloader\.test .*--input-size HEIGHT WIDTH"):
        analyze_model.main(["--tasks", "flop", "--config-file", config])


def test_main__with_an_absent_dataset_says_what_to_do(config, tmp_path):
    with open(config, "a") as file:
        file.write("dataloader = dict(test=L(open)(file='absent/annotations.json'))")
    with pytest.raises(ConfigError, match=r"cannot be read \(.*absent.*--input-size HEIGHT WIDTH"):
        analyze_model.main(["--tasks", "activation", "--config-file", config])


def test_main__without_a_model_says_so(tmp_path):
    (tmp_path / "empty.py").write_text("train = dict(device='cpu')")
    with pytest.raises(ConfigError, match=r"has no `model`, only \['train'\]"):
        analyze_model.main(["--tasks", "structure", "--config-file", str(tmp_path / "empty.py")])


def test_main__unknown_task_is_refused(config, capsys):
    with pytest.raises(SystemExit):
        analyze_model.main(["--tasks", "speed", "--config-file", config])
    assert "invalid choice: 'speed'" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["panoptic_fpn", "mask_rcnn_c4", "retinanet"])
def test_main__detectron2s_detectors(name, tmp_path, capsys):
    (tmp_path / "config.py").write_text(
        f"from tests.reference.tiny_detectors import tiny_detector\nmodel = tiny_detector('{name}')"
    )
    tasks = ["--tasks", "flop", "activation", "parameter", "-n", "1", "--input-size", "61", "83"]
    analyze_model.main([*tasks, "--config-file", str(tmp_path / "config.py")])
    printed = capsys.readouterr().out
    assert re.search(r"Mean of 1 pictures: \d\.\d*[1-9]\d* .* GFLOPs", printed)
    assert re.search(r"Mean of 1 pictures: \d\.\d+ .* million activations", printed)
