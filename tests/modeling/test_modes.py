import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor

from detrex.modeling.modes import set_modes


class _Drops(nn.Module):
    """Drops by a function, which a graph holds with the mode that it was traced in."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x):
        return {"out": F.dropout(self.norm(self.conv(x)), 0.5, training=self.training)}


def test_set_modes__a_graph_for_each_mode_is_that_of_its_own():
    model = create_feature_extractor(_Drops(), ["dropout"])
    model.train()
    model.norm.eval()
    modes = [(module, module.training) for module in model.modules()]
    image = torch.ones(2, 3, 5, 7)
    for _ in range(2):
        assert (model(image)["dropout"] == 0).any()
        assert not model.norm.training
        model.eval()
        assert not (model(image)["dropout"] == 0).any()
        set_modes(modes)


def test_set_modes__each_module_by_itself():
    model = nn.Sequential(nn.Sequential(nn.Dropout(), nn.ReLU()), nn.Dropout())
    wanted = [True, False, True, False, True]
    set_modes(zip(model.modules(), wanted, strict=True))
    assert [module.training for module in model.modules()] == wanted
