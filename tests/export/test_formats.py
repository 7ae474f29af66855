import importlib.util

import pytest
import torch
from torch import nn

from detrex.errors import ConfigError
from detrex.export.formats import FORMATS, require
from detrex.export.program import EXAMPLE, trace


@pytest.mark.parametrize("name", ["onnx", "openvino"])
def test_require__missing_packages_are_named(name, monkeypatch):
    found = importlib.util.find_spec
    missing = FORMATS[name].packages[-1]
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda package: None if package == missing else found(package)
    )
    with pytest.raises(ConfigError) as caught:
        require(name)
    assert f"of which {missing} is not installed: `pip install {missing}`" in str(caught.value)


def test_require__torch_export_needs_nothing(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert require("torch-export").suffix == ".pt2"


class _Choosing(nn.Module):
    def forward(self, image):
        best = image.flatten(1).topk(5, dim=1).indices
        again = image.flatten(1).gather(1, best).topk(2, dim=1).values
        return {"columns": best % 30, "again": again}


@pytest.mark.parametrize("name", FORMATS)
def test_load__gives_the_outputs_and_the_first_choice(name, tmp_path):
    for package in FORMATS[name].packages:
        pytest.importorskip(package)
    program = trace(_Choosing(), torch.rand(1, 1, *EXAMPLE))
    file = tmp_path / f"a{FORMATS[name].suffix}"
    FORMATS[name].write(program, file, {"outputs": ["columns", "again"]})
    before = sorted(tmp_path.iterdir())
    run = FORMATS[name].load(file)
    image = torch.rand(1, 1, 40, 30)
    outputs, tokens = run(image)
    best = image.flatten().topk(5)
    assert tokens.tolist() == best.indices.tolist()
    assert outputs["columns"].flatten().tolist() == (best.indices % 30).tolist()
    torch.testing.assert_close(outputs["again"][0], best.values[:2])
    assert list(outputs) == ["columns", "again"]
    assert sorted(tmp_path.iterdir()) == before
