import pytest
from detectron2.config import LazyConfig

from detrex.config import load_config
from detrex.config.leftovers import drop_leftovers

LEFTOVERS = """
import math
from omegaconf import OmegaConf
from detrex.config import get_config

model = get_config("dino/models/dino_r50.py").model
train = get_config("common/train.py").train
train.output_dir = "${{paths.out}}"

encoder = model.transformer.encoder
for part in (model.transformer.encoder, model.transformer.decoder):
    part.num_layers = 3
parts = [model.neck]
configs = OmegaConf.create([model.neck.norm_layer])
helpers = dict(function=lambda x: x)
module = dict(math=math)


def function():
    return 3


class Class:
    pass


paths = dict(out="{out}", root="in")
mine = dict(note="first", size=(3, 4))
"""


@pytest.fixture
def cfg(tmp_path):
    (tmp_path / "config.py").write_text(LEFTOVERS.format(out=tmp_path / "out"))
    return load_config(tmp_path / "config.py")


def test_drop_leftovers__what_cannot_be_saved_goes(cfg):
    assert {"encoder", "part", "configs", "helpers", "module"} <= set(cfg)
    assert set(drop_leftovers(cfg)) == {"model", "train", "paths", "mine"}
    assert cfg.model.transformer.encoder.num_layers == 3


def test_drop_leftovers__the_rest_is_saved_and_loads_again(cfg, tmp_path):
    LazyConfig.save(drop_leftovers(cfg), str(tmp_path / "saved.yaml"))
    again = load_config(tmp_path / "saved.yaml")
    assert again.train.output_dir == str(tmp_path / "out")
    assert again.mine == {"note": "first", "size": [3, 4]}


def test_drop_leftovers__what_is_referred_to_stays(cfg):
    cfg.paths.root = "${nowhere}"
    assert "paths" in drop_leftovers(cfg)
    cfg.train.output_dir = "out"
    assert "paths" not in drop_leftovers(cfg)
