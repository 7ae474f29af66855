"""Deformable attention on a CUDA device: the Triton kernel against the others, checked and timed.

    python -m benchmarks.deformable_attention_cuda

Each case is checked first: sums and gradients against `grid_sample` in float64. Times are between
two events on the device, the first after everything before is done, so that waiting for the
processor counts. detectron2 may be missing.
"""

import sys
from collections.abc import Iterable
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from benchmarks.memory_use import ROOT
from benchmarks.protocol import Results, parse, parser
from detrex.benchmark.environment import installed
from detrex.benchmark.turns import Call, Comparison, first_line

HEADS, CHANNELS, POINTS = 8, 32, 4
SIZES = {
    "480x640": [(60, 80), (30, 40), (15, 20), (8, 10)],
    "800x1333": [(100, 167), (50, 84), (25, 42), (13, 21)],
}
# Images, their size, and queries; an encoder has one for each token.
CASES = {
    "encoder, 480x640": (1, "480x640", None),
    "decoder, 480x640": (1, "480x640", 1100),
    "encoder, 2 of 800x1333": (2, "800x1333", None),
    "decoder, 2 of 800x1333": (2, "800x1333", 1100),
}
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
# Bounds of the error, relative to the largest number of each result.
BOUND = {torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 8e-3}
KERNELS = {"grid_sample": "grid_sample", "rows": "rows", "triton": "triton_kernel"}


def load_kernels() -> dict[str, ModuleType]:
    """Import the kernels; without detectron2, pass by the packages around them that need it."""
    if find_spec("detectron2") is None:
        for name in ("detrex.layers", "detrex.utils"):
            package = sys.modules.setdefault(name, ModuleType(name))
            package.__path__ = [str(ROOT.joinpath(*name.split(".")))]
    folder = "detrex.layers.deform_sampling"
    return {name: import_module(f"{folder}.{module}") for name, module in KERNELS.items()}


def make_inputs(case: str, dtype: torch.dtype, device: str) -> tuple[list[Tensor], Tensor, Any]:
    """Make values, places and weights, a gradient of the sums, and the sizes of the levels.

    An encoder's queries sample around their own places, a decoder's around any, some pixels away.
    No place is within 0.02 pixels of where the gradient jumps.
    """
    images, image_size, queries = CASES[case]
    sizes = SIZES[image_size]
    generator = torch.Generator(device).manual_seed(0)
    normal = partial(torch.randn, generator=generator, device=device)
    uniform = partial(torch.rand, generator=generator, device=device)
    centres = _pixel_centres(sizes).to(device) if queries is None else uniform(queries, 2)
    tokens = sum(height * width for height, width in sizes)
    shape = (images, len(centres), HEADS, len(sizes), POINTS)
    width_height = torch.tensor(sizes, device=device)[:, None].flip(-1)
    pixels = centres[:, None, None, None] * width_height + 3 * normal(*shape, 2)
    locations = (pixels.floor() + 0.52 + 0.96 * uniform(*shape, 2)) / width_height
    weights = normal(*shape).flatten(-2).softmax(-1).view(shape)
    value = normal(images, tokens, HEADS, CHANNELS).to(dtype)
    grad = normal(images, len(centres), HEADS * CHANNELS).to(dtype)
    return [value, locations, weights], grad, sizes


def _pixel_centres(sizes: list[tuple[int, int]]) -> Tensor:
    centres = []
    for height, width in sizes:
        y, x = (torch.arange(0.5, size) / size for size in (height, width))
        centres.append(torch.cartesian_prod(y, x).flip(-1))
    return torch.cat(centres)


def forward(kernel: ModuleType, tensors: list[Tensor], grad: Tensor, sizes: Any) -> Tensor:
    """Give the sums."""
    with torch.no_grad():
        output: Tensor = kernel.attend(*tensors, sizes)
    return output


def both_passes(
    kernel: ModuleType, tensors: list[Tensor], grad: Tensor, sizes: Any
) -> tuple[Tensor, ...]:
    """Give the sums and the gradients of values, places and weights."""
    leaves = [tensor.detach().requires_grad_() for tensor in tensors]
    output = kernel.attend(*leaves, sizes)
    return output.detach(), *torch.autograd.grad(output, leaves, grad)


