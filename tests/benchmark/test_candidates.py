import pytest

from detrex.benchmark.candidates import (
    CANDIDATES,
    IMAGENET,
    KINDS,
    NARROW_RESNET,
    RANDOM,
    Candidate,
    find_candidates,
    study_config,
)
from detrex.catalog.describe import find_entry
from detrex.errors import BackboneError, ConfigError


def test_candidates__are_sixteen_of_all_kinds_and_the_catalog_has_them():
    random = [candidate for candidate in CANDIDATES if candidate.weights == RANDOM]
    assert len({candidate.name for candidate in random}) == len(random) == 16
    assert {candidate.kind for candidate in CANDIDATES} == set(KINDS)
    for candidate in CANDIDATES:
        if candidate.name != NARROW_RESNET:
            assert "tiles" not in find_entry(candidate.name).sizes, candidate.name
    titles = [candidate.title for candidate in CANDIDATES]
    assert len(set(titles)) == len(titles)


def test_find_candidates__by_name():
    found = find_candidates(["convnext_pico", "mobilenet_v2", "convnext_pico"])
    assert [(c.name, c.kind, c.weights) for c in found] == [
        ("convnext_pico", "", RANDOM),
        ("mobilenet_v2", KINDS[1], RANDOM),
        ("mobilenet_v2", KINDS[1], IMAGENET),
    ]
    assert find_candidates() == list(CANDIDATES)
    with pytest.raises(BackboneError, match=r"'resnet81'\. Did you mean"):
        find_candidates(["resnet18", "resnet81"])


def test_study_config__differs_in_the_backbone_alone(tmp_path):
    plain = study_config(Candidate(NARROW_RESNET), tmp_path)
    other = study_config(Candidate("vit_tiny_patch16_224"), tmp_path)
    assert list(other.model.backbone.in_features) == ["res3", "res4", "res5"]
    for cfg in (plain, other):
        del cfg.model.backbone.bottom_up
    assert {**other} == {**plain}


def test_study_config__weights_that_nobody_has(tmp_path):
    with pytest.raises(ConfigError, match=r"no weights of resnet18 .*, only of mobilenet_v2: "):
        study_config(Candidate("resnet18", weights=IMAGENET), tmp_path)
