"""What a loader's workers read just now, kept where the process that waits for them can see it.

A worker that is stopped, or that hangs on a file system, cannot say so itself. Each writes what it
begins into a slot of a small file that all of them map into memory.
"""

import mmap
import multiprocessing
import os
import re
import signal
import struct
import tempfile
import time
import weakref
from collections.abc import Callable, Iterable
from types import FrameType
from typing import IO, Any

from detectron2.utils import comm
from torch.utils.data import get_worker_info

from detrex.data.picture_files import shown
from detrex.errors import DataError
from detrex.utils.machines import fields_of

_SLOTS, _SIZE = 256, 512
_HEAD = struct.Struct("<qdH")  # process id, when it began, bytes of the name
_STOPPING = _SLOTS * _SIZE
_STATES = {"T": "stopped", "t": "stopped", "D": "waiting for a disk or mount", "Z": "ended"}
_TIMED_OUT, _DIED = "DataLoader timed out after", "DataLoader worker (pid"


class WorkerNotes:
    """The slots of a loader's workers; copies in other processes write into the same file.

    Args:
        key: the loader's place in the config.
        seconds: how long its process waits for a batch.
    """

    def __init__(self, key: str, seconds: float) -> None:
        self.key, self.seconds = key, seconds
        self._file, self.path = _new_file()
        self._map: mmap.mmap | None = None
        self._owner = self._prepared = os.getpid()
        weakref.finalize(self, _remove, self._file, self.path, self._owner)
        _alive.add(self)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_map": None, "_file": None}

    def begin(self, name: str) -> None:
        """Note in a worker what it reads from now on; elsewhere nothing happens.

        Args:
            name: of the file.
        """
        worker = get_worker_info()
        if worker is None or worker.id >= _SLOTS:
            return
        if self._prepared != os.getpid():
            self._prepared = os.getpid()
            signal.signal(signal.SIGTERM, self._outlive)
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all processes
        text = name.encode(errors="replace")[-(_SIZE - _HEAD.size) :]
        start = worker.id * _SIZE
        head = _HEAD.pack(os.getpid(), time.monotonic(), len(text))
        self._mapped()[start : start + _HEAD.size + len(text)] = head + text

    def end(self) -> None:
        """Note in a worker that it has read what it began."""
        worker = get_worker_info()
        if worker is not None and worker.id < _SLOTS:
            start = worker.id * _SIZE
            self._mapped()[start : start + _HEAD.size] = _HEAD.pack(os.getpid(), 0.0, 0)

    def read(self) -> dict[int, tuple[float, str]]:
        """Give, by the workers' process ids, for how many seconds they read what; 0.0 if idle."""
        found, now, content = {}, time.monotonic(), self._mapped()
        for start in range(0, _STOPPING, _SIZE):
            pid, since, length = _HEAD.unpack_from(content, start)
            if pid:
                name = content[start + _HEAD.size : start + _HEAD.size + length]
                found[pid] = (now - since if since else 0.0, name.decode(errors="replace"))
        return found

    def let_outlive(self) -> None:
        """Let the workers pass over a SIGTERM, which is for the whole run and came to them too."""
        self._mapped()[_STOPPING] = 1

    def explain(self, error: BaseException) -> DataError | None:
        """Turn torch's error about a worker into a sentence, and end a worker that is stuck.

        Args:
            error: what the loader raised.

        Returns:
            The error to raise in its place; None where it is of another kind.
        """
        text = str(error)
        if isinstance(error, ConnectionError | EOFError):  # while it handed a batch over
            ended = [pid for pid in self.read() if _letter(pid) in ("Z", "")]
            return self._explain_end(f"(pid {ended[0]})") if ended else None
        if type(error) is not RuntimeError:
            return None
        if text.startswith(_TIMED_OUT):
            return self._explain_silence()
        return self._explain_end(text) if text.startswith(_DIED) else None

    def _explain_silence(self) -> DataError:
        children = {child.pid or 0 for child in multiprocessing.active_children()}
        read = self.read()
        late = {
            pid: read.get(pid, (0.0, ""))
            for pid in sorted(children)
            if state_of(pid) or read.get(pid, (0.0, ""))[0] > self.seconds / 2
        }
        named = [
            f"its worker {pid}{_is(state_of(pid))}"
            + (f" has been reading {shown(name)} for {since:.0f} s" if since else " reads nothing")
            for pid, (since, name) in list(late.items())[:2]
        ]
        _kill(late)
        return DataError(
            f"{self.key} gave no batch for {self.seconds:g} s (train.timeouts.data) on rank "
            f"{comm.get_rank()}: {', '.join(named) or 'no worker says what it reads'}; look "
            "whether the disk or mount of the pictures answers, or wait longer."
        )

    def _explain_end(self, text: str) -> DataError:
        pid = int(re.search(r"\d+", text)[0])  # type: ignore[index]
        since, name = self.read().get(pid, (0.0, ""))
        how = re.search(r"is killed by signal: ([^.]+)", text)
        return DataError(
            f"The worker {pid} of {self.key} on rank {comm.get_rank()} was ended"
            + (f" by a signal ({how[1].strip()})" if how else " from outside")
            + (f" while it read {shown(name)}" if since else "")
            + ": mostly the system's doing when memory or /dev/shm is short; lower "
            "dataloader.train.num_workers or the size of the pictures."
        )

    def _mapped(self) -> mmap.mmap:
        if self._map is None:
            with open(self.path, "r+b") as file:
                self._map = mmap.mmap(file.fileno(), _STOPPING + 1)
        return self._map

    def _outlive(self, signum: int, _frame: FrameType | None) -> None:
        """Handle SIGTERM in a worker: ended by its loader it ends, with the whole run it serves on.

        The run's process hears of the signal at the same time, and then says so.
        """
        deadline = time.monotonic() + 3
        while time.monotonic() < deadline:
            if self._mapped()[_STOPPING]:
                return
            time.sleep(0.05)
        signal.signal(signum, signal.SIG_DFL)
        os.kill(os.getpid(), signum)


