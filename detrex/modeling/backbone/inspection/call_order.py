"""When each module of a network runs, and at which stride."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from .feature_shapes import map_layout, map_size
from .meta_run import MetaRun


@dataclass(frozen=True)
class Call:
    """The first call of a module.

    Attributes:
        entered: when it began, in calls of modules.
        left: when it ended.
        level: log2 of the stride of its output, None where that is no feature map.
        is_record: whether its output is a record of several maps, as encoders and stages of
            transformers give it, so that its parts have strides of their own.
    """

    entered: int
    left: int
    level: int | None
    is_record: bool = False


def record_calls(meta_run: MetaRun) -> dict[str, Call]:
    """Run the twin once and write down the first call of each module.

    Args:
        meta_run: a twin of the network and an image that it takes.

    Returns:
        Names of modules, the root being ``""``, to their calls.
    """
    entered: dict[str, int] = {}
    calls: dict[str, Call] = {}
    clock = iter(range(2**31))

    def watch(name: str, module: nn.Module) -> list[Any]:
        def before(*_: Any) -> None:
            entered.setdefault(name, next(clock))

        def after(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if name not in calls:
                level = _level(output, meta_run.image_size)
                is_record = _is_record(output, meta_run.image_size)
                calls[name] = Call(entered[name], next(clock), level, is_record)

        return [module.register_forward_pre_hook(before), module.register_forward_hook(after)]

    handles = [
        h for name, module in meta_run.twin.named_modules() if name for h in watch(name, module)
    ]
    with torch.no_grad():
        meta_run.twin(meta_run.image)
    for handle in handles:
        handle.remove()
    calls[""] = Call(-1, next(clock), None)
    return calls


def _level(output: Any, image_size: tuple[int, int]) -> int | None:
    """Log2 of the stride of a module's output, None where it is no feature of the image."""
    while isinstance(output, tuple | list) and output:
        output = output[0]
    if not isinstance(output, torch.Tensor) or output.dim() not in (3, 4):
        return None
    if output.dim() == 3:
        pixels = output.shape[1]
    else:
        pixels = math.prod(map_size(output.shape, map_layout(output.shape, image_size)))
    return round(math.log2(image_size[0] * image_size[1] / pixels) / 2) if pixels else None


def _is_record(output: Any, image_size: tuple[int, int]) -> bool:
    if not isinstance(output, tuple):
        return isinstance(output, Mapping)
    tensors = [item for item in output if isinstance(item, torch.Tensor)]
    return len({_level(tensor, image_size) for tensor in tensors} - {None}) > 1
