import torch

from benchmarks.deformable_attention import Stacked
from benchmarks.deformable_attention_cuda import both_passes
from detrex.layers.deform_sampling import grid_sample, rows


def test_kernels__compute_the_same():
    sizes = [(7, 5), (3, 2)]
    tokens = sum(height * width for height, width in sizes)
    generator = torch.Generator().manual_seed(0)
    value = torch.randn(2, tokens, 3, 4, dtype=torch.double, generator=generator)
    locations = torch.rand(2, 11, 3, 2, 5, 2, dtype=torch.double, generator=generator)
    weights = torch.rand(2, 11, 3, 2, 5, dtype=torch.double, generator=generator)
    grad = torch.randn(2, 11, 12, dtype=torch.double, generator=generator)
    expected = both_passes(Stacked, [value, locations, weights], grad, sizes)
    for kernel in (grid_sample, rows):
        found = both_passes(kernel, [value, locations, weights], grad, sizes)
        for got, want in zip(found, expected, strict=True):
            torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)
