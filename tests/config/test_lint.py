"""Every kind of mistake in a lazy call is found, and nothing else is called one."""

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.solver.build import get_default_optimizer_params
from omegaconf import DictConfig
from torch import nn

from detrex.config.lint import check_targets, lazy_calls


def needs_both(first, second, *, third=3):
    return first, second, third


def takes_any(first=1, **others):
    return first, others


def config(**entries):
    return DictConfig(entries, flags={"allow_objects": True})


@pytest.mark.parametrize(
    "node",
    [
        L(needs_both)(first=1, second=2),
        L(takes_any)(anything=1),
        L(nn.Sequential)(),
        {"_target_": "torch.nn.Linear", "in_features": 3, "out_features": 5},
        L(torch.optim.AdamW)(params=L(get_default_optimizer_params)(base_lr="${..lr}"), lr=1e-4),
        [L(nn.ReLU)(), L(nn.Linear)(in_features=3, out_features="${width}")],
        None,
        "???",
    ],
)
def test_check_targets__right_is_silent(node):
    assert check_targets(config(node=node, width=7)) == []


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        (
            L(nn.Dropout)(pp=0.1, inplac=True),
            [
                "node: Dropout() has no argument 'inplac'. Did you mean 'inplace'?",
                "node: Dropout() has no argument 'pp'. Did you mean 'p'?",
            ],
        ),
        (
            L(needs_both)(first=1),
            ["node: needs_both() needs the argument 'second', which is not given."],
        ),
        (
            {"deep": [L(nn.ReLU)(inplac=True)]},
            ["node.deep[0]: ReLU() has no argument 'inplac'. Did you mean 'inplace'?"],
        ),
    ],
)
def test_check_targets__mistakes(node, expected):
    assert check_targets(config(node=node)) == expected


def test_check_targets__absent_target():
    (mistake,) = check_targets(config(node={"_target_": "torch.nn.Linearr"}))
    assert mistake.startswith("node calls 'torch.nn.Linearr', which cannot be imported")


def test_check_targets__reference_to_nothing():
    (mistake,) = check_targets(config(node=L(nn.ReLU)(inplace="${absent.key}")))
    assert mistake.startswith("node.inplace refers to something that is not there")


def test_check_targets__reference_to_maps_that_a_backbone_does_not_name():
    node = L(takes_any)(bottom_up=L(takes_any)(first=1), others="${.bottom_up.out_features}")
    (mistake,) = check_targets(config(node=node))
    assert mistake.startswith("node.others refers to something that is not there: ")
    assert mistake.endswith(": say there which maps it gives, as in out_features=['res3', 'res4'].")


def test_check_targets__all_mistakes_at_once():
    cfg = config(a=L(nn.ReLU)(x=1, y=2), b=L(needs_both)())
    assert len(check_targets(cfg)) == 4


def test_check_targets__root_call():
    assert check_targets(L(nn.ReLU)(inplac=True))[0].startswith("config: ReLU()")


def test_lazy_calls__lists_paths_once():
    cfg = config(a=L(needs_both)(first=[L(takes_any)(), L(takes_any)()]), b="${a}")
    assert [path for path, _ in lazy_calls(cfg, "")] == ["a", "a.first[0]", "a.first[1]"]