class NotedMapper:
    """A mapper that notes which record it maps.

    Args:
        mapper: any callable from a record to a sample.
        notes: of the loader.
    """

    def __init__(self, mapper: Callable[[dict[str, Any]], Any], notes: WorkerNotes) -> None:
        self.mapper, self.notes = mapper, notes

    def __call__(self, record: dict[str, Any]) -> Any:
        """Map a record; returns and raises what the mapper does."""
        self.notes.begin(str(record.get("file_name") or f"image id {record.get('image_id')}"))
        try:
            return self.mapper(record)
        finally:
            self.notes.end()


def set_timeout(loader: Any, seconds: float) -> None:
    """Bound how long a loader waits for a batch of its workers.

    Args:
        loader: one of `detrex.data.loader`, of torch, or one of detectron2 around torch's; others
            are left alone, and so are those without workers.
        seconds: 0 for no bound.
    """
    for one in (loader, getattr(loader, "dataset", None)):
        if getattr(one, "num_workers", None) and hasattr(one, "timeout"):
            vars(one)["timeout"] = seconds


_alive: "weakref.WeakSet[WorkerNotes]" = weakref.WeakSet()


def let_workers_outlive() -> None:
    """Let the workers of all loaders pass over a SIGTERM; see `WorkerNotes.let_outlive`."""
    for notes in list(_alive):
        notes.let_outlive()


def explain_worker(error: BaseException | None) -> DataError | None:
    """Turn torch's error about a worker of any loader into a sentence.

    Args:
        error: torch raises it anywhere in the main thread when a worker ends.

    Returns:
        See `WorkerNotes.explain`.
    """
    number = re.search(r"\d+", str(error))
    for notes in list(_alive):
        if error and str(error).startswith(_DIED) and number and int(number[0]) in notes.read():
            return notes.explain(error)
    return None


def state_of(pid: int) -> str:
    """Tell what keeps a process from running, where the system says so; empty if nothing.

    Args:
        pid: its number.
    """
    return _STATES.get(_letter(pid), "")


def _letter(pid: int) -> str:
    """The system's letter for the state of a process; empty where there is none, or it is gone."""
    return next(iter(fields_of(pid)), "")


def _is(state: str) -> str:
    return f" ({state})" if state else ""


def _kill(pids: Iterable[int]) -> None:
    """End workers that are stuck: torch would wait for ever for one that is stopped."""
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
            deadline = time.monotonic() + 1
            while time.monotonic() < deadline and _letter(pid) not in ("Z", ""):
                time.sleep(0.01)
            time.sleep(0.01)
        except (RuntimeError, ProcessLookupError):  # torch remarks on its end, as it was meant
            continue


def _new_file() -> tuple[IO[bytes], str]:
    """Make the file, without a name where the system has other ways to it, and give a path to it.

    A process that is killed removes no file.
    """
    try:
        if os.path.isdir("/proc/self/fd"):
            file: Any = tempfile.TemporaryFile()  # noqa: SIM115
            path = f"/proc/{os.getpid()}/fd/{file.fileno()}"
        else:
            file = tempfile.NamedTemporaryFile(prefix="detrex-workers-", delete=False)  # noqa: SIM115
            path = file.name
        file.write(bytes(_STOPPING + 1))  # room that is only promised would end a writer by SIGBUS
        file.flush()
    except OSError as error:
        raise DataError(
            f"what workers read cannot be noted in {tempfile.gettempdir()}, {_STOPPING >> 10} KiB "
            f"({error.strerror or error}): point the environment variable TMPDIR at a folder with "
            "room."
        ) from error
    return file, path


def _remove(file: IO[bytes], path: str, owner: int) -> None:
    file.close()
    if os.getpid() == owner and not path.startswith("/proc/") and os.path.exists(path):
        os.unlink(path)
