import dataclasses

import pytest
from omegaconf import OmegaConf

from detrex.inference.source import Source


def test_source__stays_as_it_is():
    source = Source(OmegaConf.create(), (), "a run")
    assert source.class_names == source.category_ids == ()
    with pytest.raises(dataclasses.FrozenInstanceError):
        source.origin = "another"
