"""Run by the Python of an environment that holds the wheel: what a user does first must work."""

import sys
from importlib.resources import files
from pathlib import Path

import detrex
from detrex.config import get_config
from detrex.modeling.backbone import TimmBackbone

installed = Path(detrex.__file__).resolve()
assert Path(sys.prefix).resolve() in installed.parents, f"not the wheel: {installed}"
assert files("detrex").joinpath("py.typed").is_file(), "the wheel holds no py.typed"
assert get_config("common/train.py").train.max_iter > 0
assert "model" in get_config("dino/models/dino_r50.py")
assert TimmBackbone("resnet18", out_indices=(2, 3, 4)).output_shape()
print(f"{installed}: version {detrex.__version__}, configs found")
