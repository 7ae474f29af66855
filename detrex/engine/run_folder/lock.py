"""One training at a time in a folder: ``run.lock`` there says which process it is.

The content counts, not a lock of the system's: such a lock outlives a killed run in its orphans,
and means nothing between machines on some network file systems. A process of this machine is looked
up; one of another machine renews the file's time, and counts as dead when it has been silent.
"""

import json
import logging
import os
import socket
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from detectron2.utils import comm
from omegaconf import DictConfig

from detrex.config import try_get_key
from detrex.errors import RunError
from detrex.files import writing
from detrex.utils.dist import exchange, failing_together
from detrex.utils.machines import fields_of, kernel

try:
    import fcntl
except ImportError:  # another system than Unix
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

LOCK = "run.lock"
SILENT_AFTER = 300.0
"""Seconds after which a run on another machine that gave no sign of life counts as dead."""

_SIGN_EVERY = 20.0
_UNREADABLE_AFTER = 10.0
_held: dict[tuple[int, str], str] = {}  # tokens by process, for a fork has nothing


@contextmanager
def locked(folder: str | os.PathLike[str], silent_after: float = SILENT_AFTER) -> Iterator[None]:
    """Have a folder for this process alone, for the length of a ``with`` block.

    A process that has it already may enter again.

    Args:
        folder: an existing folder.
        silent_after: seconds without a sign of life after which a run on another machine is dead.

    Raises:
        RunError: another run has it, or its lock cannot be written.
    """
    held, file = _key(folder), Path(os.path.realpath(folder), LOCK)
    if held in _held:
        yield
        return
    _held[held] = token = _take(file, silent_after)
    stop = threading.Event()
    sign = threading.Thread(target=_give_signs, args=(file, token, stop), daemon=True)
    sign.start()
    try:
        yield
    finally:
        stop.set()
        del _held[held]
        _give_back(file, token)


@contextmanager
def locked_together(cfg: DictConfig) -> Iterator[None]:
    """Have ``train.output_dir`` for the processes of this run alone, for a ``with`` block.

    The main process takes the lock, and all of them end where it cannot. The folder is made.

    Args:
        cfg: ``train.output_dir`` and ``train.timeouts.lock`` are read.

    Raises:
        RunError: another run has the folder, or it cannot be written to.
    """
    with ExitStack() as stack:
        with failing_together():
            if comm.is_main_process():
                folder = Path(cfg.train.output_dir)
                with writing(folder):
                    folder.mkdir(parents=True, exist_ok=True)
                silent_after = try_get_key(cfg, "train.timeouts.lock", default=SILENT_AFTER)
                stack.enter_context(locked(folder, float(silent_after)))
        exchange()
        yield


def require_own(folder: str | os.PathLike[str]) -> None:
    """Check that a folder which this process had for itself was not taken over since.

    A lock that somebody removed is written again, with a warning.

    Args:
        folder: as it was given to `locked`; nothing is checked where it was not.

    Raises:
        RunError: the lock is another run's, or cannot be written.
    """
    token, file = _held.get(_key(folder)), Path(os.path.realpath(folder), LOCK)
    if token is None:
        return
    if not file.exists():
        logger.warning("%s was removed while this run is at work, and is written again.", file)
        with _alone_in(file.parent), writing(file):
            _create(file, {**_this_process(), "token": token})
    holder = _read(file)
    if holder.get("token") != token:
        raise RunError(
            f"{folder} was taken over by {_name(holder)} while this run was in it, so this one "
            "ends: let one run at a time into a train.output_dir, and don't remove run.lock"
        )


def _key(folder: str | os.PathLike[str]) -> tuple[int, str]:
    return os.getpid(), os.path.realpath(folder)


def _take(file: Path, silent_after: float) -> str:
    mine = _this_process()
    with _alone_in(file.parent), writing(file):
        if file.exists():
            _require_dead(file, silent_after)
            file.unlink(missing_ok=True)
        _create(file, mine)
    return mine["token"]


def _create(file: Path, content: Mapping[str, Any]) -> None:
    try:
        descriptor = os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        raise RunError(_refusal(file, "another run that starts at this moment")) from None
    try:
        os.write(descriptor, json.dumps(content).encode())
        os.fsync(descriptor)
    except OSError:
        file.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)


def _give_back(file: Path, token: str) -> None:
    try:
        with _alone_in(file.parent):
            if _read(file).get("token") == token:
                file.unlink(missing_ok=True)
    except OSError as error:  # the next run sees that this process is gone
        logger.warning("%s cannot be removed (%s)", file, error.strerror)


