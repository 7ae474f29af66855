"""What differs between one process and many: devices, DDP, and values all ranks agree on."""

import inspect
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from detectron2.engine import create_ddp_model
from detectron2.utils import comm
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from detrex.errors import ConfigError, first_line
from detrex.utils.meeting import identity

T = TypeVar("T")


def resolve_device(name: str | torch.device, option: str = "train.device") -> torch.device:
    """Check that a device can be used here, and give each process of a machine its own.

    Args:
        name: ``train.device`` of the config: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``, ...
        option: what the user gave it to.

    Returns:
        The device; of a GPU in a distributed run, that of the process's local rank.

    Raises:
        ConfigError: PyTorch does not know the device or does not see one on this machine.
    """
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError) as error:
        raise ConfigError(
            f"{option}={name!s} is no device that PyTorch knows: use cpu, cuda, cuda:<n> or mps."
        ) from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            f"{option}={name} asks for a GPU, but PyTorch sees no CUDA device here: pass "
            f"{option}=cpu, or install a CUDA build of PyTorch."
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError(
            f"{option}={name} asks for Apple's GPU, which PyTorch cannot use here: pass "
            f"{option}=cpu."
        )
    if device.type not in ("cpu", "cuda", "mps"):
        _require_usable(device, option)
    if device.type != "cuda":
        return device
    distributed = comm.get_world_size() > 1
    index = comm.get_local_rank() if distributed else (device.index or 0)
    if index >= torch.cuda.device_count():
        raise ConfigError(
            f"{option}={name} means GPU {index}, but this machine has "
            f"{torch.cuda.device_count()}: count from 0, or lower --num-gpus."
        )
    if not distributed:
        return device
    return torch.device("cuda", index)


def _require_usable(device: torch.device, option: str) -> None:
    """Try a device that PyTorch has a name for: whether it works is up to the build and drivers."""
    try:
        torch.ones(1, device=device).item()
    except Exception as error:  # each kind of device raises its own
        raise ConfigError(
            f"{option}={device} cannot be used by PyTorch here ({first_line(error)}): pass "
            f"{option}=cpu."
        ) from error


def wrap_ddp(model: nn.Module, device: torch.device, options: Mapping[str, Any]) -> nn.Module:
    """Wrap a model in DistributedDataParallel where there is more than one process.

    Args:
        model: a model that is on ``device`` already.
        device: this process's device.
        options: ``train.ddp`` of the config: keywords of ``DistributedDataParallel`` and
            ``fp16_compression``.

    Returns:
        The wrapped model, or the model itself in a single process.
    """
    device_ids = [device.index] if device.type == "cuda" else None
    keywords = {"gradient_as_bucket_view": True, **options}  # gradients are exchanged in place
    if "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters:
        # The name that torch 2.15 gives to broadcast_buffers, which it deprecates.
        keywords["forward_sync_buffers"] = keywords.pop("broadcast_buffers", True)
    return create_ddp_model(model, device_ids=device_ids, **keywords)


def unwrap_ddp(model: nn.Module) -> nn.Module:
    """Return the model inside DistributedDataParallel, or the model itself."""
    return model.module if isinstance(model, DistributedDataParallel) else model


def sync_buffers(model: nn.Module) -> None:
    """Give every rank the main process's buffers, such as running statistics of batch norm.

    Ranks see different images, so that theirs drift apart; a checkpoint holds those of the main
    process.

    Args:
        model: the model without DDP; nothing happens in a single process.
    """
    if comm.get_world_size() > 1:
        for buffer in model.buffers():
            dist.broadcast(buffer, src=0)


def broadcast_from_main(value: T) -> T:
    """Return the main process's value on every rank.

    Args:
        value: anything that can be pickled; read on rank 0 only.
    """
    if comm.get_world_size() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0, device=_object_device())
    return box[0]


def agree_on(find: Callable[[], str], key: str, tries: int = 15) -> str:
    """Find a file on every rank, and the same one; a shared file system may take its time.

    Args:
        find: gives a path, empty where there is none.
        key: where the config names the folder.
        tries: how often, a second apart.

    Returns:
        The path.

    Raises:
        ConfigError: ranks find different files, on all of them.
    """
    while True:
        found = comm.all_gather((find(), identity()))
        file, main = found[0]
        other = next((i for i, (path, _) in enumerate(found) if path != file), None)
        tries -= 1
        if other is None:
            return file
        if tries < 1:
            path, who = found[other]
            raise ConfigError(
                f"Rank 0 ({main}) finds {file or 'no checkpoint'}, and rank {other} ({who}) "
                f"{path or 'none'}: {key} has to be a folder that all machines see."
            )
        time.sleep(1)


def _object_device() -> torch.device:
    """Where pickled objects travel: NCCL moves device memory only."""
    if dist.get_backend() == "nccl":
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")
