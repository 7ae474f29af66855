"""What one process of a machine does for all ranks there, such as reading a large file."""

import os
import pickle
import platform
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TypeVar

from detectron2.utils import comm

from detrex.utils.dist import exchange, failing_together, get_rank, get_world_size
from detrex.utils.presence import waited_for

T = TypeVar("T")


def once_a_machine(make: Callable[[], T]) -> T:
    """Call a function on the first rank of each machine, and give its result to all ranks there.

    Every rank must call this. An error of the function is raised on all ranks, in the same words.

    Args:
        make: gives something that can be pickled. It is called on all ranks where the system does
            not tell which share a machine (there is no ``/proc``).

    Returns:
        What ``make`` gave; on other ranks than the first an unpickled copy.
    """
    if get_world_size() == 1:
        return make()
    here = machine()
    reader = comm.all_gather(here).index(here)
    mine: T | None = None
    with failing_together():
        with waited_for():
            if reader == get_rank():
                mine = make()
        told = pickle.dumps(mine)
    exchange()
    told = comm.all_gather(told)[reader]
    with failing_together():
        given: T = mine if reader == get_rank() else pickle.loads(told)  # type: ignore[assignment]
    exchange()
    return given


@cache
def machine() -> str:
    """Name what ranks share whose processes see each other: a kernel, its processes, and a user."""
    boot, processes = kernel()
    if not boot:
        return f"{platform.node()} process {os.getpid()}"
    return f"{platform.node()} {boot} {processes} {os.getuid()}"


def kernel() -> tuple[str, str]:
    """Name this start of the system, and the processes that are seen; empty without ``/proc``."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return boot, os.readlink("/proc/self/ns/pid")
    except OSError:
        return "", ""


def fields_of(pid: int) -> list[str]:
    """Read what ``/proc`` says of a process behind its name: its state first, see ``man 5 proc``.

    Args:
        pid: its number.

    Returns:
        Nothing where there is no such process, or no ``/proc``.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return text.rpartition(")")[2].split()
