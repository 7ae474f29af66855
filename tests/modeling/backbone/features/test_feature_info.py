import pytest
import torch
from torch.testing import assert_close

from detrex.errors import BackboneError
from detrex.modeling.backbone.features.feature_info import FeatureInfo, FeatureMaps

SIZE = (48, 80)


@pytest.mark.parametrize("prefix", [0, 1, 5])
def test_to_map__lays_tokens_on_their_grid(prefix):
    feature = FeatureInfo("p3", "blocks.2", 7, 16, "NLC", prefix)
    raw = torch.randn(2, prefix + 3 * 5, 7)
    fmap = feature.to_map(raw, SIZE)
    for y in range(3):
        for x in range(5):
            assert_close(fmap[:, :, y, x], raw[:, prefix + 5 * y + x], rtol=0, atol=0)


def test_to_map__permutes_nhwc_and_leaves_nchw():
    raw = torch.randn(2, 3, 5, 7)
    assert FeatureInfo("a", 0, 3, 16).to_map(raw, SIZE) is raw
    fmap = FeatureInfo("a", 0, 7, 16, "NHWC").to_map(raw, SIZE)
    assert_close(fmap, torch.einsum("nhwc->nchw", raw), rtol=0, atol=0)
    assert fmap.is_contiguous()


def test_to_map__refuses_tokens_of_another_size():
    feature = FeatureInfo("p3", "blocks.2", 7, 16, "NLC")
    with pytest.raises(BackboneError, match=r"'p3' has 14 tokens .* a multiple of 16"):
        feature.to_map(torch.zeros(2, 14, 7), SIZE)


def test_feature_table__gives_maps_in_its_order():
    table = FeatureMaps((FeatureInfo("b", 3, 5, 16), FeatureInfo("a", 1, 3, 8)))
    maps = table.to_maps({"a": torch.zeros(1), "b": torch.ones(1), "c": torch.ones(1)}, SIZE)
    assert list(maps) == table.names == ["b", "a"]
    assert table.channels == {"b": 5, "a": 3}
    assert table.strides == {"b": 16, "a": 8}
    assert str(table) == "b = 3 (5 channels, stride 16), a = 1 (3 channels, stride 8)"
