"""Which kernel of deformable attention runs: the fastest that can, or the one asked for by name.

A kernel is a module with two functions. ``attend(value_NSHD, locations_NQHLP2, weights_NQHLP,
sizes)`` gives (N, Q, H * D) sums of the dtype of the values; places and weights come in float32, or
in float64 where the values are; gradients reach all three. It runs on fake tensors and under
`torch.compile`. ``why_not(device, dtype)`` tells in a few words why it cannot run for values on
this type of device and of this dtype, or gives an empty string.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor

from detrex.errors import ConfigError, did_you_mean

from . import grid_sample, rows, triton_kernel
from .grid_sample import Sizes
from .installed import INSTALLED

logger = logging.getLogger(__name__)

AUTO = "auto"
VARIABLE = "DETREX_DEFORMABLE_ATTENTION_KERNEL"
"""The environment variable that names the kernel where no program does."""

_KERNELS: dict[str, Any] = {
    "grid_sample": grid_sample,
    "rows": rows,
    "triton": triton_kernel,
    **INSTALLED,
}
_PREFERRED = {"cpu": "rows", "cuda": "triton"}
KERNEL_NAMES = (AUTO, *_KERNELS)

_wanted: str | None = None


def set_deformable_attention_kernel(name: str) -> None:
    """Choose the kernel of deformable attention for the whole process.

    Args:
        name: one of ``KERNEL_NAMES``. ``auto``, the default, takes the fastest that can run;
            ``grid_sample``, ``rows`` and ``triton`` are this package's; ``detrex._C``, ``mmcv`` and
            ``kernels`` are the original's extension, mmcv's and the one that the package kernels
            downloads, where the environment has them.

    Raises:
        ConfigError: no kernel has this name.
    """
    global _wanted
    _wanted = _known(name, "The kernel of deformable attention")


@contextmanager
def deformable_attention_kernel(name: str) -> Iterator[None]:
    """Choose the kernel of deformable attention for a block of code.

    Args:
        name: see `set_deformable_attention_kernel`.

    Raises:
        ConfigError: no kernel has this name.
    """
    global _wanted
    before = _wanted
    set_deformable_attention_kernel(name)
    try:
        yield
    finally:
        _wanted = before


def attend(
    value_NSHD: Tensor, locations_NQHLP2: Tensor, weights_NQHLP: Tensor, sizes: Sizes
) -> Tensor:
    """Sample each level at the given places and add the samples up, by the kernel of choice.

    Args:
        value_NSHD: tokens of all levels.
        locations_NQHLP2: places (x, y) from 0 to 1 in each level, in float32, or float64 where the
            values are.
        weights_NQHLP: weights, of the locations' dtype.
        sizes: (height, width) of each level.

    Returns:
        (N, Q, H * D) sums, of the dtype of the values.

    Raises:
        ConfigError: the kernel that was asked for by name is none, or cannot run.
    """
    wanted = _wanted
    # A traced graph (FLOP counts, ONNX) must show operations that its reader knows.
    if wanted in (None, AUTO) and (torch.jit.is_tracing() or torch.onnx.is_in_onnx_export()):
        wanted = "grid_sample"
    name = _choose(wanted, value_NSHD.device.type, value_NSHD.dtype)
    output: Tensor = _KERNELS[name].attend(value_NSHD, locations_NQHLP2, weights_NQHLP, sizes)
    return output


def _choose(wanted: str | None, device: str, dtype: torch.dtype) -> str:
    if wanted is None:
        wanted = _known(os.environ.get(VARIABLE) or AUTO, f"The environment variable {VARIABLE}")
    return _chosen(wanted, device, dtype)


# What torch.compiler.assume_constant_result sets; that would import the compiler here.
vars(_choose)["_dynamo_marked_constant"] = True


@cache
def _chosen(wanted: str, device: str, dtype: torch.dtype) -> str:
    """Name the kernel and log it, once for each kind of input."""
    name = _PREFERRED.get(device, "grid_sample") if wanted == AUTO else wanted
    kernel = _KERNELS.get(name)
    reason = kernel.why_not(device, dtype) if kernel else "it is not there"
    if not reason:
        logger.info("Deformable attention runs by %s on %s.", name, device)
        return name
    if wanted == AUTO:
        logger.info("Deformable attention runs by grid_sample: %s cannot, %s.", name, reason)
        return "grid_sample"
    raise ConfigError(
        f"The kernel {name!r} of deformable attention was asked for by name and cannot run on "
        f"{device} in {str(dtype).removeprefix('torch.')}: {reason}; take 'auto' or another one "
        f"of {', '.join(KERNEL_NAMES[1:])}."
    )


def _known(name: str, what: str) -> str:
    if name not in KERNEL_NAMES:
        raise ConfigError(
            f"{what} must be one of {', '.join(KERNEL_NAMES)}, got {name!r}."
            f"{did_you_mean(name, KERNEL_NAMES)}"
        )
    return name
