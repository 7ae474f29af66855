"""End this process while it writes: before a file is opened, within its bytes, before a rename.

What a run does to the files of a folder is a row of moments, each called after what is done and
the file's name without what differs from run to run, such as ``write model_N.pth.X.unfinished``.
"""

import builtins
import io
import os
import random
import re
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

_CHANGING = ((r"[0-9a-f]{32}", "X"), (r"tfevents\..*", "tfevents"), (r"\d{7}", "N"))


def moment(what: str, file: Any) -> str:
    """Give the name of a moment."""
    name = os.path.basename(os.fspath(file))
    for pattern, short in _CHANGING:
        name = re.sub(pattern, short, name)
    return f"{what} {name}"


class DyingFiles:
    """Patch what writes files, so that this process gets a signal at one of the moments.

    Attributes:
        seen: how many moments there were, by name.
    """

    def __init__(self, folder: Path, at: str = "", nth: int = 0, number: int = 0) -> None:
        """Patch this process; there is no way back.

        Args:
            folder: whose files count.
            at: the name of the moment; empty only counts.
            nth: of that name, from 0.
            number: of the signal.
        """
        self.folder, self.at, self.nth, self.number = str(folder.resolve()), at, nth, number
        self.seen: Counter[str] = Counter()
        builtins.open = io.open = self._opening(io.open)  # type: ignore[assignment]
        os.open = self._low_opening(os.open)
        for name in ("replace", "rename", "unlink", "remove", "mkdir"):
            setattr(os, name, self._before(name, getattr(os, name)))

    def within(self, file: Any) -> bool:
        return isinstance(file, str | os.PathLike) and os.path.abspath(file).startswith(self.folder)

    def is_now(self, what: str, file: Any) -> bool:
        """Count a moment, and tell whether it is the one."""
        name = moment(what, file)
        self.seen[name] += 1
        return bool(self.number) and name == self.at and self.seen[name] == self.nth + 1

    def die(self) -> None:
        os.kill(os.getpid(), self.number)

    def _before(self, what: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def patched(file: Any, *args: Any, **kwargs: Any) -> Any:
            if self.within(file) and self.is_now(what, file):
                self.die()
            return call(file, *args, **kwargs)

        return patched

    def _low_opening(self, call: Callable[..., int]) -> Callable[..., int]:
        def patched(file: Any, flags: int, *args: Any, **kwargs: Any) -> int:
            if flags & os.O_CREAT and self.within(file) and self.is_now("create", file):
                self.die()
            return call(file, flags, *args, **kwargs)

        return patched

    def _opening(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def patched(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
            if not set(mode) & set("wxa+") or not self.within(file):
                return call(file, mode, *args, **kwargs)
            if self.is_now("open", file):
                self.die()
            return _Stream(call(file, mode, *args, **kwargs), file, self)

        return patched


class _Stream:
    """A stream that writes a part of the bytes at its moment, and then dies."""

    def __init__(self, stream: Any, file: Any, files: DyingFiles) -> None:
        self._stream, self._file, self._files = stream, file, files

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __enter__(self) -> "_Stream":
        self._stream.__enter__()
        return self

    def __exit__(self, *error: Any) -> Any:
        return self._stream.__exit__(*error)

    def __iter__(self) -> Any:
        return iter(self._stream)

    def write(self, data: Any) -> Any:
        if not self._files.is_now("write", self._file):
            return self._stream.write(data)
        part = random.Random(self._files.nth).randrange(len(data) + 1)
        self._stream.write(data[:part])
        self._stream.flush()
        self._files.die()
        return part + (self._stream.write(data[part:]) or 0)  # a signal that is only noted


SIGNALS = {name: getattr(signal, f"SIG{name}") for name in ("KILL", "TERM", "INT")}
