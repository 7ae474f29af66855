"""Where a network is split is found from its calls; refused where more than a map is needed."""

import pytest
import torch
from torch import nn

from detrex.modeling.backbone.splitting import NoSplitError, Regions, split


class _Net(nn.Module):
    """Early and late convolutions; `skip` brings the early map past the entrance."""

    def __init__(self, skip=False, shared=False, kept_in_list=False):
        super().__init__()
        self.early = nn.Conv2d(3, 5, 3, stride=2, padding=1)
        self.scale = nn.Parameter(torch.ones(5, 1, 1))
        self.act = nn.ReLU()
        self.middle = nn.Sequential(nn.Conv2d(5, 7, 3, stride=2, padding=1), nn.ReLU(inplace=True))
        self.late = nn.Conv2d(7, 11, 3, stride=2, padding=1)
        self.skip, self.shared = skip, shared
        self.stages = [self.middle, self.late] if kept_in_list else None

    def forward(self, x):
        x = early = self.act(self.early(x) * self.scale)
        middle, late = self.stages or (self.middle, self.late)
        x = level = middle(x)
        if self.shared:
            x = self.act(x)
        x = late(x)
        if self.skip:
            x = x + early.mean()
        return {"a": level, "b": x}


@pytest.mark.parametrize("options", [{}, {"shared": True}, {"kept_in_list": True}])
def test_split__leaves_what_comes_after(options):
    torch.manual_seed(0)
    net = _Net(**options).eval()
    expected = net(torch.randn(2, 3, 40, 24))
    regions = Regions()
    entrance = split(net, torch.empty(2, 3, 40, 24, device="meta"), regions, "a", "b")
    assert entrance == "middle"
    assert [name for name, _ in net.named_parameters()] == ["late.weight", "late.bias"]
    with regions.entering(expected["a"]):
        observed = net(torch.empty(2, 3, 40, 24, device="meta"))
    assert torch.equal(observed["b"], expected["b"])


def test_split__refuses_what_takes_more():
    net = _Net(skip=True)
    with pytest.raises(
        NoSplitError, match="no module of it gives a, and nothing else, to what computes b"
    ):
        split(net, torch.empty(2, 3, 40, 24, device="meta"), Regions(), "a", "b")


def test_split__tells_an_image_that_the_network_refuses():
    net = _Net()
    with pytest.raises(NoSplitError, match="an image of 40 x 24 fails with RuntimeError"):
        split(net, torch.empty(2, 4, 40, 24, device="meta"), Regions(), "a", "b")


@pytest.mark.parametrize(
    ("layout", "shape"), [("NCHW", (2, 3, 5, 7)), ("NHWC", (2, 5, 7, 3)), ("NLC", (2, 35, 3))]
)
def test_regions__are_given_in_the_layout_of_the_entrance(layout, shape):
    maps = torch.arange(210.0).reshape(2, 3, 5, 7)
    regions = Regions(layout)
    with regions.entering(maps):
        given = regions.given()
    assert given.shape == shape
    channel = given[0, ..., 1] if layout != "NCHW" else given[0, 1]
    assert torch.equal(channel.flatten(), maps[0, 1].flatten())
