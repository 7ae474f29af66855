"""Several processes of one benchmark on this machine."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def last_lines(command: Sequence[str], world: int) -> list[str]:
    """Run a module in several processes, each told its ``--rank``, and wait for them.

    Args:
        command: what follows the interpreter.
        world: how many processes.

    Returns:
        The last line that each has printed.

    Raises:
        RuntimeError: one failed, with its last words.
    """
    processes = [
        subprocess.Popen(
            [sys.executable, *command, "--rank", str(rank)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(world)
    ]
    outputs = [process.communicate() for process in processes]
    for process, (_, errors) in zip(processes, outputs, strict=True):
        if process.returncode:
            raise RuntimeError((errors.strip().splitlines() or ["no output"])[-1])
    return [output.splitlines()[-1] for output, _ in outputs]
