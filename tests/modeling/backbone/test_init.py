import detrex.modeling.backbone as backbone


def test_all__is_complete_and_sorted():
    assert all(hasattr(backbone, name) for name in backbone.__all__)
    assert backbone.__all__ == sorted(backbone.__all__)
