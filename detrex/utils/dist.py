"""Where this process stands among those that train together, and what it tells the others.

Ranks agree by `exchange`, a collective call on whole numbers that never waits for a GPU. All its
calls have one form, so that a rank that failed can take part in the one at which the others wait
(`failing_together`), and all stop with the same sentence instead of waiting for it.
"""

import builtins
import os
import subprocess
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import lru_cache
from typing import Any

import torch
import torch.distributed as dist

from detrex import errors
from detrex.utils.presence import explain, present


def is_dist_avail_and_initialized() -> bool:
    """Tell whether a process group has been set up."""
    return dist.is_available() and dist.is_initialized()


def get_world_size() -> int:
    """Count the processes; 1 without a process group."""
    return dist.get_world_size() if is_dist_avail_and_initialized() else 1


def get_rank() -> int:
    """Give the number of this process; 0 without a process group."""
    return dist.get_rank() if is_dist_avail_and_initialized() else 0


def exchange(value: int = 0) -> list[int]:
    """Tell all ranks a number, and hear theirs; every rank must call it equally often.

    Args:
        value: this rank's number, of 64 bits.

    Returns:
        The numbers by rank; only this one without a process group.

    Raises:
        DetrexError: another rank left a `failing_together` block by such an error; it is raised
            here too.
        RuntimeError: likewise, with that rank's traceback, for any other error.
        LostRankError: the others are gone, or did not come in time.
    """
    if not is_dist_avail_and_initialized():
        return [value]
    failed, values = _gather_words(0, value)
    if any(failed):
        raise _error_elsewhere(None)
    return values


@contextmanager
def failing_together() -> Iterator[None]:
    """Run a block whose error on one rank shall stop all.

    The ranks that do not fail hear of it in their next `exchange`, inside the block or after it, so
    one must follow, and no other collective call may come before it. Errors that came by `exchange`
    pass through.
    """
    try:
        yield
    except Exception as error:
        if lost := explain(error):
            raise lost from None
        if is_dist_avail_and_initialized() and not came_by_exchange(error):
            _gather_words(1, 0)
            _error_elsewhere(error)
        raise


def came_by_exchange(error: BaseException | None) -> bool:
    """Tell whether an error, or one that it was raised from or while handling, is another rank's.

    Args:
        error: what was caught.
    """
    while error is not None and not getattr(error, "is_from_exchange", False):
        error = error.__cause__ or error.__context__
    return error is not None


def _gather_words(failed: int, value: int) -> tuple[list[int], list[int]]:
    mine = torch.tensor([failed, value])
    words = [torch.empty_like(mine) for _ in range(get_world_size())]
    if here := present():
        here.enter()
    try:
        dist.all_gather(words, mine, group=_cpu_group())
    except RuntimeError as error:
        raise explain(error) or error from None
    flags, values = torch.stack(words).T.tolist()
    return flags, values


def _error_elsewhere(error: Exception | None) -> Exception:
    """Tell the others this rank's error, and give the first one told, as it is to be raised here.

    One of the package's own kinds stays what it is; of any other only the traceback is told.
    """
    told: tuple[type[Exception], str] | None = None
    if isinstance(error, errors.DetrexError):
        kind = next(kind for kind in type(error).__mro__ if kind.__module__ == errors.__name__)
        told = (kind, str(error))
    elif error is not None:
        told = (RuntimeError, "".join(traceback.format_exception(error)))
    by_rank: list[Any] = [None] * get_world_size()
    dist.all_gather_object(by_rank, told, group=_cpu_group())
    rank, (kind, text) = next((rank, told) for rank, told in enumerate(by_rank) if told)
    heard = kind(text if kind is not RuntimeError else f"Rank {rank} stopped:\n{text}")
    heard.is_from_exchange = True
    return heard


def _cpu_group() -> Any:
    """The group of all ranks whose messages do not pass through a GPU; None for the usual one."""
    return None if dist.get_backend() == "gloo" else _gloo_beside(dist.group.WORLD)


@lru_cache(maxsize=1)
def _gloo_beside(world: Any) -> Any:
    """Made once for each ``world``, by all of its ranks at their first `exchange`."""
    here = present()
    timeout = timedelta(seconds=here.meeting.timeout) if here else None
    return dist.new_group(backend="gloo", timeout=timeout)


def forget_gloo_group() -> None:
    """Let go of the group that `exchange` made beside NCCL, before the process leaves it."""
    _gloo_beside.cache_clear()


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
