"""FSDP2: each rank keeps a part of every weight, gradient and number of the optimizer.

What is gathered at once is a block of the backbone (as gradient checkpointing finds them), a layer
of the transformer, or all the rest. Names of parameters, param groups, checkpoints and losses are
those of DistributedDataParallel.
"""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping

import torch
from detectron2.utils import comm
from omegaconf import DictConfig
from torch import Tensor, distributed, fx, nn, optim
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard

from detrex.checkpoint.placement import whole_tensor
from detrex.config import try_get_key
from detrex.detectors import image_network
from detrex.engine.distributed import wrap_ddp
from detrex.errors import ConfigError
from detrex.layers import TransformerLayerSequence
from detrex.modeling.backbone.inspection.blocks import block_names
from detrex.modeling.plain_twin import filled_copy, keep_twin

logger = logging.getLogger(__name__)


def check_fsdp(cfg: DictConfig) -> None:
    """Refuse settings that FSDP cannot be had with.

    Args:
        cfg: ``train`` is read.

    Raises:
        ConfigError: there is one.
    """
    if not try_get_key(cfg, "train.fsdp.enabled", default=False):
        return
    on_cpu = str(try_get_key(cfg, "train.device", default="cuda")) == "cpu"
    if on_cpu and comm.get_world_size() > 1 and not hasattr(torch.cpu.Stream, "record_event"):
        raise ConfigError(
            f"train.fsdp.enabled=True fails on a CPU with the installed torch {torch.__version__}: "
            "install torch>=2.7, or leave train.fsdp out."
        )
    reasons = {
        "train.ddp.find_unused_parameters": "under FSDP all ranks must use the same weights in "
        "each step, and weights that none uses need no search",
        "train.ddp.fp16_compression": "it compresses what DistributedDataParallel sends",
        "train.model_ema.device": "under FSDP the average is kept in parts beside the weights",
    }
    for key, reason in reasons.items():
        if value := try_get_key(cfg, key, default=None):
            raise ConfigError(
                f"{key}={value} does not go with train.fsdp.enabled=True ({reason}): leave one of "
                "the two out."
            )


def is_sharded(model: nn.Module) -> bool:
    """Tell whether `shard_model` was called for a model."""
    return isinstance(model, FSDPModule)


def shard_model(
    model: nn.Module, optimizer: optim.Optimizer, *, reshard_after_forward: bool = True
) -> nn.Module:
    """Let each rank keep its part of a model's parameters.

    Args:
        model: equal on all ranks and on the rank's device; changed in place.
        optimizer: over the model's parameters, before its first step; it gets the parts.
        reshard_after_forward: let go of a block's gathered weights between the forward and the
            backward pass, which saves memory and gathers them twice.

    Returns:
        The model.

    Raises:
        ConfigError: the model's weights cannot be sharded, or the optimizer cannot step such.
    """
    if isinstance(optimizer, optim.SGD) and any(g.get("fused") for g in optimizer.param_groups):
        raise ConfigError(
            "optimizer.fused=True does not go with train.fsdp.enabled=True for SGD, whose fused "
            "step takes no sharded weights: leave fused out."
        )
    for name, parameter in model.named_parameters():
        if not parameter.dim():
            raise ConfigError(
                f"train.fsdp.enabled=True cannot be had with this model, whose parameter {name!r} "
                "is a single number without a dimension to cut: train it by "
                "DistributedDataParallel, or take another network."
            )
    device = next(model.parameters()).device
    for tensor in (*model.parameters(), *model.buffers()):
        distributed.broadcast(tensor.detach(), src=0)
    keep_twin(model)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    mesh = init_device_mesh(device.type, (comm.get_world_size(),))
    parts = list(_parts_of(model))
    for part in parts:
        fully_shard(part, mesh=mesh, reshard_after_forward=reshard_after_forward)
    fully_shard(model, mesh=mesh)
    sharded = dict(model.named_parameters())
    for group in optimizer.param_groups:
        group["params"] = [sharded[names[id(parameter)]] for parameter in group["params"]]
    logger.info(
        "FSDP: %d parameters in %d parts on %d ranks",
        *(sum(p.numel() for p in sharded.values()), len(parts) + 1, comm.get_world_size()),
    )
    return model


