import contextlib
import errno
import json

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.structures import Boxes, Instances
from PIL import Image
from torch import nn
from torchvision.models.feature_extraction import DualGraphModule

from detrex.config import load_config
from detrex.config.validation import settle
from detrex.engine import do_test, evaluation
from detrex.engine.evaluation import (
    build_evaluation,
    build_loader,
    evaluation_mode,
    inference_keywords,
    progress_bar,
)
from detrex.engine.overrides import apply_overrides
from detrex.errors import ConfigError, DownloadError, PictureError, RunError
from detrex.modeling import ema
from detrex.modeling.backbone import TorchvisionBackbone
from tests.reference.stand_in import MeanScore, StandIn, evaluation_batches, stand_in_config


@pytest.fixture
def cfg(tmp_path):
    return stand_in_config(str(tmp_path))


def mean_score(model: nn.Module) -> float:
    model.eval()
    with torch.no_grad():
        outputs = [model(batch)[0]["instances"].scores for batch in evaluation_batches()]
    return float(torch.cat(outputs).mean())


def test_do_test__metrics_equal_a_naive_loop(cfg):
    model = StandIn()
    metrics = do_test(cfg, model)
    assert metrics["bbox"]["images"] == 5
    assert metrics["bbox"]["AP"] == pytest.approx(mean_score(model), abs=1e-6)


def test_do_test__each_module_keeps_its_mode(cfg):
    model = StandIn().train()
    model.backbone.eval()
    do_test(cfg, model)
    assert model.training
    assert model.head.training
    assert not model.backbone.training
    assert not model.backbone[1].training


def test_evaluation_mode__a_graph_for_each_mode_comes_back():
    """A backbone of torchvision went on training with the graph of evaluation."""
    backbone = TorchvisionBackbone("resnet18", out_strides=(8, 16)).train()
    graphs = [m for m in backbone.modules() if isinstance(m, DualGraphModule)]
    before = [graph.graph for graph in graphs]
    with evaluation_mode(backbone):
        assert [graph.graph for graph in graphs] != before
    assert [graph.graph for graph in graphs] == before
    assert graphs


def test_evaluation_mode__restores_after_an_error():
    model = StandIn().train()
    with contextlib.suppress(KeyError), evaluation_mode(model):
        assert not model.dropout.training
        raise KeyError
    assert model.dropout.training


