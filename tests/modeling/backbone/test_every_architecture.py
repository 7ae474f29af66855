"""Sixty architectures, each the smallest of its family, as backbones by name alone.

`benchmarks/every_architecture.py` does the same for all.
"""

import pytest
import timm
import torchvision

from detrex.cli.catalogue import packaged_file, read_catalogue
from detrex.modeling.backbone.survey import survey

COUNT = 60
HERE = {"timm": timm.list_models(), "torchvision": torchvision.models.list_models()}
"""What the installed libraries have: an older one lacks some of the table."""


def smallest_of_each_family():
    """Names and libraries, those of the fewest parameters first."""
    families = {}
    for entry in sorted(read_catalogue(packaged_file()).entries, key=lambda e: (e.params, e.name)):
        if entry.reason or entry.name not in HERE[entry.library]:
            continue
        if entry.library == "timm":
            home = timm.model_entrypoint(entry.name)
        else:
            home = torchvision.models.get_model_builder(entry.name)
        families.setdefault(home.__module__, entry)
    return [(entry.name, entry.library) for entry in list(families.values())[:COUNT]]


@pytest.mark.parametrize(("name", "library"), smallest_of_each_family())
def test_survey__gives_true_levels(name, library):
    row = survey(name, library)
    assert row["ok"], row["reason"]
    assert list(row["levels"]) == ["p3", "p4", "p5"]
