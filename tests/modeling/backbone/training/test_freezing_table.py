import torch
from torch import nn

from detrex.modeling.backbone import TimmBackbone
from detrex.modeling.backbone.training.freezing import FreezePlan
from detrex.modeling.backbone.training.freezing_table import freezing_table


def test_freezing_table__counts_by_level():
    network = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 7), nn.Linear(7, 11, bias=False))
    network[0].requires_grad_(False)
    stages = [FreezePlan(("0",)), FreezePlan(("0", "1"))]
    table = freezing_table(network, stages, made=nn.Linear(2, 2))
    assert [line.split() for line in table.splitlines()] == [
        ["level", "frozen", "trainable"],
        ["stem", "20", "0"],
        ["stage", "1", "0", "42"],
        ["other", "0", "77"],
        ["made", "levels", "0", "6"],
        ["all", "20", "125"],
    ]


def test_freezing_table__is_logged_once_with_true_totals(caplog):
    caplog.set_level("INFO")
    with torch.device("meta"):
        backbone = TimmBackbone("test_vit", out_strides=(8, 16), freeze_at=2)
    (record,) = [r for r in caplog.records if "trainable" in r.getMessage()]
    cold, warm = (int(t.replace(",", "")) for t in record.getMessage().split()[-2:])
    assert cold == sum(p.numel() for p in backbone.parameters() if not p.requires_grad)
    assert warm == sum(p.numel() for p in backbone.parameters() if p.requires_grad)
    assert cold > 0
