"""What a run starts from: `train.init_checkpoint`."""

import pytest
import timm
import torch
from detectron2.config import LazyCall as L

from detrex.config import get_detectron2_config
from detrex.engine import build_model, do_train
from detrex.engine.checkpoints import build_checkpointer
from detrex.errors import CheckpointError
from detrex.modeling.backbone import TimmBackbone
from tests.reference.runs import FRESH, RESUME, config, records
from tests.reference.stand_in import read_weights, stand_in_config


def test_do_train__init_checkpoint_of_a_detector_and_of_a_backbone(tmp_path):
    do_train(FRESH, stand_in_config(str(tmp_path / "first"), max_iter=2))
    weights = read_weights(tmp_path / "first")
    prefix = "backbone."
    backbone = {k[len(prefix) :]: v for k, v in weights.items() if k.startswith(prefix)}
    torch.save(backbone, tmp_path / "backbone.pth")
    for file, same in (
        (tmp_path / "first/model_final.pth", True),
        (tmp_path / "backbone.pth", False),
    ):
        cfg = stand_in_config(str(tmp_path / "next"), init_checkpoint=str(file), max_iter=1)
        cfg.optimizer.lr = 0.0
        do_train(FRESH, cfg)
        loaded = read_weights(tmp_path / "next")
        torch.testing.assert_close(loaded["backbone.0.weight"], weights["backbone.0.weight"])
        assert torch.equal(loaded["head.weight"], weights["head.weight"]) == same


def test_do_train__init_checkpoint_of_other_images_is_warned_of(tmp_path, caplog):
    """A detector's own file that keeps the statistics of its images beside its tensors."""
    cfg = stand_in_config(str(tmp_path), max_iter=1)
    model = build_model(cfg, seed=0)
    model.register_buffer("pixel_mean", torch.tensor([103.5, 116.3, 123.7]), persistent=False)
    model.register_buffer("pixel_std", torch.ones(3), persistent=False)
    origin = {"pixel_mean": torch.tensor([1.0, 2.0, 3.0]), "pixel_std": torch.full((3,), 9.0)}
    file = tmp_path / "strange.pth"
    torch.save({"model": {**model.state_dict(), **origin}}, file)
    build_checkpointer(cfg, model).load(str(file))
    warned = [r.getMessage() for r in caplog.records if "was trained with statistics" in r.message]
    assert len(warned) == 1
    assert "mean (1, 2, 3), std (9, 9, 9), BGR, and the detector has (103.5" in warned[0]


@pytest.mark.parametrize("is_bare", [True, False])
def test_do_train__init_checkpoint_of_a_backbone_on_other_images_is_warned_of(
    is_bare, tmp_path, caplog
):
    """detectron2's BGR without a deviation is not what timm's weights were trained on."""
    cfg = stand_in_config(str(tmp_path))
    cfg.model = get_detectron2_config("common/models/fcos.py").model
    cfg.model.backbone.bottom_up = L(TimmBackbone)(
        model_name="test_resnet", out_features=["res3", "res4", "res5"]
    )
    model = build_model(cfg, seed=0)
    network = timm.create_model("test_resnet")
    torch.save((network if is_bare else model).state_dict(), tmp_path / "weights.pth")
    build_checkpointer(cfg, model).load(str(tmp_path / "weights.pth"))
    assert ("weights.pth: images are normalised by pixel_mean" in caplog.text) is is_bare


def test_do_train__init_checkpoint_that_fits_nothing_stops(tmp_path):
    torch.save({"other.weight": torch.zeros(3)}, tmp_path / "other.pth")
    cfg = stand_in_config(str(tmp_path), init_checkpoint=str(tmp_path / "other.pth"))
    with pytest.raises(CheckpointError):
        do_train(FRESH, cfg)


def test_checkpoints__a_kill_before_the_final_one_is_made_up_for(tmp_path):
    keep = {"checkpointer": {"period": 3, "max_to_keep": 2}, "eval_period": 2}
    do_train(FRESH, config(tmp_path, **keep))
    file, last = tmp_path / "model_final.pth", tmp_path / "model_0000005.pth"
    expected, lines = torch.load(file, weights_only=True), records(tmp_path)
    file.unlink()
    (tmp_path / "last_checkpoint").write_text(last.name)
    for _ in range(2):  # the second time it is there
        do_train(RESUME, config(tmp_path, **keep))
        found = torch.load(file, weights_only=True)
        torch.testing.assert_close(found["model"], expected["model"], rtol=0, atol=0)
        assert found["iteration"] == found["trainer"]["iteration"] == 5
        assert found["trainer"].keys() == expected["trainer"].keys()
        assert records(tmp_path) == lines
        assert (tmp_path / "last_checkpoint").read_text() == file.name
