"""What a step of the moving average costs, beside a walk through the names of the model.

    python -m benchmarks.ema_step [resnet50 vit_base_patch16_224 ...]

Both average the same weights, one after the other in one process; "around it" is what a step takes
beyond the averaging itself.
"""

import statistics
import sys
import time
from collections.abc import Callable, Sequence

import timm
import torch

from detrex.modeling.ema import EMAState, EMAUpdater

ROUNDS = 15


def main(names: Sequence[str]) -> None:
    """Print a line for each network of timm: milliseconds, medians and minima."""
    for name in names or ["resnet50", "vit_base_patch16_224"]:
        model = timm.create_model(name, pretrained=False)
        state = EMAState.FromModel(model)
        updater = EMAUpdater(state)
        updater.update(model)
        kept = updater._pairs
        ways: dict[str, Callable[[], object]] = {
            "step": lambda model=model, updater=updater: updater.update(model),
            "step by names": lambda model=model, state=state: step_by_names(state, model),
            "around it": lambda kept=kept, state=state, model=model: kept.are_those_of(
                state.state, model
            ),
            "around it by names": lambda model=model, state=state: walk(state, model),
        }
        times = measured(ways)
        cells = [
            f"{way} {statistics.median(row):.2f} (least {min(row):.2f})"
            for way, row in times.items()
        ]
        print(f"{name}, ms: " + ", ".join(cells))


def measured(ways: dict[str, Callable[[], object]]) -> dict[str, list[float]]:
    """Time each way in turn, `ROUNDS` times; milliseconds."""
    times: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(ROUNDS):
        for way, run in ways.items():
            start = time.perf_counter()
            run()
            times[way].append(1e3 * (time.perf_counter() - start))
    return times


def walk(state: EMAState, model: torch.nn.Module) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Find each average's weight by name."""
    averages, weights = [], []
    for name, value in state.get_model_state_iterator(model):
        if value.is_floating_point():
            averages.append(state.state[name])
            weights.append(value.detach())
        else:
            state.state[name].copy_(value)
    return averages, weights


def step_by_names(state: EMAState, model: torch.nn.Module) -> None:
    """Average after a walk through the names."""
    torch._foreach_lerp_(*walk(state, model), 0.001)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(sys.argv[1:])
