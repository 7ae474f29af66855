import copy
import itertools

import pytest
import torch
from torch import nn

from detrex.errors import BackboneError
from detrex.modeling.backbone import TimmBackbone, TorchvisionBackbone
from detrex.modeling.backbone.inspection.meta_run import look_at
from detrex.modeling.backbone.training.freezing import (
    FreezePlan,
    KeepsFrozen,
    check_freeze_at,
    plan_freezing,
    plan_stages,
    submodule_within,
)


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
    plan = plan_freezing(plan_stages(look_at(Pyramid(), [(64, 96)])), freeze_at)
    assert plan == FreezePlan(modules, ())


def test_plan_freezing__takes_a_patch_stem_with_its_norm():
    network = nn.Sequential(nn.Conv2d(3, 4, 4, 4), nn.GroupNorm(1, 4), halving(4, 4), halving(4, 4))
    assert plan_freezing(plan_stages(look_at(network, [(64, 96)])), 1).modules == ("0", "1")


@pytest.mark.parametrize(("freeze_at", "blocks"), [(1, 0), (2, 2), (3, 4), (4, 6), (5, 8)])
def test_plan_freezing__counts_quarters_of_a_plain_network(freeze_at, blocks):
    plan = plan_freezing(plan_stages(look_at(Patches(), [(64, 64)])), freeze_at)
    expected = ("embed", *(f"blocks.{i}" for i in range(blocks)))
    assert plan.modules == ((*expected, "norm") if freeze_at == 5 else expected)
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


def test_plan_stages__each_holds_those_before_it():
    look = look_at(Patches(), [(64, 96)])
    stages = plan_stages(look)
    assert stages == [plan_freezing(plan_stages(look), freeze_at) for freeze_at in (1, 2, 3, 4, 5)]
    names = [name for name, _ in look.twin.named_parameters()]
    held = [{name for name in names if stage.holds(name)} for stage in stages]
    assert all(few <= many for few, many in itertools.pairwise(held))
    assert held[0] == {"position", "embed.weight", "embed.bias"}
    assert held[-1] == set(names)


def test_plan_freezing__takes_the_tables_of_a_network_run_by_another_method():
    with torch.device("meta"):
        backbone = TimmBackbone("vit_tiny_patch16_224", out_strides=(16,), freeze_at=1, depth=4)
        whole = TimmBackbone("vit_tiny_patch16_224", out_strides=(16,), freeze_at=5, depth=4)
    frozen = {n for n, p in backbone.timm_model.named_parameters() if not p.requires_grad}
    assert {"model.pos_embed", "model.cls_token", "model.patch_embed.proj.weight"} <= frozen
    assert not any("blocks" in name for name in frozen)
    assert not any(p.requires_grad for p in whole.timm_model.parameters())


@pytest.mark.parametrize(
    ("wrapper", "name", "keywords"),
    [
        (TimmBackbone, "test_vit", {"drop_path_rate": 0.9, "proj_drop_rate": 0.5}),
        (TimmBackbone, "test_efficientnet", {"drop_path_rate": 0.9}),
        (TorchvisionBackbone, "convnext_tiny", {"stochastic_depth_prob": 0.9}),
    ],
)
def test_frozen__parts_are_quiet_and_bit_equal_after_steps(wrapper, name, keywords):
    torch.manual_seed(0)
    backbone = wrapper(name, out_strides=(8, 16), freeze_at=3, **keywords).eval().train()
    frozen = [backbone.get_submodule(module) for module in backbone.frozen_modules]
    droppers = [
        m
        for part in frozen
        for m in part.modules()
        if "drop" in type(m).__name__.lower() or "stochastic" in type(m).__name__.lower()
    ]
    assert droppers
    assert not any(m.training for part in frozen for m in part.modules())
    before = [copy.deepcopy(part.state_dict()) for part in frozen]
    optimizer = torch.optim.AdamW(backbone.parameters(), lr=0.1, weight_decay=0.5)
    for _ in range(3):
        optimizer.zero_grad()
        sum(m.square().mean() for m in backbone(torch.randn(2, 3, 64, 96)).values()).backward()
        optimizer.step()
    for part, state in zip(frozen, before, strict=True):
        assert all(torch.equal(t, state[n]) for n, t in part.state_dict().items())


class Wrapper(nn.Module):
    """Keeps a module under a name of its own, as DistributedDataParallel does."""

    def __init__(self, inner, name):
        super().__init__()
        self.add_module(name, inner)


@pytest.mark.parametrize("name", ["_orig_mod", "module", "_fsdp_wrapped_module"])
def test_submodule_within__passes_through_wrappers(name):
    network = Pyramid()
    stem = network.stage1[0]
    network.stage1 = Wrapper(network.stage1, name)
    assert submodule_within(Wrapper(network, name), "stage1.0") is stem
    assert submodule_within(network, "stage1") is network.stage1
    assert submodule_within(Wrapper(Wrapper(network, name), "module"), "stage1.0") is stem


def test_submodule_within__prefers_the_name_itself():
    network = nn.ModuleDict({"module": nn.ModuleDict({"a": nn.ReLU()})})
    assert submodule_within(network, "module.a") is network["module"]["a"]


def test_submodule_within__that_is_gone():
    with pytest.raises(BackboneError, match=r"'stage7.0' is frozen, but Pyramid has no such"):
        submodule_within(Pyramid(), "stage7.0")


@pytest.mark.parametrize("wrapper", [TimmBackbone, TorchvisionBackbone])
@pytest.mark.parametrize("whole", [True, False])
def test_train__keeps_compiled_parts_frozen(wrapper, whole):
    backbone = wrapper("resnet18", out_strides=(8,), freeze_at=2)
    (prefix,) = (name for name, child in backbone.named_children() if child is backbone.network)
    stem, later = backbone.network.bn1, backbone.network.layer2
    compiled = backbone
    if whole:
        compiled = torch.compile(backbone, backend="eager")
    else:
        setattr(backbone, prefix, torch.compile(backbone.network, backend="eager"))
    for model in (compiled, copy.deepcopy(compiled)):
        assert model.train() is model
        flags = {n.replace("_orig_mod.", ""): m.training for n, m in model.named_modules()}
        assert not flags[f"{prefix}.bn1"]
        assert flags[f"{prefix}.layer2.0.bn1"]
    assert (stem.training, later.training) == (False, True)
    assert compiled(torch.randn(2, 3, 32, 40))["res3"].shape == (2, 128, 4, 5)
