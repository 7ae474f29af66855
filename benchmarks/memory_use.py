"""Memory of a process and of a backward pass."""

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # a program whose memory is asked for may do without torch
    from torch import nn

ROOT = Path(__file__).resolve().parent.parent


def peak_rss() -> int:
    """Give the most bytes that this process has had resident at once.

    The kernel's own count since the program was started, where there is one: that of `getrusage`
    begins with what the parent had.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024


def peak_rss_of(module: str, arguments: Sequence[str] = ()) -> int:
    """Run a module of this repository as a program of its own and give its peak, in bytes.

    Args:
        module: what ``python -m`` takes.
        arguments: its command line.

    Raises:
        RuntimeError: if the program fails; with the last line that it wrote.
    """
    program = (
        "import atexit, runpy, sys; from benchmarks.memory_use import peak_rss; "
        "atexit.register(lambda: print(peak_rss())); sys.argv = sys.argv[1:]; "
        "runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, module, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["no output"])[-1])
    return int(done.stdout.splitlines()[-1])


def saved_bytes(module: "nn.Module", forward: Callable[[], Any]) -> int:
    """Give the bytes that autograd keeps of a forward pass, parameters and buffers left out."""
    from detrex.engine.dry_run import SavedBytes

    saved = SavedBytes(module)
    with saved:
        kept = forward()  # what it returns holds the graph until the bytes are counted
    total = saved.total
    del kept
    return total
