import pytest
import torch
from detectron2.config import instantiate

from detrex.errors import ConfigError
from detrex.export.tensor_modules import TensorBackbone, tensor_module
from tests.reference.tiny_detectors import tiny_detector
from tests.reference.tiny_dino import tiny_dino


@pytest.mark.parametrize("name", ["mask_rcnn_fpn", "retinanet", "mask_rcnn_vitdet"])
def test_detectron2__whole_is_refused_and_its_backbone_pads_inside(name):
    model = instantiate(tiny_detector(name)).eval()
    with pytest.raises(ConfigError, match="cannot be exported as a whole"):
        tensor_module(model)
    module = tensor_module(model, "backbone")
    assert module.channels == 3
    image = torch.rand(1, 3, 70, 93)
    with torch.no_grad():
        padded = torch.zeros(1, 3, 96, 96)
        padded[..., :70, :93] = image
        if name != "mask_rcnn_vitdet":
            padded = padded[:, :, : -(-70 // model.backbone.size_divisibility) * 32]
        expected = model.backbone(padded)
        got = module(image)
    assert list(got) == list(expected)
    torch.testing.assert_close(got, dict(expected), rtol=1e-5, atol=1e-5)


def test_part__backbone_of_a_detector_or_itself():
    model = tiny_dino()
    for whole in (model, model.backbone):
        module = tensor_module(whole, "backbone")
        assert isinstance(module, TensorBackbone)
        assert module.backbone is model.backbone
        assert module.describe()["levels"]["p5"] == {"stride": 32, "channels": 8}
    assert tensor_module(model).describe()["num_classes"] == 5
    assert (tensor_module(model).channels, tensor_module(model.backbone).channels) == (3, 3)
