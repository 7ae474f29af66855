import pytest
import torch
from detectron2.config import instantiate
from torch import nn
from torch.testing import assert_close

from detrex.modeling.inference.parts import Call, is_detector, outside_parts, tensor_parts
from tests.reference.tiny_detectors import tiny_detector
from tests.reference.tiny_dino import TinyBackbone, tiny_dino

RPN, BOX = "proposal_generator.rpn_head", "roi_heads.box_head"
PARTS = {
    "mask_rcnn_fpn": ["backbone", RPN, BOX, "roi_heads.mask_head"],
    "cascade_rcnn": ["backbone", RPN, f"{BOX}.0", f"{BOX}.1", f"{BOX}.2", "roi_heads.mask_head"],
    "keypoint_rcnn_fpn": ["backbone", RPN, BOX, "roi_heads.keypoint_head"],
    "mask_rcnn_c4": ["backbone", RPN, "roi_heads.res5", "roi_heads.mask_head"],
    "panoptic_fpn": ["backbone", RPN, BOX, "roi_heads.mask_head", "sem_seg_head"],
    "retinanet": ["backbone", "head"],
    "fcos": ["backbone", "head"],
}


@pytest.mark.parametrize(("name", "parts"), PARTS.items(), ids=PARTS)
def test_tensor_parts__of_detectron2s(name, parts):
    detector = instantiate(tiny_detector(name))
    assert is_detector(detector)
    found = tensor_parts(detector)
    assert [part.name for part in found] == parts
    assert all(detector.get_submodule(part.name) is part.module for part in found)


def test_tensor_parts__of_dino_and_of_its_backbone():
    detector = tiny_dino()
    assert [part.name for part in tensor_parts(detector)] == ["backbone", "neck", "transformer"]
    assert [part.name for part in tensor_parts(TinyBackbone())] == [""]


def test_tensor_parts__not_layers_that_are_modules():
    detector = instantiate(tiny_detector("mask_rcnn_fpn"))
    detector.roi_heads.mask_head = nn.Module()
    detector.roi_heads.mask_head.layers = nn.ModuleList([nn.Conv2d(3, 4, 3)])
    assert [part.name for part in tensor_parts(detector)] == ["backbone", RPN, BOX]


def test_outside_parts__has_what_is_reached_by_two_ways():
    detector = tiny_dino()
    outside = outside_parts(detector, tensor_parts(detector))
    assert id(detector.bbox_embed[0].layers[0]) in outside  # the decoder holds it too
    assert id(detector.transformer.encoder) not in outside
    assert id(detector.backbone.stem) not in outside


def test_call__formats_and_gradients():
    seen = []

    def method(x, *, factor):
        seen.append(x.is_contiguous(memory_format=torch.channels_last))
        return {"product": nn.functional.linear(x, factor), "same": [x, None, 3]}

    call = Call(method, channels_last=True, device_type="cpu", dtype=torch.bfloat16)
    x, factor = torch.randn(2, 3, 5, 4), torch.randn(6, 4, requires_grad=True)
    output = call(x, factor=factor)
    assert seen == [True]
    assert output["product"].dtype == torch.float32
    assert not output["product"].requires_grad
    assert torch.equal(output["product"], output["product"].bfloat16().float())
    assert_close(output["same"][0], x, rtol=0, atol=0)
    assert output["same"][1:] == [None, 3]
