import importlib.util

import pytest

from detrex.errors import ConfigError
from detrex.export.formats import FORMATS, require


@pytest.mark.parametrize(("name", "extra"), [("onnx", "export"), ("openvino", "openvino")])
def test_require__missing_packages_name_the_extra(name, extra, monkeypatch):
    found = importlib.util.find_spec
    missing = FORMATS[name].packages[-1]
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda package: None if package == missing else found(package)
    )
    with pytest.raises(ConfigError) as caught:
        require(name)
    assert f"of which {missing} is not installed: `pip install 'detrex[{extra}]'`" in str(
        caught.value
    )


def test_require__torch_export_needs_nothing(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert require("torch-export").suffix == ".pt2"