def check(
    case: str, kernels: dict[str, ModuleType], tensors: list[Tensor], grad: Tensor, sizes: Any
) -> dict[str, ModuleType]:
    """Print the largest errors of each kernel, and end with those of Triton's above the bound.

    Returns:
        The kernels that can run.
    """
    doubles = [tensor.double() for tensor in tensors]
    wanted = both_passes(kernels["grid_sample"], doubles, grad.double(), sizes)
    running = {}
    for name, kernel in kernels.items():
        try:
            results = both_passes(kernel, tensors, grad, sizes)
        except RuntimeError as error:  # out of memory, or not for this device
            print(f"{case}, {name}: {first_line(error)}")
            continue
        running[name] = kernel
        errors = [
            ((got.double() - want).abs().max() / want.abs().max()).item()
            for got, want in zip(results, wanted, strict=True)
        ]
        bounds = [BOUND[result.dtype] for result in results]
        listed = ", ".join(f"{error:.1e}" for error in errors)
        print(f"{case}, {name}: errors of sums, values, places, weights {listed}")
        if name == "triton" and not all(e <= b for e, b in zip(errors, bounds, strict=True)):
            raise SystemExit(f"Triton's kernel is off by more than {bounds} of the largest number.")
    return running


class Events:
    """A clock for `compare`: every second reading gives the time since the one before."""

    def __init__(self) -> None:
        self.start: torch.cuda.Event | None = None

    def __call__(self) -> float:
        """Give 0, or every second time the seconds since on the device."""
        event = torch.cuda.Event(enable_timing=True)
        if self.start is None:
            torch.cuda.synchronize()
            event.record()
            self.start = event
            return 0.0
        event.record()
        event.synchronize()
        start, self.start = self.start, None
        return start.elapsed_time(event) / 1000


def peak(call: Call) -> float:
    """Give how many MB more than before a call needs on the device at once."""
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    call()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 1e6


def measure(results: Results, case: str, kernels: dict[str, ModuleType], *inputs: Any) -> None:
    """Time the kernels, which take turns, and take the memory of each."""
    for passes, function in {"forward": forward, "both passes": both_passes}.items():
        calls = {name: partial(function, kernel, *inputs) for name, kernel in kernels.items()}
        title = f"{case}, {passes}"
        results.compare(title, calls, "grid_sample", warmup=3, clock=Events())
        memory = {name: [peak(call)] for name, call in calls.items()}
        results.keep(f"{title}, memory", Comparison(memory, "grid_sample", unit="MB"))


def compare_blocks(results: Results, case: str, kernel: Any, *inputs: Any) -> None:
    """Time the Triton kernel with blocks of other sizes and other numbers of warps."""

    def run(function: Any, block: int, warps: int) -> None:
        kernel.BLOCK, kernel.WARPS = block, warps
        function(kernel, *inputs)

    default = kernel.BLOCK, kernel.WARPS
    choices = [(block, warps) for block in (256, 512, 1024, 2048) for warps in (2, 4, 8)]
    for passes, function in {"forward": forward, "both passes": both_passes}.items():
        calls = {f"{b} by {w} warps": partial(run, function, b, w) for b, w in choices}
        baseline = f"{default[0]} by {default[1]} warps"
        results.compare(f"{case}, {passes}, blocks", calls, baseline, warmup=3, clock=Events())
    kernel.BLOCK, kernel.WARPS = default


def main(words: Iterable[str] | None = None) -> None:
    """Check and time every case in every dtype."""
    made = parser(__doc__)
    made.set_defaults(repeats=20)
    made.add_argument("--blocks", action="store_true", help="compare block sizes, and nothing else")
    arguments = parse(made, words)
    kernels = load_kernels()
    results = Results("deformable_attention_cuda", arguments)
    results.environment |= {"card": torch.cuda.get_device_name(), "triton": installed("triton")}
    for dtype in DTYPES[:1] if arguments.quick else DTYPES:
        for case in CASES:
            title = f"{case}, {str(dtype).removeprefix('torch.')}"
            inputs = make_inputs(case, dtype, "cuda")
            if arguments.blocks:
                compare_blocks(results, title, kernels["triton"], *inputs)
            else:
                measure(results, title, check(title, kernels, *inputs), *inputs)


if __name__ == "__main__":
    main()
