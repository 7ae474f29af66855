"""The first call of each module: when it began and ended, and the stride of what it gave."""

import pytest
from torch import nn

from detrex.modeling.backbone.inspection.call_order import record_calls
from detrex.modeling.backbone.inspection.meta_run import run_on_meta


class _Late(nn.Module):
    """Runs its second child before the first, that one twice, and its third never."""

    def __init__(self):
        super().__init__()
        self.last = nn.Conv2d(4, 4, 1)
        self.first = nn.Conv2d(3, 4, 3, 2, 1)
        self.unused = nn.Conv2d(4, 4, 1)
        self.down = nn.Sequential(nn.Conv2d(4, 4, 2, 2), nn.ReLU())

    def forward(self, x):
        x = self.down(self.first(x))
        return self.last(self.last(x)).flatten(2).transpose(1, 2)


@pytest.mark.parametrize("size", [(64, 96), (32, 32)])
def test_record_calls__order_and_strides(size):
    calls = record_calls(run_on_meta(_Late(), [size]))
    assert sorted(calls, key=lambda name: calls[name].entered) == [
        *("", "first", "down", "down.0", "down.1", "last")
    ]
    assert {name: call.level for name, call in calls.items()} == {
        **{"": None, "first": 1, "down": 2, "down.0": 2, "down.1": 2, "last": 2}
    }
    assert calls["down"].entered < calls["down.0"].entered < calls["down.1"].left
    assert calls["down.1"].left < calls["down"].left < calls["last"].entered
    assert calls["last"].left < calls[""].left
