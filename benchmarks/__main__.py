"""Run the scripts one after the other, and write the page.

    python -m benchmarks [--full] [SCRIPT ...]

A script that fails, or takes too long, costs its own results alone: what it kept until then stays
on the page, and so do its former results where it kept nothing. The status is 1 then.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

from benchmarks import report
from benchmarks.protocol import warn_if_busy
from detrex.benchmark.environment import environment
from detrex.threads import available_cores

SCRIPTS = (
    *("backbones", "deformable_attention", "dino_evaluation", "dino_training_step", "mask_rcnn"),
    *("memory", "sizes", "two_processes", "start_up", "busy_machine"),
)
SHORT, FULL = 300, 3600  # seconds that a script may take


def main(words: Sequence[str] | None = None) -> int:
    """Run what was asked for; give the exit status."""
    options = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    options.add_argument("scripts", nargs="*", metavar="SCRIPT", help=f"of {', '.join(SCRIPTS)}")
    options.add_argument("--full", action="store_true", help="all cases; takes an hour or more")
    arguments = options.parse_args(words)
    if unknown := set(arguments.scripts) - set(SCRIPTS):
        options.error(f"no script {', '.join(sorted(unknown))}; there are {', '.join(SCRIPTS)}")
    warn_if_busy(environment(available_cores()))
    lines = [run(name, full=arguments.full) for name in arguments.scripts or SCRIPTS]
    report.main([])
    print("\n".join(["", *lines]))
    return int(any(": failed" in line for line in lines))


def run(name: str, *, full: bool) -> str:
    """Run one script as a program, and say in a line how it went."""
    print(f"\n== {name}", flush=True)
    command = [sys.executable, "-W", "ignore", "-m", f"benchmarks.{name}"]
    start = time.perf_counter()
    with subprocess.Popen(
        command if full else [*command, "--quick"],
        cwd=report.SCRIPTS.parent,
        start_new_session=True,  # so that the programs which it starts end with it
    ) as script:
        try:
            status = script.wait(FULL if full else SHORT)
            outcome = "ok" if status == 0 else f"failed with status {status}"
        except subprocess.TimeoutExpired as error:
            outcome = f"failed: more than {error.timeout:.0f} s"
        finally:
            if script.poll() is None:
                os.killpg(script.pid, signal.SIGKILL)
    return f"{name} ({time.perf_counter() - start:.0f} s): {outcome}"


if __name__ == "__main__":
    sys.exit(main())
