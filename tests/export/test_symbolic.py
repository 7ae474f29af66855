import sys

import torch
import torch.nn.functional as F
from torch import nn
from torch.export import Dim, export

from detrex.export.symbolic import symbolic_sizes


class _Windows(nn.Module):
    def forward(self, x):
        height, width = x.shape[-2:]
        padded = F.pad(x, (0, (7 - width % 7) % 7, 0, -height % 7))
        windows = padded.unflatten(3, (-1, 7)).unflatten(2, (-1, 7))
        return windows.mean((2, 4)), torch.ones_like(x) / float(max(height, width))


def test_sizes__of_windows_and_divisors_stay_symbols():
    module = _Windows()
    sizes = {"x": {2: Dim.AUTO, 3: Dim.AUTO}}
    with symbolic_sizes(module):
        program = export(module, (torch.rand(1, 2, 23, 37),), dynamic_shapes=sizes, strict=False)
    run = program.module(check_guards=False)
    for size in ((20, 44), (21, 21), (8, 49)):
        image = torch.rand(1, 2, *size)
        got, (windows, share) = run(image), module(image)
        torch.testing.assert_close(got[0], windows)
        if size[0] < size[1]:  # as in the example
            torch.testing.assert_close(got[1], share)


def test_names__are_numbers_types_for_all_else_and_given_back():
    module = _Windows()
    file = sys.modules[type(module).__module__]
    with symbolic_sizes(module):
        kind = vars(file)["float"]
        assert isinstance(1.5, kind)
        assert not isinstance(1, kind)
        assert [(value, value.__class__.__name__) for value in (kind("2.5"), kind())] == [
            (2.5, "float"),
            (0.0, "float"),
        ]
        assert vars(file)["int"]("12", 3) == 5
    assert "float" not in vars(file)
    assert "int" not in vars(file)
