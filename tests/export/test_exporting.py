import json
import os

import onnx
import pytest
import torch
from torch import nn

from detrex.errors import ConfigError
from detrex.export import export_model
from detrex.export.exporting import Exportable
from detrex.export.formats import METADATA
from detrex.export.tensor_modules import tensor_module
from detrex.modeling.backbone import TimmBackbone
from tests.reference.tiny_dino import TinyBackbone, tiny_dino

SIZES = ((96, 128), (259, 347), (224, 448))
ENDINGS = {"torch-export": ".pt2", "onnx": ".onnx", "openvino": ".xml"}


def _dinov3():
    size = {"depth": 1, "embed_dim": 48, "num_heads": 2}
    return TimmBackbone("vit_small_patch16_dinov3", out_strides=(8, 16), **size)


def _swin(depths=(2, 1, 1, 1), strides=(4,)):
    size = {"depths": depths, "embed_dim": 12, "num_heads": (1, 2, 2, 2)}
    return TimmBackbone("swin_tiny_patch4_window7_224", out_strides=strides, **size)


def _whole_swin():
    return _swin((1, 2, 1, 1), (8, 16, 32))


def _vit():
    size = {"depth": 1, "embed_dim": 24, "num_heads": 2}
    return TimmBackbone("vit_tiny_patch16_224", out_strides=(8, 16), **size)


def _both(exportable, folder, formats):
    return [exportable.write(folder / f"file{ENDINGS[name]}", name) for name in formats]


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("build", "formats"),
    [
        pytest.param(_dinov3, ("torch-export", "onnx"), id="rotary positions", marks=SLOW),
        pytest.param(_swin, ("torch-export",), id="windows"),
        pytest.param(_whole_swin, ("torch-export", "onnx", "openvino"), id="stages", marks=SLOW),
        pytest.param(_vit, ("torch-export", "onnx"), id="resampled positions", marks=SLOW),
        pytest.param(lambda: TimmBackbone("resnet10t"), ("onnx",), id="batch norms", marks=SLOW),
    ],
)
def test_write__backbone_at_sizes_that_the_graph_was_not_made_with(build, formats, tmp_path):
    exportable = Exportable(build(), sizes=SIZES)
    for report in _both(exportable, tmp_path, formats):
        assert list(report.differences) == list(SIZES)
        assert max(report.differences.values()) < 1e-4


class _Padding(TinyBackbone):
    padding_constraints = {"size_divisibility": 32}


@pytest.mark.parametrize(
    ("backbone", "levels", "formats"),
    [
        (_Padding, 1, ("onnx",)),
        pytest.param(_Padding, 2, ("torch-export", "openvino"), marks=SLOW),
        pytest.param(TinyBackbone, 4, ("onnx", "torch-export", "openvino"), marks=SLOW),
    ],
)
def test_write__detector_gives_what_the_detector_gives(backbone, levels, formats, tmp_path):
    """Against the detector's own way from dataset dicts; the first size has too few tokens."""
    keywords = {"levels": levels, "queries": 30, "input_format": "BGR"}
    model = tiny_dino(layers=1, backbone=backbone(), **keywords).eval()
    exportable = Exportable(model, sizes=((33, 40), (130, 190), (224, 97)))
    for report in _both(exportable, tmp_path, formats):
        assert max(report.differences.values()) < 1e-4
    for reference in exportable.references:
        image, found, (height, width) = reference.image, reference.outputs, reference.size
        (expected,) = model([{"image": image[0], "height": height, "width": width}])
        instances, kept = expected["instances"], _non_empty(found["boxes"])
        torch.testing.assert_close(found["scores"][kept], instances.scores, rtol=0, atol=1e-5)
        boxes = instances.pred_boxes.tensor
        torch.testing.assert_close(found["boxes"][kept], boxes, rtol=0, atol=1e-2)
        assert found["classes"][kept].tolist() == instances.pred_classes.tolist()


def _non_empty(boxes):
    return (boxes[:, 2:] > boxes[:, :2]).all(1)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A model in training, its state before, and the file and report of its export."""
    model = TinyBackbone().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    file = tmp_path_factory.mktemp("written") / "a.onnx"
    return model, before, file, export_model(model, file, class_names=["circle"])


def test_export__a_file_says_what_it_takes_and_gives(written):
    _, _, file, report = written
    assert report.files == (file,)
    assert list(file.parent.iterdir()) == [file]
    (entry,) = onnx.load(file).metadata_props
    said = json.loads(entry.value)
    assert entry.key == METADATA
    assert said == report.description
    assert said["levels"]["p4"] == {"stride": 16, "channels": 8}
    assert (said["outputs"], said["class_names"]) == (["p3", "p4", "p5"], ["circle"])
    dims = onnx.load(file).graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_param or d.dim_value for d in dims] == [1, 3, "height", "width"]


def test_export__leaves_a_model_as_it_was(written):
    model, before, _, _ = written
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    torch.testing.assert_close(dict(model.state_dict()), before, rtol=0, atol=0)


class _Deciding(TinyBackbone):
    def forward(self, x):
        return super().forward(x if x.mean() > 0 else -x)


class _Branching(TinyBackbone):
    def forward(self, x):
        return super().forward(x * (2 if x.shape[-1] > 300 else 1))


class _Failing(TinyBackbone):
    def forward(self, x):
        raise RuntimeError("kernel size\nlarger than the map")


@pytest.mark.parametrize(
    ("model", "file", "keywords", "said"),
    [
        (TinyBackbone(), "a.onnx", {"format": "onxx"}, "Did you mean 'onnx'"),
        (TinyBackbone(), "a.onnx", {"part": "neck"}, "detector or backbone, got 'neck'"),
        (TinyBackbone(), "a.pt", {}, "must end in .onnx, got"),
        (TinyBackbone(), "no/a.onnx", {}, "there is no folder"),
        (TinyBackbone(), f"{'n' * 300}.onnx", {}, "has 305 bytes, expected at most"),
        (TinyBackbone(), "there.onnx", {}, "exists and is not written over"),
        (_Deciding(), "a.pt2", {"format": "torch-export"}, "torch.export cannot follow"),
        (_Branching(), "a.pt2", {"format": "torch-export"}, "differs from the model by"),
        (nn.Identity(), "a.onnx", {}, "cannot be exported as a whole"),
        (TinyBackbone(), "a.pt2", {"format": "torch-export", "uint8": True}, "leave uint8 out"),
        (TinyBackbone(), "a.onnx", {"sizes": []}, "one or more pairs"),
        (TinyBackbone(), "a.onnx", {"sizes": [(64, 64), (0, 5)]}, "at least 1 each, got"),
        (_Failing(), "a.onnx", {"sizes": [(64, 96)]}, "cannot run on an image of 64 x 96: Runt"),
    ],
)
def test_export__one_sentence_and_no_file(model, file, keywords, said, tmp_path):
    (tmp_path / "there.onnx").write_text("mine")
    with pytest.raises(ConfigError, match=said) as caught:
        export_model(model, tmp_path / file, **keywords)
    assert len(str(caught.value)) < 500
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["there.onnx"]
    assert (tmp_path / "there.onnx").read_text() == "mine"


def test_export__needs_a_folder_that_can_bewritten(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(ConfigError, match="cannot be written to: name another output"):
        export_model(TinyBackbone(), tmp_path / "a.pt2", "torch-export")


def test_module__uint8_images():
    model = tiny_dino(layers=1, levels=1).eval()
    image = torch.randint(256, (1, 3, 64, 96), dtype=torch.uint8)
    found, expected = (tensor_module(model)(x) for x in (image, image.float()))
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
