"""How many threads a command uses, and how they wait for each other.

OpenMP reads both from the environment when it is loaded, so they are set before torch is imported,
and only where the user has set nothing.

Threads that wait spin for a while before they sleep: about ten milliseconds with GNU's OpenMP, 200
with Intel's. Where another program holds the core of the thread that they wait for, they keep it
from running by that. A millisecond costs nothing on a machine of one's own.
"""

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

COUNTS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""Variables by which a user sets the number of threads."""

WAITING = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "KMP_BLOCKTIME")
"""Variables by which a user says how threads wait."""

# Rounds of GNU's loop, about a millisecond; and milliseconds, for Intel's OpenMP and LLVM's.
_BRIEFLY = {"GOMP_SPINCOUNT": "30000", "KMP_BLOCKTIME": "1"}

# OpenCV's and OpenBLAS's own variables, beside OpenMP's.
_OTHER_COUNTS = ("OPENCV_FOR_THREADS_NUM", "OPENBLAS_NUM_THREADS")

_set_here: dict[str, str] = {}


def prepare_threads(most: int | None = None) -> None:
    """Set what the user has not set, for this process and those that it starts.

    Does nothing where torch has been imported: it is too late.

    Args:
        most: the most threads to use; None for all cores.
    """
    if "torch" not in sys.modules:
        _set_here.update(thread_variables(os.environ, most=most))
        os.environ.update(_set_here)


@contextlib.contextmanager
def threads_shared_by(ranks: int) -> Iterator[None]:
    """Share the cores out among processes that are started within the context.

    Args:
        ranks: how many processes on this machine work at the same time.
    """
    before = dict(os.environ)
    of_user = {name: value for name, value in before.items() if _set_here.get(name) != value}
    os.environ.update(thread_variables(of_user, ranks=ranks))
    try:
        yield
    finally:
        for name in (*COUNTS, *WAITING):
            os.environ.pop(name, None)
            if name in before:
                os.environ[name] = before[name]


def use_one_thread(worker: int = 0) -> None:
    """Keep a data loader's worker to one thread, whatever it loads; torch sees to its own.

    Args:
        worker: its number, for use as ``worker_init_fn``.
    """
    os.environ.update(dict.fromkeys((*COUNTS, *_OTHER_COUNTS), "1"))
    if "cv2" in sys.modules:
        sys.modules["cv2"].setNumThreads(0)  # none beside the worker's own


def thread_variables(
    environment: Mapping[str, str], *, ranks: int = 1, most: int | None = None
) -> dict[str, str]:
    """Give the variables that an environment lacks.

    Args:
        environment: what the user has set.
        ranks: processes that share the cores.
        most: the most threads for each; None for no bound.

    Returns:
        Values by name, to be added to `environment`.
    """
    found = {} if environment.keys() & {*WAITING} else dict(_BRIEFLY)
    if not environment.keys() & {*COUNTS}:
        threads = max(1, available_cores() // ranks)
        found["OMP_NUM_THREADS"] = str(min(threads, most or threads))
    return found


def available_cores(root: Path = Path("/")) -> int:
    """Count the cores that this process may use, not those of the machine.

    Args:
        root: folder that holds ``proc`` and ``sys``.

    Returns:
        Cores of its affinity mask, two threads of one core counted once; no more than its cgroup's
        quota of processor time, rounded down, and at least 1.
    """
    if hasattr(os, "sched_getaffinity"):
        numbers = os.sched_getaffinity(0)
        topology = root / "sys" / "devices" / "system" / "cpu"
        siblings = {_read(topology / f"cpu{n}/topology/thread_siblings_list") for n in numbers}
        cores = len(siblings) if all(siblings) else len(numbers)
    else:
        cores = os.cpu_count() or 1
    quota = cpu_quota(root)
    return cores if quota is None else max(1, min(cores, int(quota)))


def cpu_quota(root: Path = Path("/")) -> float | None:
    """Read how many cores' time the cgroups of this process, and those around them, may use.

    Args:
        root: folder that holds ``proc`` and ``sys``.

    Returns:
        The least of their quotas in cores, such as 2.5; None where there is none.
    """
    quotas = []
    for folder in _cgroups(root):
        quota, period = [*_read(folder / "cpu.max").split(), "", ""][:2]
        quotas.append(_ratio(quota, period))
        names = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
        quotas.append(_ratio(*(_read(folder / name) for name in names)))
    return min((quota for quota in quotas if quota is not None), default=None)


def _cgroups(root: Path) -> Iterator[Path]:
    """Folders of the cgroups that may hold a quota; some are not there."""
    mounts = root / "sys" / "fs" / "cgroup"
    for line in _read(root / "proc" / "self" / "cgroup").splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if not controllers:  # version 2, alone or beside version 1
            places = [mounts, mounts / "unified"]
        elif "cpu" in controllers.split(","):
            places = [mounts / controllers, mounts / "cpu"]
        else:
            continue
        # A container mounts its own cgroup in the place of the root.
        parts = [part for part in path.split("/") if part not in ("", "..")]
        for place in places:
            yield from (place.joinpath(*parts[:depth]) for depth in range(len(parts) + 1))


def _ratio(quota: str, period: str) -> float | None:
    """Cores of a quota and its period in microseconds; None for "max", -1 and what is missing."""
    try:
        cores = float(quota) / float(period)
    except (ValueError, ZeroDivisionError):
        return None
    return cores if cores > 0 else None


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
