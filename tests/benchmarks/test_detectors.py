import pytest
import torch
from detectron2.utils.events import EventStorage

from benchmarks.detectors import batch, mask_rcnn, training_step


def test_batch__boxes_lie_in_the_picture():
    samples = batch((48, 80), pictures=2, objects=5)
    assert len(samples) == 2
    for sample in samples:
        boxes = sample["instances"].gt_boxes.tensor
        assert sample["image"].shape == (3, 48, 80)
        assert len(boxes) == 5
        assert boxes[:, 2:].min(0).values.ge(16).all()
        assert boxes[:, 0::2].max() <= 80
        assert boxes[:, 1::2].max() <= 48
        assert (boxes[:, 2:] - boxes[:, :2]).min() >= 15.999


@pytest.mark.slow
def test_mask_rcnn__both_kinds_compute_the_same():
    theirs, ours = mask_rcnn().eval(), mask_rcnn(ours=True).eval()
    assert type(theirs.backbone.bottom_up) is not type(ours.backbone.bottom_up)
    image = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        expected, maps = theirs.backbone(image), ours.backbone(image)
    assert list(maps) == list(expected)
    for name, value in expected.items():
        torch.testing.assert_close(maps[name], value, rtol=1e-4, atol=1e-4)


def test_training_step__moves_what_is_not_frozen():
    model = torch.nn.Linear(3, 1)
    model.bias.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}

    class Detector(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = model

        def forward(self, samples):
            with EventStorage():
                return {"loss": self.linear(samples).square().mean()}

    training_step(Detector(), torch.ones(5, 3))()
    assert not torch.equal(model.weight, before["weight"])
    assert torch.equal(model.bias, before["bias"])
