"""Deformable attention's weighted sum of samples on the processor, alone, kernel by kernel.

    python -m benchmarks.deformable_attention [--quick]

DINO's encoder and decoder at 480 x 640: 8 heads of 32 channels, 4 levels, 4 points. "rows" is the
default on a processor, "grid_sample" the former one; "stacked" keeps the samples of all levels and
weighs them in the end, as the usual pure PyTorch form does. Both passes are forward and backward.
`python -m benchmarks.deformable_attention_cuda` is for a card.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.deformable_attention_cuda import both_passes, forward, load_kernels, make_inputs
from benchmarks.protocol import Results, parse, parser

CASES = ("encoder, 480x640", "decoder, 480x640")


class Stacked:
    """The usual form in pure PyTorch, as a kernel."""

    @staticmethod
    def attend(
        value_NSHD: Tensor, locations_NQHLP2: Tensor, weights_NQHLP: Tensor, sizes: Any
    ) -> Tensor:
        """Sample every level, stack the samples, and weigh them."""
        N, _, H, D = value_NSHD.shape
        samples = []
        values = value_NSHD.split([height * width for height, width in sizes], dim=1)
        for level, ((height, width), value) in enumerate(zip(sizes, values, strict=True)):
            maps = value.permute(0, 2, 3, 1).reshape(N * H, D, height, width)
            grid = (2 * locations_NQHLP2[:, :, :, level] - 1).transpose(1, 2).flatten(0, 1)
            samples.append(F.grid_sample(maps, grid, align_corners=False))
        weights = weights_NQHLP.transpose(1, 2).flatten(0, 1).flatten(2).unsqueeze(1)
        sums = (torch.cat(samples, dim=-1) * weights).sum(-1)  # (N * H, D, Q)
        return sums.view(N, H * D, -1).transpose(1, 2)


def main(words: Sequence[str] | None = None) -> None:
    """Compare the kernels in both places and both passes."""
    options = parser(__doc__)
    options.set_defaults(repeats=15)
    arguments = parse(options, words)
    results = Results("deformable_attention", arguments)
    found = load_kernels()
    kernels = {
        "grid_sample": found["grid_sample"],
        "stacked": Stacked,
        "detrex rows": found["rows"],
    }
    for case in CASES:
        inputs = make_inputs(case, torch.float32, "cpu")
        for passes, function in {"forward": forward, "both passes": both_passes}.items():
            calls = {name: partial(function, kernel, *inputs) for name, kernel in kernels.items()}
            results.compare(f"{case}, {passes}", calls, "grid_sample")


if __name__ == "__main__":
    main()