def unfit_model(model: nn.Module, error: RuntimeError) -> ConfigError:
    """Say in one sentence why a model cannot be trained in parts.

    Args:
        model: a sharded model.
        error: of an operation that met parts of weights beside whole tensors.
    """
    name = type(model).__name__.removeprefix("FSDP")
    return ConfigError(
        f"train.fsdp.enabled=True cannot be had with {name}, which reads weights of a block "
        "outside of that block's own forward, where they are not gathered "
        f"({str(error).partition('.')[0][:150]}): train it by DistributedDataParallel."
    )


def spread_over_ranks(cfg: DictConfig, model: nn.Module, optimizer: optim.Optimizer) -> nn.Module:
    """Prepare a model for the processes of a run, by FSDP or DistributedDataParallel.

    Args:
        cfg: ``train.fsdp`` and ``train.ddp`` are read.
        model: on this process's device, equal on all ranks.
        optimizer: over its parameters, before its first step.

    Returns:
        The model to train: sharded in place, wrapped, or as it is in a single process.
    """
    if try_get_key(cfg, "train.fsdp.enabled", default=False) and comm.get_world_size() > 1:
        reshard = bool(try_get_key(cfg, "train.fsdp.reshard_after_forward", default=True))
        return shard_model(model, optimizer, reshard_after_forward=reshard)
    options = try_get_key(cfg, "train.ddp", default={})
    return wrap_ddp(model, next(model.parameters()).device, options)


def _parts_of(model: nn.Module) -> Iterator[list[nn.Module]]:
    """The modules that are gathered together: blocks of the backbone, layers of a transformer."""
    backbone = getattr(model, "backbone", None)
    if isinstance(backbone, nn.Module):
        network = image_network(backbone)
        for name in block_names(network):
            called = _called_modules(network, name)
            if any(True for module in called for _ in module.parameters()):
                yield called
    for module in model.modules():
        if isinstance(module, TransformerLayerSequence):
            yield from ([layer] for layer in module.layers)


def _called_modules(network: nn.Module, block: str) -> list[nn.Module]:
    """A block, or of one that a graph runs through the modules in it that the graph calls.

    Weights that the graph reads without calling their module stay with the rest of the model.
    """
    path = ""
    for part in ["", *block.split(".")]:
        path = f"{path}.{part}" if path else part
        graph = network.get_submodule(path)
        if isinstance(graph, fx.GraphModule):
            inside = f"{block.removeprefix(path).lstrip('.')}."
            return [graph.get_submodule(name) for name in _called_once(graph, inside)]
    return [network.get_submodule(block)]


def _called_once(graph: fx.GraphModule, prefix: str) -> list[str]:
    nodes = list(graph.graph.nodes)
    calls = Counter(str(node.target) for node in nodes if node.op == "call_module")
    read = {str(node.target).rpartition(".")[0] for node in nodes if node.op == "get_attr"}
    modules = dict(graph.named_modules())
    return [
        name
        for name, count in calls.items()
        if name.startswith(prefix)
        and count == 1
        and not any(holder == name or holder.startswith(f"{name}.") for holder in read)
        and any(True for _ in modules[name].parameters())
    ]


def whole_copy(model: nn.Module, averages: Mapping[str, Tensor] | None = None) -> nn.Module:
    """Gather a sharded model as a plain one, on the rank's device; all ranks must call it.

    Args:
        model: a sharded model.
        averages: what takes the place of its weights and saved buffers, by name.

    Returns:
        A copy in evaluation mode that can be called, copied and exported, and does not train.
    """
    own = model.state_dict(keep_vars=True)
    unique = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    values = {name: value for name, value in unique.items() if name in own}
    if averages is not None:
        values |= averages
    return filled_copy(model, {name: whole_tensor(value) for name, value in values.items()})
