import argparse

import pytest
import torch

from benchmarks.backbones import family, variants
from benchmarks.protocol import Results


def test_variants__errors_beside_the_plain_network():
    image = torch.randn(1, 3, 64, 96)
    options = {
        "detrex optimized": {},
        "detrex bf16": {"dtype": torch.bfloat16},
        "detrex broken": {"dtype": "no such"},
    }
    with torch.no_grad():
        calls, errors = variants("resnet18", image, options, out_strides=(8, 16, 32))
        assert all(m.shape[0] == 1 for m in calls["detrex optimized"]().values())
    assert isinstance(calls["detrex broken"], str)
    assert list(errors.samples) == ["detrex optimized", "detrex bf16"]
    assert max(errors.samples["detrex optimized"]) < 1e-4
    assert 1e-4 < max(errors.samples["detrex bf16"]) < 0.1
    assert all(len(by_map) == 3 for by_map in errors.samples.values())


@pytest.mark.parametrize("name", ["efficientnet_b0"])
def test_family__beside_timm(name, tmp_path, capsys):
    arguments = argparse.Namespace(results=tmp_path, threads=1, repeats=1, quick=True)
    results = Results("backbones", arguments)
    with torch.no_grad():
        family(results, name, torch.randn(1, 3, 64, 96), "64 x 96")
    assert {row.name for row in results.rows} == {"timm", "detrex", "detrex optimized"}
    assert all(row.value for row in results.rows)
    assert f"{name}, 64 x 96" in capsys.readouterr().out
