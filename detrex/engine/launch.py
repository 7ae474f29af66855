"""Start as many processes as asked, or join those that torchrun started.

Each process gets a rank, a process group (NCCL for GPUs, gloo for CPUs) and detectron2's group of
the ranks on its machine, and then calls the given function.
"""

import logging
import os
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from detectron2.utils import comm

from detrex.engine import signals
from detrex.engine.children import remove_if_orphaned, run_children, tell
from detrex.errors import ConfigError, DetrexError, not_replaced
from detrex.quiet import quiet_as_parent
from detrex.threads import threads_shared_by
from detrex.utils.dist import forget_gloo_group
from detrex.utils.meeting import Meeting, meet, seconds_or_never
from detrex.utils.presence import LostRankError, Presence, explain, presence

logger = logging.getLogger(__name__)

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
        timeout: how long a process waits for the others before it gives up; 0 for ever.
        device: the config's ``train.device``; decides between NCCL and gloo.

    Returns:
        What ``main_func`` returned, where it ran in this process; None where processes were
        started.

    Raises:
        ConfigError: there are fewer GPUs than processes, or the machines have no URL to meet at.
        DetrexError: one that a started process raised, as it raised it; or a process was ended from
            outside, or is waited for in vain.
        StoppedBySignal: a signal ended the run; see `detrex.engine.signals`.
    """
    if all(name in os.environ for name in _TORCHRUN_VARIABLES):
        return _join_torchrun(main_func, args, timeout, device)
    world_size = num_machines * num_gpus_per_machine
    _check_numbers(num_gpus_per_machine, num_machines, machine_rank, device)
    if world_size == 1:
        with signals.heeded():
            return main_func(*args)
    if dist_url in ("auto", None):
        if num_machines > 1:
            raise ConfigError(
                f"--num-machines {num_machines} needs a place to meet: give all machines the same "
                "--dist-url tcp://<address of machine 0>:<free port>."
            )
        dist_url = f"tcp://127.0.0.1:{_free_port()}"
    first_rank = machine_rank * num_gpus_per_machine
    group = (first_rank, world_size, num_gpus_per_machine, dist_url, timeout, device)
    with (
        threads_shared_by(num_gpus_per_machine),
        tempfile.TemporaryDirectory(prefix="detrex-launch-") as folder,
    ):
        run_children(
            _child, (folder, main_func, args, group), num_gpus_per_machine, first_rank, folder
        )
    return None


def _child(
    local_rank: int,
    folder: str,
    main_func: Callable[..., Any],
    args: Sequence[Any],
    group: tuple[Any, ...],
) -> None:
    """Body of a started process; leaves an error of the package's for the parent as it is."""
    quiet_as_parent()
    first_rank, world_size, local_size, url, timeout, device = group
    rank = first_rank + local_rank
    place = (url, rank, world_size, local_rank, local_size)
    try:
        with (
            signals.heeded(handed_on=True),
            _group(place, timeout, device, folder),
            not_replaced(),
        ):
            main_func(*args)
    except (DetrexError, signals.StoppedBySignal) as error:
        tell(folder, rank, error)
        status = error.status if isinstance(error, signals.StoppedBySignal) else 1
    except KeyboardInterrupt:
        status = signals.INTERRUPTED
    else:
        return
    finally:
        remove_if_orphaned(folder)
    raise SystemExit(status)


def _join_torchrun(
    main_func: Callable[..., Any], args: Sequence[Any], timeout: timedelta, device: str
) -> Any:
    for name in (*_TORCHRUN_VARIABLES[:-1], "MASTER_PORT"):
        if not os.environ.get(name, "0").isdecimal():
            raise ConfigError(
                f"the environment variable {name} is {os.environ[name][:50]!r}, expected a whole "
                "number as torchrun sets it: start the run by torchrun, or unset it."
            )
    local_rank, local_size = int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])
    _check_numbers(local_size, 1, 0, device)
    place = ("env://", -1, -1, local_rank, local_size)
    with signals.heeded(handed_on=True), _group(place, timeout, device):
        return main_func(*args)


@contextmanager
def _group(
    place: tuple[str, int, int, int, int], timeout: timedelta, device: str, folder: str = ""
) -> Iterator[None]:
    """Be in the run's process group for a block; what it raises is a sentence where ranks are lost.

    Args:
        place: URL, rank, world size, and rank and number of processes on this machine.
        timeout: 0 for none.
        device: for the backend.
        folder: for `tell`, where there is a parent that reads it.
    """
    url, rank, world_size, local_rank, local_size = place
    meeting = meet(url, rank, world_size, seconds_or_never(timeout.total_seconds()))

    def end(sentence: str) -> None:  # this rank is held in a call that does not return
        logger.error("%s", sentence)
        if folder:
            tell(folder, meeting.rank, LostRankError(sentence))
        os.kill(os.getpid(), signal.SIGKILL)

    with presence(Presence(meeting, signals.ask_this_process, end)):
        try:
            _init_group(meeting, device, local_rank, local_size)
            yield
        except signals.StoppedBySignal:
            signals.ask_all_to_stop()
            raise
        except RuntimeError as error:
            raise explain(error) or error from None
        finally:
            _leave_groups()


def _leave_groups() -> None:
    """End this process's groups; one that is still referred to would have its threads aborted."""
    comm._get_global_gloo_group.cache_clear()
    comm.create_local_process_group.cache_clear()
    comm._LOCAL_PROCESS_GROUP = None
    forget_gloo_group()
    if dist.is_initialized():
        dist.destroy_process_group()


def _init_group(meeting: Meeting, device: str, local_rank: int, local_size: int) -> None:
    """Create the process group and detectron2's local one, and claim the process's GPU."""
    on_gpu = torch.device(device).type == "cuda"
    if on_gpu:
        torch.cuda.set_device(local_rank)
    dist.init_process_group(
        "nccl" if on_gpu else "gloo",
        store=meeting.store,
        rank=meeting.rank,
        world_size=meeting.world_size,
        timeout=timedelta(seconds=meeting.timeout),
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
