import timm
import torch

from detrex.catalog import describe as describing
from detrex.catalog.describe import describe, describe_anew
from detrex.catalog.table import Entry
from detrex.modeling.backbone import TimmBackbone


def test_describe__frozen_counts_are_those_of_a_real_backbone():
    facts = describe(Entry("test_vit", "timm", "flat", (16,)), (64, 96))
    for freeze_at, count in facts["frozen_params"].items():
        backbone = TimmBackbone("test_vit", out_strides=(8, 16, 32), freeze_at=freeze_at)
        parameters = backbone.timm_model.parameters()
        assert count == sum(p.numel() for p in parameters if not p.requires_grad)
    network = timm.create_model("test_vit", features_only=True, out_indices=(5,))
    assert facts["params"] == sum(p.numel() for p in network.parameters())
    assert facts["params_derived"] > 0
    assert facts["fitted_size"] == [64, 96]


def test_describe__tiles():
    facts = describe(Entry("levit_128s", "timm", "partial", (16,)), (300, 500))
    assert facts["tiles"] == 6
    assert facts["padding_constraints"]["size_divisibility"] == 224
    assert torch.get_default_device().type == "cpu"


def test_describe_anew__whatever_was_found_before(monkeypatch):
    monkeypatch.setattr(describing, "find_description", lambda entry, size: {"name": "old"})
    entry = Entry("test_vit", "timm", "flat", (16,))
    assert describe(entry, (64, 96)) == {"name": "old"}
    assert describe_anew(entry, (64, 96))["name"] == "test_vit"
