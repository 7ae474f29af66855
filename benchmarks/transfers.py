"""What an evaluation and a training step of a detector read back from a GPU, and send to it.

    python -m benchmarks.transfers [dino/dino_r50_4scale_12ep.py ...]

No GPU is needed: a fake one notes what would cross its bus, and where in the code. What a real card
keeps from the first call on, such as the sizes of levels, is counted here each time.
"""

import sys
from collections import Counter
from collections.abc import Iterable, Sequence

import torch
from detectron2.utils.events import EventStorage

from benchmarks.detectors import batch
from detrex.config import get_config
from detrex.config.building import build_on_meta
from detrex.engine.fake_card import FakeCard, Transfer, backward


def main(names: Sequence[str]) -> None:
    """Print the read-backs and uploads of each config's model."""
    for name in names or ["dino/dino_r50_4scale_12ep.py"]:
        for training in (False, True):
            card = run(name, training)
            step = "training step" if training else "evaluation"
            for what in ("read_backs", "uploads"):
                transfers = getattr(card, what)
                print(f"{name}, {step}: {len(transfers)} {what.replace('_', '-')}")
                print("\n".join(rows(transfers)))


def run(name: str, training: bool) -> FakeCard:
    """Run a model of a config on a picture of 480 x 640, with objects and gradients in training."""
    model = build_on_meta(get_config(name).model).train(training)
    with FakeCard() as card, torch.set_grad_enabled(training), EventStorage():
        outputs = card.take(model)(batch((480, 640), objects=8 if training else 0))
        if training:
            backward(sum(outputs.values()))
    return card


def rows(transfers: Iterable[Transfer]) -> list[str]:
    """Give one line for each place and operation, the most frequent first."""
    counts = Counter((transfer.place, transfer.operation) for transfer in transfers)
    return [f"  {count:4} x {place}  {what}" for (place, what), count in counts.most_common()]


if __name__ == "__main__":
    main(sys.argv[1:])
