"""The optimizer of a run, and how its step is computed."""

import copy
from collections.abc import Iterable, Mapping
from typing import Any

from omegaconf import DictConfig
from torch import Tensor, nn, optim

from detrex.checkpoint.placement import placed_like
from detrex.config import try_get_key
from detrex.config.building import build_part
from detrex.config.lazy_call import is_call, target_of
from detrex.errors import ConfigError

_IMPLEMENTATION = ("foreach", "fused")
_FUSED_CLASSES = (optim.Adam, optim.AdamW, optim.SGD)
_FUSED_DEVICES = ("cpu", "cuda")


def build_optimizer(cfg: DictConfig, model: nn.Module) -> optim.Optimizer:
    """Build the optimizer over a model's parameters; ``cfg`` itself is not changed.

    Adam, AdamW and SGD of torch update all parameters in one pass over memory (``fused=True``) on
    the CPU and on CUDA, unless the config gives ``fused`` or ``foreach``, a gradient is sparse or a
    parameter not contiguous; the numbers are those of the other implementations up to rounding.

    Args:
        cfg: ``optimizer``, whose ``params`` is called with ``model=``, and ``train.fsdp.enabled``.
        model: the model without DDP, so that names in ``lr_factor_func`` are the model's own.

    Raises:
        ConfigError: ``optimizer.params`` is no call.
    """
    if "_target_" not in try_get_key(cfg, "optimizer.params", default={}):
        raise ConfigError(
            "optimizer.params must be a call that takes the model, e.g. "
            "L(detectron2.solver.get_default_optimizer_params)(base_lr='${..lr}')."
        )
    node = copy.deepcopy(cfg.optimizer)
    node.params.model = model
    # PyTorch's fused SGD takes no tensors that are sharded.
    sharded = bool(try_get_key(cfg, "train.fsdp.enabled", default=False))
    fused_classes = [kind for kind in _FUSED_CLASSES if kind is not optim.SGD or not sharded]
    if is_call(node) and target_of(node) in fused_classes and _can_fuse(node, model):
        node.fused = True
    return build_part(node, "optimizer")


def _can_fuse(node: DictConfig, model: nn.Module) -> bool:
    given = (*_IMPLEMENTATION, "differentiable")
    sparse = any(getattr(module, "sparse", False) for module in model.modules())
    # On a CPU, fused steps take the numbers of a parameter and of its state in memory's order.
    return (
        not sparse
        and all(node.get(name) is None for name in given)
        and all(
            parameter.is_floating_point()
            and parameter.is_contiguous()
            and parameter.device.type in _FUSED_DEVICES
            for parameter in model.parameters()
        )
    )


def in_implementation_of(optimizer: optim.Optimizer, saved: Mapping[str, Any]) -> dict[str, Any]:
    """Make an optimizer's saved state one of the implementation and the parts that this run has.

    torch takes the implementation from the file, along with the learning rate.

    Args:
        optimizer: that of the run.
        saved: a state dict of an optimizer, not changed.

    Returns:
        The state dict to load.
    """
    groups = [
        {**group, **{name: own[name] for name in _IMPLEMENTATION if name in own}}
        for own, group in zip(optimizer.param_groups, saved["param_groups"], strict=False)
    ]
    groups += saved["param_groups"][len(groups) :]
    own = (parameter for group in optimizer.param_groups for parameter in group["params"])
    numbers = (number for group in groups for number in group["params"])
    state = dict(saved["state"])
    for number, parameter in zip(numbers, own, strict=False):
        if number in state:
            state[number] = {
                name: placed_like(value, parameter) if isinstance(value, Tensor) else value
                for name, value in state[number].items()
            }
    return {**saved, "state": state, "param_groups": groups}


def require_settings(optimizer: optim.Optimizer, names: Iterable[str]) -> None:
    """Check that an optimizer has its settings, once it has loaded those of another.

    Args:
        optimizer: torch gives settings of its newer versions their defaults.
        names: of the settings that it was built with.

    Raises:
        ConfigError: it lacks some, for the other was of another kind.
    """
    wanted = set(names)
    for group in optimizer.param_groups:
        if lacking := sorted(wanted - group.keys()):
            raise ConfigError(
                f"{type(optimizer).__name__} needs {', '.join(lacking[:3])}, which the saved "
                "optimizer does not have"
            )
