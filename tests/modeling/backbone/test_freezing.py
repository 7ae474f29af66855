import pytest
import torch
from torch import nn

from detrex.errors import BackboneError
from detrex.modeling.backbone.freezing import (
    FreezePlan,
    KeepsFrozen,
    check_freeze_at,
    plan_freezing,
)
from detrex.modeling.backbone.probing import look_at


def halving(channels_in, channels_out):
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 2, 2), nn.Conv2d(channels_out, channels_out, 1)
    )


class Pyramid(nn.Sequential):
    """Stem of stride 2, then stages of strides 4, 8, 16 and 32."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 2, 2)
        for index in range(4):
            self.add_module(f"stage{index}", halving(4, 4))


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
        (-1, ()),
        (0, ()),
        (1, ("stem",)),
        (2, ("stem", "stage0")),
        (3, ("stem", "stage0", "stage1")),
        (5, ("stem", "stage0", "stage1", "stage2", "stage3")),
    ],
)
def test_plan_freezing__counts_stages_by_stride(freeze_at, modules):
    plan = plan_freezing(look_at(Pyramid(), [(64, 96)]), freeze_at)
    assert plan == FreezePlan(modules, ())


def test_plan_freezing__takes_a_patch_stem_with_its_norm():
    network = nn.Sequential(nn.Conv2d(3, 4, 4, 4), nn.GroupNorm(1, 4), halving(4, 4), halving(4, 4))
    assert plan_freezing(look_at(network, [(64, 96)]), 1).modules == ("0", "1")


@pytest.mark.parametrize(("freeze_at", "blocks"), [(1, 0), (2, 2), (3, 4), (4, 6), (5, 8)])
def test_plan_freezing__counts_quarters_of_a_plain_network(freeze_at, blocks):
    plan = plan_freezing(look_at(Patches(), [(64, 64)]), freeze_at)
    expected = ("embed", *(f"blocks.{i}" for i in range(blocks)))
    assert plan.modules == (*expected, "norm") if freeze_at == 5 else expected
    assert plan.parameters == ("position",)


def test_apply__passes_over_what_is_not_there():
    network = Pyramid()
    present = FreezePlan(("stem", "head"), ("stage0.0.bias", "gone")).apply(network)
    assert present == ("stem",)
    assert not network.stem.training
    frozen = [name for name, p in network.named_parameters() if not p.requires_grad]
    assert frozen == ["stem.weight", "stem.bias", "stage0.0.bias"]


def test_keeps_frozen__over_train_and_eval():
    class Net(KeepsFrozen):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Dropout(), nn.Dropout())

    net = Net()
    net.frozen_modules = ("body.0",)
    net.eval()
    assert net.train() is net
    assert [net.training, net.body[0].training, net.body[1].training] == [True, False, True]


@pytest.mark.parametrize("freeze_at", [-2, 6, 1.0, "1", True])
def test_check_freeze_at(freeze_at):
    with pytest.raises(BackboneError, match="freeze_at must be an integer from 0"):
        check_freeze_at(freeze_at)
