"""Memory: the most that a process has resident, and what autograd keeps for the backward pass.

    python -m benchmarks.memory [--quick]

Each peak is that of a process of its own, which imports the package, builds a network and runs it
twice on one picture of 480 x 640; the first row imports alone. Bytes kept are counted once a
storage, parameters left out.
"""

import argparse
from collections.abc import Callable, Sequence
from typing import Any

from detectron2.utils.events import EventStorage

from benchmarks.memory_use import peak_rss_of, saved_bytes
from benchmarks.protocol import Results, parse, parser
from detrex.benchmark.turns import Comparison, first_line

IMPORTS = "imports alone"
PEAKS = {
    "DINO-R50 evaluation": ("dino", "evaluation"),
    "DINO-R50 evaluation, optimized": ("dino", "optimized"),
    "DINO-R50 training step": ("dino", "training_step"),
    "Mask R-CNN evaluation": ("mask_rcnn", "evaluation"),
    "Mask R-CNN training step": ("mask_rcnn", "training_step"),
}


def main(words: Sequence[str] | None = None) -> None:
    """Measure peaks, then what is kept."""
    options = parser(__doc__)
    options.add_argument("--size", type=int, nargs=2, default=(480, 640))
    options.add_argument("--run", nargs="+", help=argparse.SUPPRESS)
    arguments = parse(options, words)
    if arguments.run:
        run(arguments.run, tuple(arguments.size))
        return
    results = Results("memory", arguments)
    of = "{} x {}".format(*arguments.size)
    results.keep(f"peak of a process, {of}", peaks(arguments))
    results.keep(f"kept for the backward pass, {of}", kept(tuple(arguments.size)))


def peaks(arguments: argparse.Namespace) -> Comparison:
    """Run each program by itself; the short version leaves Mask R-CNN out."""
    size = ["--size", *map(str, arguments.size), "--threads", str(arguments.threads), "--run"]
    samples, left_out = {}, {}
    for name, what in {IMPORTS: ("nothing",), **PEAKS}.items():
        if arguments.quick and "mask_rcnn" in what:
            continue
        try:
            samples[name] = [float(peak_rss_of("benchmarks.memory", [*size, *what]))]
        except RuntimeError as error:
            left_out[name] = first_line(error)
    return Comparison(samples, IMPORTS, left_out, unit="bytes")


def run(what: Sequence[str], size: tuple[int, int]) -> None:
    """Be the program whose memory is measured."""
    from benchmarks import detectors

    if what == ["nothing"]:
        return
    model = getattr(detectors, what[0])()
    samples = detectors.batch(size)
    if what[1] == "optimized":
        from detrex.modeling import optimize_for_inference

        model = optimize_for_inference(model.eval())
    make = detectors.training_step if what[1] == "training_step" else detectors.evaluation
    call = make(model, samples)
    call()
    call()


def kept(size: tuple[int, int]) -> Comparison:
    """Count what the forward pass of a training step keeps."""
    from benchmarks.detectors import batch, dino, mask_rcnn

    samples = batch(size)
    models: dict[str, Callable[[], Any]] = {
        "detectron2's Mask R-CNN": mask_rcnn,
        "Mask R-CNN, ResNet-50 of this package": lambda: mask_rcnn(ours=True),
        "DINO-R50": dino,
    }
    found = {}
    for name, build in models.items():
        model = build().train()
        with EventStorage():
            found[name] = [float(saved_bytes(model, lambda net=model: net(samples)))]
    return Comparison(found, "detectron2's Mask R-CNN", unit="bytes")


if __name__ == "__main__":
    main()