def test_do_test__ema_beside_plain_and_weights_come_back(cfg):
    cfg.train.model_ema.enabled = True
    model = StandIn()
    ema.may_build_model_ema(cfg, model)
    model.ema_state.save_from(model)
    averaged = mean_score(model)
    nn.init.constant_(model.head.bias, 7.0)
    metrics = do_test(cfg, model)
    assert metrics["bbox"]["AP"] == pytest.approx(mean_score(model), abs=1e-6)
    assert metrics["ema/bbox"]["AP"] == pytest.approx(averaged, abs=1e-6)
    assert model.head.bias.item() == 7.0
    assert set(do_test(cfg, model, eval_only=True)) == {"bbox"}
    cfg.train.model_ema.use_ema_weights_for_eval_only = True
    only = do_test(cfg, model, eval_only=True)
    assert only == {"bbox": metrics["ema/bbox"]}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_do_test__runs_under_autocast(cfg, dtype):
    seen = []

    class Probe(StandIn):
        def forward(self, batch):
            seen.append((torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")))
            return super().forward(batch)

    do_test(cfg, Probe())
    cfg.train.amp = {"enabled": True, "dtype": dtype}
    do_test(cfg, Probe())
    assert seen[:5] == [(False, seen[0][1])] * 5
    assert seen[5:] == [(True, getattr(torch, dtype))] * 5


def test_do_test__evaluates_a_copy_of_the_present_weights(cfg, monkeypatch):
    copies = []
    make_copy = evaluation.optimize_for_inference

    def watched(model, **keywords):
        copies.append(make_copy(model, **keywords))
        return copies[-1]

    monkeypatch.setattr(evaluation, "optimize_for_inference", watched)
    cfg.train.inference.enabled = True
    cfg.train.model_ema.enabled = True
    model = StandIn().train()
    ema.may_build_model_ema(cfg, model)
    model.ema_state.save_from(model)
    averaged = mean_score(model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    run = build_evaluation(cfg, required=True)
    for bias in (7.0, 3.0):
        nn.init.constant_(model.head.bias, bias)
        metrics = run(model.train())
        assert metrics["bbox"]["AP"] == pytest.approx(mean_score(model), abs=1e-5)
        assert metrics["ema/bbox"]["AP"] == pytest.approx(averaged, abs=1e-5)
    assert all(isinstance(copied.backbone[1], nn.Identity) for copied in copies)
    assert len(copies) == 4
    assert all(copied.ema_state is None for copied in copies)
    assert model.state_dict().keys() == before.keys()
    assert all(
        torch.equal(value, before[name])
        for name, value in model.state_dict().items()
        if name != "head.bias"
    )


@pytest.mark.parametrize(
    ("settings", "keywords"),
    [
        ({}, {"dtype": None}),
        ({"dtype": "auto", "channels_last": False}, {"dtype": "auto", "channels_last": False}),
        ({"fold_norms": False, "compile": True}, {"fold_norms": False, "compile": True}),
        ({"amp": True}, {"dtype": torch.bfloat16}),
        ({"amp": True, "dtype": "float32"}, {"dtype": "float32"}),
    ],
)
def test_inference_keywords__read_from_the_config(cfg, settings, keywords):
    assert inference_keywords(cfg) is None
    cfg.train.amp = {"enabled": settings.pop("amp", False), "dtype": "bfloat16"}
    cfg.train.inference.update(enabled=True, **settings)
    usual = {"dtype": None, "channels_last": True, "fold_norms": True, "compile": False}
    assert inference_keywords(cfg) == usual | keywords


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.inference.dtype=bf16", r"train\.inference\.dtype.*bf16"),
        ("train.inference.enable=True", r"enable.*Did you mean.*enabled"),
    ],
)
def test_inference_keywords__mistakes_are_said(cfg, override, message):
    with pytest.raises(ConfigError, match=message):
        settle(apply_overrides(cfg, [override]))


def test_do_test__without_evaluator(cfg):
    del cfg.dataloader.evaluator
    assert do_test(cfg, StandIn()) == {}
    with pytest.raises(ConfigError, match=r"--eval-only needs dataloader\.evaluator"):
        do_test(cfg, StandIn(), eval_only=True)


class _OnFullDisk(MeanScore):
    error: OSError = OSError(errno.ENOSPC, "No space left on device", "found.json")

    def evaluate(self):
        raise self.error


def test_do_test__evaluator_that_cannot_write(cfg):
    cfg.dataloader.evaluator = L(_OnFullDisk)()
    with pytest.raises(RunError, match=r"^found\.json of the .* \(No space left.*resume$"):
        do_test(cfg, StandIn())


def test_do_test__evaluator_with_a_sentence_of_its_own(cfg, monkeypatch):
    """Some errors of the package are of the operating system's kind, too."""
    monkeypatch.setattr(_OnFullDisk, "error", DownloadError("no such annotations"))
    cfg.dataloader.evaluator = L(_OnFullDisk)()
    with pytest.raises(DownloadError, match=r"^no such annotations$"):
        do_test(cfg, StandIn())


@pytest.mark.parametrize("names", ["coco_2017_vall", ["coco_2017_val", "coco_2017_vall"]])
def test_do_test__unregistered_dataset(cfg, names):
    cfg.dataloader.test = L(evaluation_batches)(dataset={"names": names})
    with pytest.raises(
        ConfigError, match=r"names=coco_2017_vall is not a registered.*'coco_2017_val'"
    ):
        do_test(cfg, StandIn())


@pytest.mark.parametrize("names", [None, [], ""])
def test_do_test__no_dataset(cfg, names):
    cfg.dataloader.test.dataset = {"names": names}
    with pytest.raises(ConfigError, match="names no data set"):
        build_loader(cfg, "dataloader.test")


def test_build_evaluation__something_else_than_an_evaluator(cfg):
    cfg.dataloader.evaluator = L(Image.Exif)()
    with pytest.raises(ConfigError, match="builds Exif, expected an evaluator"):
        build_evaluation(cfg, required=True)


def test_do_test__unknown_amp_dtype(cfg):
    cfg.train.amp.dtype = "bfloat61"
    with pytest.raises(ConfigError, match=r"bfloat61 is unknown.*Did you mean 'bfloat16'"):
        do_test(cfg, StandIn())


def test_progress_bar__only_where_somebody_watches(monkeypatch, capsys):
    batches = [1, 2, 3]
    assert progress_bar(batches) is batches
    monkeypatch.setattr(evaluation.sys.stderr, "isatty", lambda: True, raising=False)
    shown = progress_bar(batches)
    assert len(shown) == 3
    assert list(shown) == batches
    assert "evaluation" in capsys.readouterr().err


class Oracle(nn.Module):
    """Finds the one box that `_three_pictures` draws into each picture."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, batch):
        answers = []
        for sample in batch:
            found = Instances((sample["height"], sample["width"]))
            found.pred_boxes = Boxes(torch.tensor([[4.0, 5.0, 20.0, 19.0]]))
            found.scores, found.pred_classes = torch.tensor([0.9]), torch.tensor([0])
            answers.append({"instances": found})
        return answers


def _three_pictures(folder, name, policy):
    """A config whose test set has three pictures, of which the second is cut short."""
    box = {"category_id": 1, "bbox": [4, 5, 16, 14], "area": 224, "iscrowd": 0}
    size = {"height": 24, "width": 32}
    coco = {
        "images": [{"id": n, "file_name": f"{n}.png", **size} for n in (1, 2, 3)],
        "annotations": [{"id": n, "image_id": n, **box} for n in (1, 2, 3)],
        "categories": [{"id": 1, "name": "thing"}],
    }
    (folder / "val.json").write_text(json.dumps(coco))
    for n in (1, 2, 3):
        Image.new("RGB", (32, 24)).save(folder / f"{n}.png")
    (folder / "2.png").write_bytes((folder / "2.png").read_bytes()[:50])
    cfg = apply_overrides(load_config("configs/common/data/custom.py"), policy)
    names = {"name": name, "json_file": str(folder / "val.json"), "image_root": str(folder)}
    cfg.dataloader.test.dataset.names.update(names, num_classes=None)
    cfg.dataloader.test.mapper.augmentation = []
    cfg.dataloader.test.num_workers = 1
    return cfg


def test_do_test__a_skipped_picture_counts_as_one_without_detections(tmp_path, caplog):
    cfg = _three_pictures(tmp_path, "three_skip", ["dataloader.on_bad_image=skip"])
    metrics = do_test(cfg, Oracle())
    # Two of three found: the precision is 1 at the 67 of 101 recalls up to 2/3, and 0 beyond.
    assert metrics["bbox"]["AP"] == pytest.approx(100 * 67 / 101, abs=1e-6)
    assert "dataloader.test left out 1 picture(s) that cannot be used, 1 time(s) (" in caplog.text
    assert "they count as pictures in which nothing was found" in caplog.text


def test_do_test__a_bad_picture_ends_the_evaluation_by_default(tmp_path):
    cfg = _three_pictures(tmp_path, "three_error", [])
    with pytest.raises(PictureError, match=r"2\.png is truncated or damaged .*on_bad_image=skip"):
        do_test(cfg, Oracle())


@pytest.mark.parametrize("key", ["dataloader.train", "dataloader.test"])
def test_build_loader__unknown_policy_is_said(cfg, key):
    cfg.dataloader.on_bad_image = "skpi"
    with pytest.raises(ConfigError, match=r"on_bad_image=skpi is unknown: .* Did you mean 'skip'"):
        build_loader(cfg, key)


@pytest.mark.parametrize(
    "config", ["common/data/coco.py", "common/data/coco_detr.py", "dino/demo_shapes.py"]
)
def test_build_loader__shipped_configs_have_the_policy(config):
    cfg = apply_overrides(load_config(f"configs/{config}"), ["dataloader.on_bad_image=skip"])
    assert cfg.dataloader.on_bad_image == "skip"


def test_build_loader__references_from_a_mapper_stay_whole(tmp_path):
    cfg = load_config("configs/common/data/coco.py")
    cfg.dataloader.test.dataset = [{"file_name": "a.png", "image_id": 1}]
    cfg.dataloader.train.mapper.image_format = "L"
    loader = build_loader(cfg, "dataloader.test")
    assert loader.dataset._map_func._obj.mapper.mapper.image_format == "L"
