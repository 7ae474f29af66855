import copy

import pytest
import torch
from torch import nn

from detrex.errors import BackboneError
from detrex.modeling.backbone import TimmBackbone, TorchvisionBackbone
from detrex.modeling.backbone.inspection.stages import Stage
from detrex.modeling.backbone.training.freezing import (
    KeepsFrozen,
    check_freeze_at,
    parameter_table,
    submodule_within,
)
from tests.reference.pyramid_network import Pyramid


def test_freeze__passes_over_what_is_not_there():
    network = Pyramid()
    present = Stage(("stem", "head"), ("stage0.0.bias", "gone")).freeze(network)
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


def test_freeze_modules__twice_keeps_both():
    class Net(KeepsFrozen):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1), nn.Linear(1, 1))

    net = Net()
    net.freeze_modules(["body.0"])
    net.freeze_modules(name for name in ("body.1", "body.0"))
    assert net.frozen_modules == ("body.0", "body.1")
    net.train()
    assert [layer.training for layer in net.body] == [False, False, True]
    assert [layer.weight.requires_grad for layer in net.body] == [False, False, True]
    assert Net().frozen_modules == ()


@pytest.mark.parametrize("freeze_at", [-2, 6, 1.0, "1", True])
def test_check_freeze_at(freeze_at):
    with pytest.raises(BackboneError, match="freeze_at must be an integer from 0"):
        check_freeze_at(freeze_at)


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


def test_parameter_table__counts_by_level():
    network = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 7), nn.Linear(7, 11, bias=False))
    network[0].requires_grad_(False)
    stages = [Stage(("0",)), Stage(("0", "1"))]
    table = parameter_table(network, stages, pyramid=nn.Linear(2, 2))
    assert [line.split() for line in table.splitlines()] == [
        ["level", "frozen", "trainable"],
        ["stem", "20", "0"],
        ["stage", "1", "0", "42"],
        ["other", "0", "77"],
        ["made", "levels", "0", "6"],
        ["all", "20", "125"],
    ]


def test_parameter_table__is_logged_once_with_true_totals(caplog):
    caplog.set_level("INFO")
    with torch.device("meta"):
        backbone = TimmBackbone("test_vit", out_strides=(8, 16), freeze_at=2)
    (record,) = [r for r in caplog.records if "trainable" in r.getMessage()]
    cold, warm = (int(t.replace(",", "")) for t in record.getMessage().split()[-2:])
    assert cold == sum(p.numel() for p in backbone.parameters() if not p.requires_grad)
    assert warm == sum(p.numel() for p in backbone.parameters() if p.requires_grad)
    assert cold > 0
