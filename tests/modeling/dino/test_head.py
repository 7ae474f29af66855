import pytest
import torch

from detrex.modeling.dino.head import as_outputs, box_heads, class_heads, predict
from detrex.utils import inverse_sigmoid


def test_class_heads__start_at_the_prior_and_are_apart():
    heads = class_heads(8, 5, 3)
    for head in heads:
        torch.testing.assert_close(head.bias.sigmoid(), torch.full((5,), 0.01), rtol=1e-5, atol=0)
    assert len({head.weight.data_ptr() for head in heads}) == 3


def test_box_heads__start_as_the_identity():
    reference = torch.rand(2, 3, 7, 4) * 0.9 + 0.05
    _, boxes = predict(torch.randn(2, 3, 7, 8), reference, class_heads(8, 5, 3), box_heads(8, 3))
    torch.testing.assert_close(boxes, reference, rtol=1e-5, atol=1e-6)


def test_predict__layer_by_layer():
    states, references = torch.randn(2, 3, 7, 8), torch.rand(2, 3, 7, 4)
    class_embed, bbox_embed = class_heads(8, 5, 3), box_heads(8, 3)
    torch.nn.init.normal_(bbox_embed[1].layers[-1].weight)
    logits, boxes = predict(states, references, class_embed, bbox_embed)
    for layer in range(2):
        expected = class_embed[layer](states[layer])
        torch.testing.assert_close(logits[layer], expected, rtol=1e-6, atol=1e-6)
        moved = bbox_embed[layer](states[layer]) + inverse_sigmoid(references[layer])
        torch.testing.assert_close(boxes[layer], moved.sigmoid(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("dtype", "expected"), [(torch.bfloat16, torch.float32), (torch.float64, torch.float64)]
)
def test_predict__is_in_float32_at_least(dtype, expected):
    heads = class_heads(8, 5, 2).to(dtype), box_heads(8, 2).to(dtype)
    references = torch.rand(1, 2, 3, 4, dtype=expected)
    logits, boxes = predict(torch.randn(1, 2, 3, 8, dtype=dtype), references, *heads)
    assert logits.dtype == boxes.dtype == expected


@pytest.mark.parametrize("aux_loss", [False, True])
def test_as_outputs__last_layer_and_those_before(aux_loss):
    logits, boxes = torch.randn(3, 2, 7, 5), torch.rand(3, 2, 7, 4)
    outputs = as_outputs(logits, boxes, aux_loss)
    torch.testing.assert_close(outputs["pred_logits"], logits[2], rtol=0, atol=0)
    torch.testing.assert_close(outputs["pred_boxes"], boxes[2], rtol=0, atol=0)
    assert len(outputs.get("aux_outputs", ())) == (2 if aux_loss else 0)
    for layer, aux in enumerate(outputs.get("aux_outputs", ())):
        torch.testing.assert_close(aux["pred_logits"], logits[layer], rtol=0, atol=0)
        torch.testing.assert_close(aux["pred_boxes"], boxes[layer], rtol=0, atol=0)
