import dataclasses

import pytest
from omegaconf import OmegaConf

from detrex.inference.source import Source


def test_source__stays_as_it_is():
    source = Source(OmegaConf.create(), (), "a run")
    assert source.facts.class_names == source.facts.category_ids == ()
    with pytest.raises(dataclasses.FrozenInstanceError):
        source.origin = "another"