def _require_dead(file: Path, silent_after: float) -> None:
    holder = _read(file)
    if not holder:
        if _silence(file) < _UNREADABLE_AFTER:
            raise RunError(_refusal(file, "another run that starts at this moment"))
        logger.warning("%s says of no run that it is at work, and is taken over.", file)
    elif why := _why_dead(file, holder, silent_after):
        logger.warning("%s is of %s, %s: it is taken over.", file, _name(holder), why)
    else:
        how = ""
        if not (_is_here(holder) and holder.get("begun")):
            how = (
                f"; it gave a sign of life {max(0, _silence(file)):.0f} s ago and counts as dead "
                f"after {silent_after:.0f} s without (train.timeouts.lock), or when you remove "
                f"{file.name}"
            )
        raise RunError(_refusal(file, _name(holder)) + how)


def _refusal(file: Path, who: str) -> str:
    return (
        f"train.output_dir={file.parent} is in use by {who}: wait for it, end it, or choose "
        "another train.output_dir"
    )


def _name(holder: Mapping[str, Any]) -> str:
    pid, host, since = (
        " ".join(str(holder.get(key)).split())[:60] for key in ("pid", "host", "since")
    )
    return f"process {pid} on {host} since {since}"


def _why_dead(file: Path, holder: Mapping[str, Any], silent_after: float) -> str:
    """Say why a holder is taken for dead; empty where it is not."""
    if _is_here(holder):
        begun = _begin_of(holder.get("pid"))
        if begun is None:
            return "which is no more"
        if begun != holder.get("begun"):
            return "whose number another process has now"
        if begun:
            return ""
    elif _succeeds(holder.get("jobs")):
        return "an earlier start of this same job"
    silence = _silence(file)
    return f"silent for {silence:.0f} s" if silence > silent_after else ""


def _is_here(holder: Mapping[str, Any]) -> bool:
    """Whether a holder's process would be seen from here: same system, started once, same view."""
    mine = _machine()
    return all(holder.get(key) == value for key, value in mine.items())


def _this_process() -> dict[str, Any]:
    return {
        **_machine(),
        "pid": os.getpid(),
        "begun": _begin_of(os.getpid()),
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
        "jobs": _jobs(),
        "token": uuid.uuid4().hex,
    }


def _machine() -> dict[str, str]:
    boot, processes = kernel()
    return {"host": socket.gethostname(), "boot": boot, "processes": processes}


def _begin_of(pid: Any) -> int | None:
    """When a process of this machine began, in ticks since it was started; None for a dead one.

    Where the system has no ``/proc``, 0 for every process that lives.
    """
    if type(pid) is not int or pid < 1:
        return None
    if not Path("/proc/self/stat").exists():
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return None
        except PermissionError:
            pass
        return 0
    fields = fields_of(pid)
    return None if not fields or fields[0] in "ZX" else int(fields[19])


def _jobs() -> dict[str, int]:
    """The jobs that this process is of, by name, and how often each was restarted.

    One of SLURM that is queued again, and one of torchrun that lost a machine (restarts are not
    counted there: -1), go on elsewhere at once.
    """
    env, jobs = os.environ, {}
    if "SLURM_JOB_ID" in env:
        name = f"slurm {env['SLURM_JOB_ID']}.{env.get('SLURM_STEP_ID', '')}"
        jobs[name] = int(env.get("SLURM_RESTART_COUNT") or 0)
    if (run_id := env.get("TORCHELASTIC_RUN_ID", "none")) != "none":
        jobs[f"torchrun {run_id}"] = -1
    return jobs


def _succeeds(jobs: Any) -> bool:
    """Whether this process is of a later start of one of a holder's jobs."""
    earlier = jobs if isinstance(jobs, dict) else {}
    return any(
        isinstance(begun := earlier.get(name), int) and (starts < 0 or begun < starts)
        for name, starts in _jobs().items()
    )


def _read(file: Path) -> dict[str, Any]:
    """Read what a lock says; empty where there is none, or it is half written."""
    try:
        content = json.loads(file.read_bytes()[:4096]) if file.is_file() else {}
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _silence(file: Path) -> float:
    """Seconds since a file's time was renewed, by the clock of its file system."""
    try:
        with tempfile.TemporaryFile(dir=file.parent) as probe:
            return os.fstat(probe.fileno()).st_mtime - file.stat().st_mtime
    except OSError:
        return 0.0


def _give_signs(file: Path, token: str, stop: threading.Event) -> None:
    while not stop.wait(_SIGN_EVERY):
        if _read(file).get("token") == token:
            with suppress(OSError):
                os.utime(file)


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Let no second process of this machine judge and take the lock at once, where that works."""
    descriptor = None
    try:
        if fcntl is not None:
            with suppress(OSError):
                descriptor = os.open(folder, os.O_RDONLY)
                _wait_for(descriptor)
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _wait_for(descriptor: int, seconds: float = 5.0) -> None:
    """Take the system's lock on a folder; go on without it where others don't give it back."""
    end = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > end:
                return
            time.sleep(0.02)
