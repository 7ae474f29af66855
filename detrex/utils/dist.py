"""Where this process stands among those that train together."""

import builtins
import os
import subprocess
from typing import Any

import torch
import torch.distributed as dist


def is_dist_avail_and_initialized() -> bool:
    """Tell whether a process group has been set up."""
    return dist.is_available() and dist.is_initialized()


def get_world_size() -> int:
    """Count the processes; 1 without a process group."""
    return dist.get_world_size() if is_dist_avail_and_initialized() else 1


def get_rank() -> int:
    """Give the number of this process; 0 without a process group."""
    return dist.get_rank() if is_dist_avail_and_initialized() else 0


def setup_for_distributed(is_master: bool) -> None:
    """Silence ``print`` in all processes but the first; keyword ``force=True`` gets through.

    Args:
        is_master: whether this process may print.
    """
    # Unwrapped first, so that a second call replaces the first instead of nesting in it.
    plain_print = getattr(builtins.print, "unsilenced", builtins.print)

    def print_on_master(*args: Any, force: bool = False, **kwargs: Any) -> None:
        if is_master or force:
            plain_print(*args, **kwargs)

    print_on_master.unsilenced = plain_print  # type: ignore[attr-defined]
    builtins.print = print_on_master


def slurm_init_distributed_mode(args: Any) -> None:
    """Join the process group that torchrun or SLURM describes by environment variables.

    Sets ``args.rank``, ``args.world_size``, ``args.gpu``, ``args.distributed`` and, where the
    machine has CUDA devices, selects the one of this process. Without such variables only
    ``args.distributed = False`` is set.

    Args:
        args: a namespace; ``args.dist_url`` (``env://`` by default) says where to meet.
    """
    env = os.environ
    if "RANK" in env and "WORLD_SIZE" in env:
        args.rank, args.world_size = int(env["RANK"]), int(env["WORLD_SIZE"])
        args.gpu = int(env.get("LOCAL_RANK", 0))
    elif "SLURM_PROCID" in env:
        args.rank, args.world_size = int(env["SLURM_PROCID"]), int(env["SLURM_NTASKS"])
        args.gpu = int(env.get("SLURM_LOCALID", args.rank % max(torch.cuda.device_count(), 1)))
        env.setdefault("MASTER_ADDR", _first_slurm_host(env["SLURM_NODELIST"]))
        env.setdefault("MASTER_PORT", "29500")
        env.update(RANK=str(args.rank), WORLD_SIZE=str(args.world_size), LOCAL_RANK=str(args.gpu))
    else:
        args.distributed = False
        return

    args.distributed = True
    args.dist_backend = "nccl" if torch.cuda.is_available() else "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(args.gpu)
    dist.init_process_group(
        backend=args.dist_backend,
        init_method=getattr(args, "dist_url", "env://"),
        world_size=args.world_size,
        rank=args.rank,
    )
    dist.barrier()
    setup_for_distributed(args.rank == 0)


def _first_slurm_host(node_list: str) -> str:
    """Let SLURM itself expand ``node[1-4],other`` and take the first name."""
    command = ["scontrol", "show", "hostnames", node_list]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[0]
