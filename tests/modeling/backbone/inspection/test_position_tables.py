import pytest
import timm
import torch
from torch import nn

from detrex.modeling.backbone import TimmBackbone
from detrex.modeling.backbone.inspection.meta_run import SizeRefusedError
from detrex.modeling.backbone.inspection.position_tables import RefuseOtherPositions


class _Reads(nn.Module):
    """A table of five positions, read by a grid of differences."""

    def __init__(self, constant: bool = False, resampled: bool = False) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(9, 3))
        self.constant, self.resampled = constant, resampled
        self.register_buffer("index", torch.zeros(4, 4, dtype=torch.int64))

    def forward(self, n: int) -> torch.Tensor:
        place = torch.arange(n, device=self.table.device)
        index = self.index if self.constant else place[:, None] - place[None] + n - 1
        table = self.table
        if self.resampled:
            table = nn.functional.interpolate(table.T[None], size=2 * n - 1)[0].T
        return table[index]


@pytest.mark.parametrize("n", [4, 6])
@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_refuse_other_positions__a_table_of_another_size(n, device):
    network = _Reads().to(device)
    reason = rf"the table table has 9 rows, and {n} positions along a side need {2 * n - 1}"
    with pytest.raises(SizeRefusedError, match=reason), RefuseOtherPositions(network):
        network(n)


@pytest.mark.parametrize(("network", "n"), [(_Reads(), 5), (_Reads(constant=True), 6)])
def test_refuse_other_positions__its_own_size_and_windows_pass(network, n):
    with RefuseOtherPositions(network):
        assert network(n).shape[-1] == 3


def test_refuse_other_positions__what_is_resampled_passes():
    network = _Reads(resampled=True)
    with RefuseOtherPositions(network):
        assert network(7).shape == (7, 7, 3)


def test_timm_backbone__of_a_table_by_position_cuts_tiles():
    backbone = TimmBackbone("mvitv2_tiny", out_strides=(8, 32)).eval()
    assert backbone.padding_constraints["size_divisibility"] == 224
    library = timm.create_model("mvitv2_tiny", features_only=True, out_indices=(1, 3)).eval()
    library.load_state_dict(backbone.timm_model.state_dict())
    images = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(
            list(backbone(images).values()), library(images), rtol=1e-4, atol=1e-4
        )
        shapes = [m.shape[-2:] for m in backbone(torch.randn(1, 3, 131, 301)).values()]
    assert shapes == [(17, 38), (5, 10)]
