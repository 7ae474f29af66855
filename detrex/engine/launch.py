"""Start as many processes as asked, or join those that torchrun started.

Each process gets a rank, a process group (NCCL for GPUs, gloo for CPUs) and detectron2's group of
the ranks on its machine, and then calls the given function.
"""

import os
import socket
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from detectron2.utils import comm

from detrex.errors import ConfigError, DetrexError
from detrex.threads import threads_shared_by
from detrex.utils.dist import forget_gloo_group

DEFAULT_TIMEOUT = timedelta(minutes=30)

_TORCHRUN_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR")


def launch(
    main_func: Callable[..., Any],
    num_gpus_per_machine: int = 1,
    num_machines: int = 1,
    machine_rank: int = 0,
    dist_url: str | None = "auto",
    args: Sequence[Any] = (),
    timeout: timedelta = DEFAULT_TIMEOUT,
    *,
    device: str = "cuda",
) -> Any:
    """Call a function in every process of a run.

    The keywords are those of ``detectron2.engine.launch``. Under torchrun (its environment
    variables are there) nothing is started and the numbers given here are ignored: torchrun's
    count.

    Args:
        main_func: a function at the top level of a module, so that it can be pickled.
        num_gpus_per_machine: processes per machine; on CPU too.
        num_machines: machines of the run; ``launch`` is called on each.
        machine_rank: this machine, from 0.
        dist_url: where the processes meet, e.g. ``"tcp://10.0.0.1:29500"``; ``"auto"`` (or None)
            finds a free port, on a single machine only.
        args: positional arguments of ``main_func``.
        timeout: how long a process waits for the others before it gives up.
        device: the config's ``train.device``; decides between NCCL and gloo.

    Returns:
        What ``main_func`` returned, where it ran in this process; None where processes were
        started.

    Raises:
        ConfigError: there are fewer GPUs than processes, or the machines have no URL to meet at.
        DetrexError: one that a started process raised, as it raised it; or a process was ended from
            outside.
    """
    if all(name in os.environ for name in _TORCHRUN_VARIABLES):
        return _join_torchrun(main_func, args, timeout, device)
    world_size = num_machines * num_gpus_per_machine
    _check_numbers(num_gpus_per_machine, num_machines, machine_rank, device)
    if world_size == 1:
        return main_func(*args)
    if dist_url in ("auto", None):
        if num_machines > 1:
            raise ConfigError(
                f"--num-machines {num_machines} needs a place to meet: give all machines the same "
                "--dist-url tcp://<address of machine 0>:<free port>."
            )
        dist_url = f"tcp://127.0.0.1:{_free_port()}"
    errors = mp.get_context("spawn").SimpleQueue()
    rank_offset = machine_rank * num_gpus_per_machine
    group = (rank_offset, world_size, num_gpus_per_machine, dist_url, timeout, device)
    try:
        with threads_shared_by(num_gpus_per_machine):
            mp.start_processes(
                _worker,
                (errors, main_func, args, group),
                num_gpus_per_machine,
                start_method="spawn",
            )
    except (mp.ProcessRaisedException, mp.ProcessExitedException) as error:
        if not errors.empty():
            raise errors.get() from None
        if isinstance(error, mp.ProcessExitedException):
            raise DetrexError(_lost(error, rank_offset)) from error
        raise
    return None


def _lost(error: mp.ProcessExitedException, rank_offset: int) -> str:
    """Say what became of a process that ended without an exception."""
    how = f"by {error.signal_name}" if error.signal_name else f"with status {error.exit_code}"
    return (
        f"The process of rank {rank_offset + error.error_index} was ended {how}, and all others "
        "with it: read its last lines above; SIGKILL is mostly the system's when memory is short."
    )


def _worker(
    local_rank: int, errors: Any, main_func: Callable, args: Sequence[Any], group: tuple
) -> None:
    """Body of a started process; hands an error of the package's to the parent as it is."""
    rank_offset, world_size, local_size, url, timeout, device = group
    try:
        _init_group(
            device, local_rank, local_size, timeout, url, rank_offset + local_rank, world_size
        )
        main_func(*args)
    except DetrexError as error:
        errors.put(error)
        raise
    finally:
        _leave_groups()


def _join_torchrun(
    main_func: Callable, args: Sequence[Any], timeout: timedelta, device: str
) -> Any:
    local_rank, local_size = int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])
    _check_numbers(local_size, 1, 0, device)
    _init_group(device, local_rank, local_size, timeout, "env://")
    try:
        return main_func(*args)
    finally:
        _leave_groups()


def _leave_groups() -> None:
    """End this process's groups; one that is still referred to would have its threads aborted."""
    comm._get_global_gloo_group.cache_clear()
    comm._LOCAL_PROCESS_GROUP = None
    forget_gloo_group()
    if dist.is_initialized():
        dist.destroy_process_group()


def _init_group(
    device: str,
    local_rank: int,
    local_size: int,
    timeout: timedelta,
    url: str,
    rank: int = -1,
    world_size: int = -1,
) -> None:
    """Create the process group and detectron2's local one, and claim the process's GPU."""
    on_gpu = torch.device(device).type == "cuda"
    if on_gpu:
        torch.cuda.set_device(local_rank)
    dist.init_process_group(
        "nccl" if on_gpu else "gloo",
        init_method=url,
        rank=rank,
        world_size=world_size,
        timeout=timeout,
    )
    comm.create_local_process_group(local_size)
    comm.synchronize()


def _check_numbers(local_size: int, num_machines: int, machine_rank: int, device: str) -> None:
    if local_size < 1 or num_machines < 1 or not 0 <= machine_rank < num_machines:
        raise ConfigError(
            f"--num-gpus {local_size} --num-machines {num_machines} --machine-rank {machine_rank} "
            "do not fit: the first two count from 1, and the rank lies from 0 to num-machines - 1."
        )
    if torch.device(device).type == "cuda" and local_size > max(1, torch.cuda.device_count()):
        raise ConfigError(
            f"--num-gpus {local_size} asks for more GPUs than the {torch.cuda.device_count()} of "
            "this machine: lower it, or pass train.device=cpu to run that many CPU processes."
        )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
