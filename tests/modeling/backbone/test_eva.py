"""The original's path of the pyramid leads to the one class that there is."""

import pytest

from detrex.modeling import backbone
from detrex.modeling.backbone import eva


@pytest.mark.parametrize("name", eva.__all__)
def test_eva__hands_on(name):
    assert getattr(eva, name) is getattr(backbone, name)
