import subprocess
import sys

import pytest

import detrex.modeling


def test_modeling__every_name_is_found():
    for name in detrex.modeling.__all__:
        assert callable(getattr(detrex.modeling, name))
    assert set(detrex.modeling.__all__) <= set(dir(detrex.modeling))


def test_modeling__unknown_name_suggests_near_ones():
    with pytest.raises(AttributeError, match=r"no attribute 'ChanelMapper'. Did you mean 'Channel"):
        detrex.modeling.ChanelMapper  # noqa: B018


def test_modeling__importing_it_loads_nothing():
    code = "import sys, detrex.modeling; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
