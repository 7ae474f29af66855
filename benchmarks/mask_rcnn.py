"""detectron2's Mask R-CNN with its own ResNet-50 and with one of this package.

    python -m benchmarks.mask_rcnn [--quick]

Evaluation and a training step (8 objects, AdamW) of one picture of 480 x 640. Both have the same
random weights, which find 100 objects, the most that there may be; "optimized" is the whole
detector after `optimize_for_inference`.
"""

from collections.abc import Sequence
from typing import Any

from benchmarks.detectors import batch, evaluation, mask_rcnn, training_step
from benchmarks.peers import attempt
from benchmarks.protocol import Results, parse, parser
from detrex.modeling import optimize_for_inference


def main(words: Sequence[str] | None = None) -> None:
    """Compare both passes."""
    options = parser(__doc__)
    options.add_argument("--size", type=int, nargs=2, default=(480, 640))
    arguments = parse(options, words)
    if arguments.quick:
        arguments.repeats = min(3, arguments.repeats)
    results = Results("mask_rcnn", arguments)
    size = tuple(arguments.size)
    samples = batch(size)

    def optimized(*, ours: bool) -> Any:
        return evaluation(optimize_for_inference(mask_rcnn(ours=ours).eval()), samples)

    calls = {
        "detectron2": evaluation(mask_rcnn(), samples),
        "detrex": evaluation(mask_rcnn(ours=True), samples),
        "detrex optimized, detectron2's ResNet": attempt(lambda: optimized(ours=False), "torch"),
        "detrex optimized": attempt(lambda: optimized(ours=True), "torch"),
    }
    results.compare(f"Mask R-CNN evaluation, {size[0]} x {size[1]}", calls, warmup=1)
    calls = {
        "detectron2": training_step(mask_rcnn(), samples),
        "detrex": training_step(mask_rcnn(ours=True), samples),
    }
    results.compare(f"Mask R-CNN training step, {size[0]} x {size[1]}", calls, warmup=1)


if __name__ == "__main__":
    main()
