"""Short trials of which of several ways is the faster one on this device."""

import time
from collections.abc import Callable
from typing import Any

import torch

_ROUNDS = 9


def least_times(device_type: str, *calls: Callable[[], Any]) -> list[float]:
    """Time calls by turns.

    Args:
        device_type: where they run. On a processor the time is that of the calling thread, which
            other processes on a busy machine do not add to.
        *calls: functions of nothing.

    Returns:
        Seconds: the least time of each, its first turn left out.
    """
    clock = time.thread_time if device_type == "cpu" else time.perf_counter
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(1 + _ROUNDS):
        for call, row in zip(calls, times, strict=True):
            _wait(device_type)
            started = clock()
            call()
            _wait(device_type)
            row.append(clock() - started)
    return [min(row[1:]) for row in times]


def _wait(device_type: str) -> None:
    if device_type == "cuda":
        torch.cuda.synchronize()
