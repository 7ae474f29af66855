import torch

from detrex.engine.exporting import build_for_export
from tests.reference.tiny_dino import tiny_dino

CONFIG = """
from detectron2.config import LazyCall as L
from tests.reference.tiny_dino import tiny_dino

model = L(tiny_dino)(levels=1, layers=1, num_classes=2)
train = dict(init_checkpoint="")
"""


def test_build__weights_names_and_overrides(tmp_path):
    (tmp_path / "config.py").write_text(CONFIG)
    trained = tiny_dino(levels=1, layers=1, num_classes=2)
    content = {"model": trained.state_dict(), "class_names": ["cat", "dog"]}
    torch.save(content, tmp_path / "model.pth")
    model, names = build_for_export(
        tmp_path / "config.py", ["+model.select_box_nums_for_evaluation=7"], f"{tmp_path}/model.pth"
    )
    assert names == ["cat", "dog"]
    assert model.select_box_nums_for_evaluation == 7
    assert not model.training
    torch.testing.assert_close(dict(model.state_dict()), dict(trained.state_dict()))
