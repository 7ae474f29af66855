import io
import logging
import math

import torch
import torch.nn.functional as F

from detrex.export.program import EXAMPLE, first_line, trace
from detrex.export.tensor_modules import TensorBackbone
from tests.reference.tiny_dino import TinyBackbone


class _SamePadding(TinyBackbone):
    """Sides as TensorFlow's convolutions fill them, by a ceiling, which no program saves."""

    def forward(self, x):
        side = x.shape[-1]
        return super().forward(F.pad(x, (0, (math.ceil(side / 3) - 1) * 3 + 5 - side)))


def test_trace__a_saved_program_takes_any_size():
    module = TensorBackbone(_SamePadding()).eval()
    program = trace(module, torch.rand(1, 3, *EXAMPLE))
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    loaded = torch.export.load(file).module()
    for size in ((5, 9), (64, 64), (301, 470)):
        image = torch.rand(1, 3, *size)
        with torch.no_grad():
            torch.testing.assert_close(loaded(image), module(image), rtol=1e-5, atol=1e-6)
    assert logging.root.manager.disable == logging.NOTSET


def test_first_line__is_short():
    assert first_line(ValueError("a\nb")) == "a"
    assert len(first_line(ValueError("a" * 999))) == 253
    assert first_line(ValueError()) == "no reason given"
