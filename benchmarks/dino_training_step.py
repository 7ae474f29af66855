"""DINO-R50's training step in units of detectron2's eager R50 forward and backward at its size.

    python -m benchmarks.dino_training_step [--size 480 640] [--objects 8] [--cpu-time] [--profile]

The unit has the same maps and the same frozen stem. `--cpu-time` counts the processor's seconds of
this process, which other people's work on the machine disturbs less; with several threads it is not
the time that passes. Peaks of memory are those of `benchmarks.memory`.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from detectron2.utils.events import EventStorage
from torch import nn

from benchmarks.detectors import batch, dino, training_step
from benchmarks.peers import detectron2_r50
from benchmarks.protocol import Results, parse, parser

UNIT = "detectron2's R50, forward and backward"


def main(words: Sequence[str] | None = None) -> None:
    """Measure the unit, a step without and with the optimizer, and our own backbone."""
    options = parser(__doc__)
    options.add_argument("--size", type=int, nargs=2, default=(480, 640))
    options.add_argument("--pictures", type=int, default=1)
    options.add_argument("--objects", type=int, default=8)
    options.add_argument("--cpu-time", action="store_true", help="seconds of the processor")
    options.add_argument("--profile", action="store_true", help="print what one step is made of")
    arguments = parse(options, words)
    samples = batch(tuple(arguments.size), arguments.pictures, arguments.objects)
    images = torch.stack([sample["image"] for sample in samples]).float() / 128 - 1
    model = dino().train()
    if arguments.profile:
        profile(losses_and_gradients(model, samples))
        return
    results = Results("dino_training_step", arguments)
    clock = time.process_time if arguments.cpu_time else time.perf_counter
    calls = {
        UNIT: maps_and_gradients(detectron2_r50().train(), images),
        "DINO's R50, forward and backward": maps_and_gradients(model.backbone, images),
        "DINO, forward and backward": losses_and_gradients(model, samples),
        "DINO, with AdamW": training_step(model, samples),
    }
    size = "{} x {}".format(*arguments.size)
    case = f"training step, {arguments.pictures} x {size}, {arguments.objects} objects"
    results.compare(case, calls, baseline=UNIT, clock=clock, warmup=1)


def maps_and_gradients(backbone: nn.Module, images: torch.Tensor) -> Callable[[], None]:
    """Give a forward and backward pass of a backbone."""

    def step() -> None:
        backbone.zero_grad()
        sum(level.mean() for level in backbone(images).values()).backward()

    return step


def losses_and_gradients(model: nn.Module, samples: list[dict[str, Any]]) -> Callable[[], None]:
    """Give a forward and backward pass of a detector."""

    def step() -> None:
        model.zero_grad()
        with EventStorage():
            losses = model(samples)
        torch.stack(list(losses.values())).sum().backward()

    return step


def profile(step: Callable[[], None]) -> None:
    """Print the operations of a step by the time that they take themselves."""
    step()
    with torch.profiler.profile(record_shapes=True) as found:
        step()
    for by_shape in (False, True):
        rows = found.key_averages(group_by_input_shape=by_shape)
        print(rows.table(sort_by="self_cpu_time_total", row_limit=40))


if __name__ == "__main__":
    main()
