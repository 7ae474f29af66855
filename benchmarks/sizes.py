"""Cost of an evaluation against the size of the picture and of the batch, with fitted exponents.

    python -m benchmarks.sizes [--quick]

Pictures are 3 : 4; the size is the longer side in pixels, so that an exponent of 2 means "in
proportion to the pixels". Batches are of pictures of 240 x 320; an exponent of 1 means that a
picture costs the same in every batch.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from benchmarks.detectors import Size, batch, dino, evaluation
from benchmarks.peers import detectron2_r50
from benchmarks.protocol import Results, parse, parser
from detrex.modeling import optimize_for_inference

SIDES = (320, 480, 640, 800, 1066, 1333)
BATCHES = (1, 2, 4, 8)


def main(words: Sequence[str] | None = None) -> None:
    """Measure sizes of pictures, then of batches."""
    options = parser(__doc__)
    options.add_argument("--sides", type=int, nargs="*", default=SIDES)
    options.add_argument("--batches", type=int, nargs="*", default=BATCHES)
    options.set_defaults(repeats=5)
    arguments = parse(options, words)
    if arguments.quick:
        arguments.sides, arguments.batches = arguments.sides[:3], arguments.batches[:3]
        arguments.repeats = min(arguments.repeats, 3)
    results = Results("sizes", arguments)
    networks = {"detectron2's ResNet-50": detectron2_r50().eval(), "DINO-R50": dino().eval()}
    for name, network in list(networks.items()):
        networks[f"{name}, optimized"] = optimize_for_inference(network)
    for side in arguments.sides:
        measure(
            results,
            f"longer side of a picture (pixels): {side}",
            networks,
            (side * 3 // 4, side),
            1,
        )
    for pictures in arguments.batches:
        measure(results, f"pictures in a batch: {pictures}", networks, (240, 320), pictures)


def measure(
    results: Results, case: str, networks: dict[str, nn.Module], size: Size, pictures: int
) -> None:
    """Compare networks on one batch; a backbone takes it as one tensor."""
    samples = batch(size, pictures)
    images = torch.stack([sample["image"] for sample in samples]).float() / 255

    def call(name: str, network: nn.Module) -> Any:
        return evaluation(network, samples if "DINO" in name else images)  # type: ignore[arg-type]

    calls = {name: call(name, network) for name, network in networks.items()}
    results.compare(case, calls, warmup=1)


if __name__ == "__main__":
    main()
