"""The structure of a model as it was before its weights were sharded, without the weights.

FSDP gives modules another class, parameters that are parts of tensors, and no way to be copied.
What copies a network takes its twin, which is as the network was before, on the ``meta`` device.
"""

import copy
from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from detrex.modeling.modes import set_modes

_TWINS: WeakKeyDictionary[nn.Module, nn.Module] = WeakKeyDictionary()


def keep_twin(model: nn.Module) -> None:
    """Make a twin of a model, to be found for the model and for each module inside.

    Args:
        model: before it is sharded; the twin keeps copies of its buffers, and no weights.
    """
    memo: dict[int, Any] = {
        id(parameter): nn.Parameter(parameter.detach().to("meta"), parameter.requires_grad)
        for parameter in model.parameters()
    }
    if (average := getattr(model, "ema_state", None)) is not None:
        memo[id(average)] = None
    twin = copy.deepcopy(model, memo)
    _TWINS.update(zip(model.modules(), twin.modules(), strict=True))


def twin_of(module: nn.Module) -> nn.Module:
    """Give the twin of a module, with the modes that the module's parts have now.

    Args:
        module: any module.

    Returns:
        Its twin, or the module itself where there is none.
    """
    twin = _TWINS.get(module)
    if twin is None:
        return module
    pairs = zip(module.modules(), twin.modules(), strict=True)
    set_modes((other, own.training) for own, other in pairs)
    return twin


def filled_copy(module: nn.Module, values: Mapping[str, Tensor]) -> nn.Module:
    """Copy the twin of a module, and give the copy weights.

    Args:
        module: a module that has a twin.
        values: its whole parameters and saved buffers by name, each of them once; the
            parameters are not copied.

    Returns:
        A plain module in evaluation mode. Its parameters need no gradients, and buffers that are
        not saved are as they were when the twin was made.
    """
    twin = _TWINS[module]
    memo: dict[int, Any] = {}
    for name, parameter in twin.named_parameters():
        memo[id(parameter)] = nn.Parameter(values[name].detach(), requires_grad=False)
    for name, buffer in twin.named_buffers():
        if name in values:
            memo[id(buffer)] = values[name].detach().clone()
    return copy.deepcopy(twin, memo).eval()
