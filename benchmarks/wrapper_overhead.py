"""Time of `TimmBackbone` by stride over that of timm's own feature network with equal weights.

    python benchmarks/wrapper_overhead.py [--models resnet50 ...] [--rounds 100] [--size 224]

Both run in one process on the same image and take turns, twice a round; which goes first changes.
The figure is the median over the rounds of one round's ratio, so that what slows the machine down
for a while slows both. Parameters are counted too.
"""

import argparse
import statistics
import time

import timm
import torch
from torch import nn

from detrex.modeling.backbone import TimmBackbone

MODELS = ("resnet50", "convnext_tiny", "efficientnet_b0", "regnety_016")


def main() -> None:
    """Print one line a model."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    image = torch.randn(1, 3, arguments.size, arguments.size)
    print(f"{'model':<20} {'time':>8} {'middle half':>17} {'timm (ms)':>10} {'parameters':>21}")
    for name in arguments.models:
        ours = TimmBackbone(name, out_strides=(8, 16, 32)).eval()
        theirs = timm.create_model(name, features_only=True, out_indices=_indices(ours)).eval()
        theirs.load_state_dict(ours.timm_model.state_dict())
        ratios, times = compare(ours, theirs, image, arguments.rounds)
        low, median, high = statistics.quantiles(ratios, n=4)
        counts = f"{_count(ours)} / {_count(theirs)}"
        print(
            f"{name:<20} {median:>8.4f} {low:>8.4f}-{high:.4f} "
            f"{1000 * statistics.median(times):>10.1f} {counts:>21}",
            flush=True,
        )


def compare(
    ours: nn.Module, theirs: nn.Module, image: torch.Tensor, rounds: int
) -> tuple[list[float], list[float]]:
    """Let two networks take turns.

    Returns:
        For each round our time over theirs, and their time in seconds.
    """
    ratios, times = [], []
    for turn in range(rounds + 3):
        first, second = (ours, theirs) if turn % 2 else (theirs, ours)
        seconds = {ours: 0.0, theirs: 0.0}
        for network in (first, second, second, first):  # so that a drift cancels out
            seconds[network] += _seconds(network, image)
        if turn >= 3:  # the first rounds fill caches
            ratios.append(seconds[ours] / seconds[theirs])
            times.append(seconds[theirs] / 2)
    return ratios, times


@torch.no_grad()
def _seconds(network: nn.Module, image: torch.Tensor) -> float:
    start = time.perf_counter()
    network(image)
    return time.perf_counter() - start


def _indices(backbone: TimmBackbone) -> tuple[int, ...]:
    return tuple(int(feature.source) for feature in backbone.features)


def _count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


if __name__ == "__main__":
    main()
