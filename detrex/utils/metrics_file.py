"""``metrics.json``: a line of JSON for each iteration that is written, once, whatever happens.

Every line reaches the disk as a whole before `MetricsWriter.write` returns. A run that goes on from
a checkpoint first takes away what was written after it (`cut_metrics`).
"""

import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from detectron2.utils.events import EventWriter, get_event_storage

from detrex.errors import RunError
from detrex.files import write_atomically, writing

logger = logging.getLogger(__name__)


class MetricsWriter(EventWriter):
    """Append scalars to a file, one JSON object a line, as detectron2's ``JSONWriter`` does.

    Args:
        file: the file; it and its folder are made when the first line is written.
        window_size: losses are medians over this many iterations.
    """

    def __init__(self, file: str | os.PathLike[str], window_size: int = 20) -> None:
        self.file = Path(file)
        self.window_size = window_size
        self._last_write = -1

    def write(self) -> None:
        """Write what is new since the last call, a line for each iteration that it is from.

        Raises:
            RunError: the line cannot be written; the file is as it was before.
        """
        by_iteration: dict[int, dict[str, Any]] = {}
        latest = get_event_storage().latest_with_smoothing_hint(self.window_size)
        for name, (value, iteration) in latest.items():
            if iteration > self._last_write:
                by_iteration.setdefault(iteration, {"iteration": iteration})[name] = value
        if by_iteration:
            lines = [json.dumps(by_iteration[i], sort_keys=True) for i in sorted(by_iteration)]
            _append(self.file, "".join(f"{line}\n" for line in lines).encode())
            self._last_write = max(by_iteration)


def cut_metrics(
    file: str | os.PathLike[str], keep: Callable[[int], bool], create: bool = True
) -> set[int]:
    """Take lines away, and those that were torn when a process was killed or a disk was full.

    Args:
        file: a file of `MetricsWriter` or of detectron2's ``JSONWriter``; it need not exist.
        keep: tells by its iteration whether a line stays.
        create: whether to make the file where there is none.

    Returns:
        The iterations of the lines that stay.

    Raises:
        RunError: the file cannot be read or written; it is as it was before.
    """
    file = Path(os.path.realpath(file))
    with writing(file):
        if not file.exists():
            if create:
                file.parent.mkdir(parents=True, exist_ok=True)
                file.touch()
            return set()
        if not file.is_file():
            raise RunError(f"{file} is a folder, a device or a pipe: move it away")
        old = file.read_bytes()
        lines = [(line, _iteration_of(line)) for line in old.splitlines() if line.strip()]
        torn = sum(iteration is None for _, iteration in lines)
        stay = [(line, i) for line, i in lines if i is not None and keep(i)]
        new = b"".join(line + b"\n" for line, _ in stay)
        if new != old:
            logger.info(
                "%s keeps %d of its %d lines: the others come after the checkpoint%s.",
                *(file, len(stay), len(lines), f", or are torn ({torn})" if torn else ""),
            )
            write_atomically(file, lambda stream: stream.write(new))
    return {i for _, i in stay if i is not None}


def _iteration_of(line: bytes) -> int | None:
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):
        return None
    iteration = content.get("iteration") if isinstance(content, dict) else None
    return iteration if type(iteration) is int else None


def _append(file: Path, text: bytes) -> None:
    """Append to a file and wait for the disk; leave it as it was where that fails."""
    with writing(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            size = os.lseek(descriptor, 0, os.SEEK_END)
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                text = b"\n" + text
            try:
                while text:
                    text = text[os.write(descriptor, text) :]
                os.fsync(descriptor)
            except OSError:
                os.ftruncate(descriptor, size)
                raise
        finally:
            os.close(descriptor)
