"""The stages of a network, by the order in which its modules run."""

import itertools

import pytest
import torch
from torch import nn

from detrex.modeling.backbone import TimmBackbone
from detrex.modeling.backbone.inspection.meta_run import run_on_meta
from detrex.modeling.backbone.inspection.stages import Stage, find_stages
from tests.reference.pyramid_network import Pyramid, halving


class Patches(nn.Module):
    """A plain network of stride 16: an embedding with a position table, and eight blocks."""

    def __init__(self):
        super().__init__()
        self.position = nn.Parameter(torch.zeros(1, 4, 1, 1))
        self.embed = nn.Conv2d(3, 4, 16, 16)
        self.blocks = nn.ModuleList(nn.Conv2d(4, 4, 1) for _ in range(8))
        self.norm = nn.GroupNorm(1, 4)

    def forward(self, x):
        x = self.embed(x) + self.position
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


@pytest.mark.parametrize(
    ("freeze_at", "modules"),
    [
        (1, ("stem",)),
        (2, ("stem", "stage0")),
        (3, ("stem", "stage0", "stage1")),
        (5, ("stem", "stage0", "stage1", "stage2", "stage3")),
    ],
)
def test_find_stages__counts_stages_by_stride(freeze_at, modules):
    plan = find_stages(run_on_meta(Pyramid(), [(64, 96)]))[freeze_at - 1]
    assert plan == Stage(modules, ())


def test_find_stages__takes_a_patch_stem_with_its_norm():
    network = nn.Sequential(nn.Conv2d(3, 4, 4, 4), nn.GroupNorm(1, 4), halving(4, 4), halving(4, 4))
    assert find_stages(run_on_meta(network, [(64, 96)]))[0].modules == ("0", "1")


@pytest.mark.parametrize(("freeze_at", "blocks"), [(1, 0), (2, 2), (3, 4), (4, 6), (5, 8)])
def test_find_stages__counts_quarters_of_a_plain_network(freeze_at, blocks):
    plan = find_stages(run_on_meta(Patches(), [(64, 64)]))[freeze_at - 1]
    expected = ("embed", *(f"blocks.{i}" for i in range(blocks)))
    assert plan.modules == ((*expected, "norm") if freeze_at == 5 else expected)
    assert plan.parameters == ("position",)


def test_find_stages__each_holds_those_before_it():
    meta_run = run_on_meta(Patches(), [(64, 96)])
    stages = find_stages(meta_run)
    assert len(stages) == 5
    names = [name for name, _ in meta_run.twin.named_parameters()]
    held = [{name for name in names if stage.holds(name)} for stage in stages]
    assert all(few <= many for few, many in itertools.pairwise(held))
    assert held[0] == {"position", "embed.weight", "embed.bias"}
    assert held[-1] == set(names)


def test_find_stages__takes_the_tables_of_a_network_run_by_another_method():
    with torch.device("meta"):
        backbone = TimmBackbone("vit_tiny_patch16_224", out_strides=(16,), freeze_at=1, depth=4)
        whole = TimmBackbone("vit_tiny_patch16_224", out_strides=(16,), freeze_at=5, depth=4)
    frozen = {n for n, p in backbone.timm_model.named_parameters() if not p.requires_grad}
    assert {"model.pos_embed", "model.cls_token", "model.patch_embed.proj.weight"} <= frozen
    assert not any("blocks" in name for name in frozen)
    assert not any(p.requires_grad for p in whole.timm_model.parameters())
