"""Sixty architectures, each the smallest of its family, as backbones by name alone.

`benchmarks/every_architecture.py` does the same for all.
"""

import logging

import pytest
import timm
import torch
import torchvision

from detrex.catalog.analysis import build_on_meta, wrong_levels
from detrex.catalog.table import packaged_file, read_catalog

COUNT = 60
SIZES = ((1, 1), (7, 500), (33, 65), (200, 333))
HERE = {"timm": timm.list_models(), "torchvision": torchvision.models.list_models()}
"""What the installed libraries have: an older one lacks some of the table."""


def smallest_of_each_family():
    """Names and libraries, those of the fewest parameters first."""
    families = {}
    for entry in sorted(read_catalog(packaged_file()).entries, key=lambda e: (e.params, e.name)):
        if entry.reason or entry.name not in HERE[entry.library]:
            continue
        if entry.library == "timm":
            home = timm.model_entrypoint(entry.name)
        else:
            home = torchvision.models.get_model_builder(entry.name)
        families.setdefault(home.__module__, entry)
    return [(entry.name, entry.library) for entry in list(families.values())[:COUNT]]


@pytest.mark.parametrize(("name", "library"), smallest_of_each_family())
def test_survey__gives_true_levels_of_any_size(name, library, caplog):
    caplog.set_level(logging.ERROR)
    backbone = build_on_meta(name, library, out_strides=(8, 16, 32))
    assert wrong_levels(backbone, (800, 1333)) == ""
    assert backbone.features.names == ["res3", "res4", "res5"]
    for size in SIZES:
        with torch.no_grad():
            outputs = backbone(torch.empty(1, 3, *size, device="meta"))
        for feature in backbone.features:
            height, width = (-(-side // feature.stride) for side in size)
            assert outputs[feature.name].shape == (1, feature.channels, height, width), size
