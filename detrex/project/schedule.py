"""How long to train, on how many pictures at a time, and how large: a rule from the data.

What it rests on stands in the tutorial `own_data`. All of it is written into the project's config.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from detrex.errors import ConfigError
from detrex.threads import available_cores

LONGEST_EPOCHS, FEWEST_EPOCHS, COCO_IMAGES = 150, 12, 118_000
MOST_WARMUP = 500
"""Iterations until the learning rate is reached, if a tenth of the run is not less."""
DROP = 0.85
"""The share of the run after which the learning rate is a tenth."""
SMALLEST_OBJECT = 32
"""Pixels of a side that three quarters of the objects should have, for the finest levels to see."""

_LARGEST_SIDE = {"cuda": 1024, "cpu": 640}
_USUAL_SIDE = {"cuda": 800, "cpu": 480}
_ENLARGED_AT_MOST = 2.0
_RATIO = 1333 / 800  # of the longer side to the shorter, as for COCO
_GIB_PER_IMAGE = {"dino": 6.0, "mask_rcnn": 3.5, "retinanet": 3.0, "fcos": 3.0}
"""Estimates of a training step's memory, for each image of 800 x 1333 pixels with a ResNet-50."""
_RESNET50_GFLOPS = 33.4
_RATES = {"dino": 1e-4, "mask_rcnn": 2e-4, "retinanet": 2e-4, "fcos": 2e-4}
_BATCH_OF_RATES = 16
_FEWEST_ITERATIONS = 10  # for the parts of the schedule to be there
_LARGEST_BATCH = 16


@dataclass(frozen=True)
class Statistics:
    """What the rule reads off the data.

    Attributes:
        images: for training.
        shorter_sides: of the pictures, in pixels.
        object_sides: square root of each object's box, divided by the shorter side of its picture.
    """

    images: int
    shorter_sides: Sequence[float]
    object_sides: Sequence[float]


@dataclass(frozen=True)
class Machine:
    """What trains.

    Attributes:
        device: ``"cuda"`` or ``"cpu"``.
        memory: of one card in GiB; of no matter without one.
        cores: of the processor, that this process may use.
    """

    device: str
    memory: float
    cores: int

    @classmethod
    def here(cls) -> "Machine":
        """Describe the machine that this process runs on."""
        cores = available_cores()
        if not torch.cuda.is_available():
            return cls("cpu", 0.0, cores)
        memory = torch.cuda.get_device_properties(0).total_memory / 2**30
        return cls("cuda", memory, cores)


@dataclass(frozen=True)
class Schedule:
    """What is written into a config.

    Attributes:
        size: the pictures' shorter side in pixels.
        longest: the most pixels of the longer side.
        batch_size: pictures to an iteration.
        epochs: passes over the pictures.
        iterations: of the run.
        warmup: iterations until the learning rate is reached.
        drop: the iteration from which it is a tenth.
        eval_period: iterations from one evaluation to the next.
        learning_rate: of AdamW.
        freeze_at: stages of pretrained weights that stay as they are; 0 where there are none.
        workers: processes that load pictures.
    """

    size: int
    longest: int
    batch_size: int
    epochs: int
    iterations: int
    warmup: int
    drop: int
    eval_period: int
    learning_rate: float
    freeze_at: int
    workers: int


def plan(
    data: Statistics,
    detector: str,
    machine: Machine,
    *,
    pretrained: bool = True,
    gflops: float = _RESNET50_GFLOPS,
    size: int | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
) -> Schedule:
    """Choose a schedule.

    Args:
        data: for training.
        detector: ``"dino"``, ``"mask_rcnn"``, ``"retinanet"`` or ``"fcos"``.
        machine: what trains.
        pretrained: whether the backbone begins with weights.
        gflops: multiply-adds of the backbone in 1e9, for 640 x 640 pixels.
        size: the shorter side, in the place of the rule's.
        epochs: in the place of the rule's.
        batch_size: in the place of the rule's.

    Raises:
        ConfigError: a number is not of use.
    """
    for name, value, least in (("size", size, 32), ("epochs", epochs, 1), ("batch", batch_size, 1)):
        if value is not None and not (type(value) is int and least <= value <= 10_000):
            raise ConfigError(f"{name} is a whole number from {least} to 10000, got {value!r:.20}.")
    size = size or side_for(data, machine.device)
    longest = math.ceil(size * _RATIO)
    batch = batch_size or batch_for(detector, machine, size * longest, gflops)
    batch = min(batch, data.images)
    epochs = epochs or epochs_for(data.images)
    iterations = max(_FEWEST_ITERATIONS, math.ceil(epochs * data.images / batch))
    return Schedule(
        size=size,
        longest=longest,
        batch_size=batch,
        epochs=epochs,
        iterations=iterations,
        warmup=min(MOST_WARMUP, iterations // 10),
        drop=int(DROP * iterations),
        eval_period=max(1, math.ceil(iterations / 10)),
        learning_rate=float(f"{_RATES[detector] * math.sqrt(batch / _BATCH_OF_RATES):.2g}"),
        freeze_at=(2 if data.images < 1000 else 1) if pretrained else 0,
        workers=min(4, machine.cores // 2),
    )


def epochs_for(images: int) -> int:
    """Passes over the data: 12 for as much as COCO has, more for less, by the cube root.

    Args:
        images: for training.

    Example:
        >>> epochs_for(118_000), epochs_for(1000), epochs_for(100)
        (12, 59, 127)
    """
    wanted = FEWEST_EPOCHS * (COCO_IMAGES / images) ** (1 / 3)
    return round(min(LONGEST_EPOCHS, max(FEWEST_EPOCHS, wanted)))


def side_for(data: Statistics, device: str) -> int:
    """The shorter side of the pictures: theirs, and larger where the objects are small.

    Args:
        data: for training.
        device: a processor gets smaller pictures.

    Returns:
        A multiple of 32 pixels.
    """
    own = float(np.median(data.shorter_sides))
    side = min(own, _USUAL_SIDE[device])
    if len(data.object_sides):
        small = float(np.quantile(data.object_sides, 0.25)) * side
        wanted = side * SMALLEST_OBJECT / max(small, 1e-6)
        most = min(_LARGEST_SIDE[device], max(side, own * _ENLARGED_AT_MOST))
        side = min(max(side, wanted), most)
    return max(64, 32 * round(side / 32))


def batch_for(detector: str, machine: Machine, pixels: int, gflops: float) -> int:
    """Pictures to an iteration: a power of 2 that fits into four fifths of the card's memory.

    Args:
        detector: as in `plan`.
        machine: without a card, 4 small pictures or 2 large ones.
        pixels: of a picture.
        gflops: as in `plan`.
    """
    if machine.device == "cpu":
        return 4 if pixels <= 320 * 320 * _RATIO else 2
    cost = 0.5 + 0.5 * max(0.2, gflops / _RESNET50_GFLOPS)  # half of it is the detector's
    needed = _GIB_PER_IMAGE[detector] * cost * pixels / (800 * 1333)
    fitting = max(1.0, 0.8 * machine.memory / needed)
    return int(min(_LARGEST_BATCH, 2 ** math.floor(math.log2(fitting))))
