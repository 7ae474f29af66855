"""Run the numeric part of the tests as different processors would compute it.

    python .ci/processors.py                      every cell of the table
    python .ci/processors.py default/AVX2/1 ...   some cells
    python .ci/processors.py here                 once, under this shell's own variables

A cell is ATEN_CPU_CAPABILITY/DNNL_MAX_CPU_ISA/threads: the instructions of torch's own kernels
(``default`` is torch's name for none beyond the baseline), the most that oneDNN may use (``best``
sets no limit), and the threads of each process. Rounding differs from cell to cell; a test that
passes in some of them only leans on it. Capabilities that this processor lacks are left out.
"""

import itertools
import os
import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NUMERIC = ("tests/layers", "tests/modeling", "tests/engine", "tests/reference")
# What computes nothing but shapes, names and sentences, though it takes most of the time, and what
# forks: a child waits for ever for OpenMP's threads of its parent.
LEFT_OUT = (
    "tests/engine/run_folder",
    "tests/engine/test_children.py",
    "tests/engine/test_fsdp.py",
    "tests/engine/test_signals.py",
    "tests/engine/test_stopping.py",
    "tests/engine/test_preflight.py",
    "tests/modeling/backbone/test_every_architecture.py",
    "tests/modeling/backbone/timm_backbone/test_spec.py",
    "tests/modeling/backbone/torchvision_backbone/test_nodes.py",
)
CAPABILITIES = ("default", "avx2", "avx512")
INSTRUCTION_SETS = ("AVX2", "AVX512_CORE", "best")
THREADS = ("1", "2")


def capability() -> str:
    """Ask torch for the best capability of this processor, whatever the variables say."""
    program = "import torch; print(torch.backends.cpu.get_cpu_capability())"
    environment = {k: v for k, v in os.environ.items() if k != "ATEN_CPU_CAPABILITY"}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    best = done.stdout.strip().lower()
    return best if best in CAPABILITIES else CAPABILITIES[0]


def run(environment: dict[str, str]) -> tuple[int, str]:
    """Run the numeric part on two cores; return the exit status and the output."""
    workers = max(2 // int(environment["OMP_NUM_THREADS"]), 1)
    command = [sys.executable, "-m", "pytest", "-q", "--tb=short", "-n", str(workers)]
    command += ["-m", "not slow and not gpu", *NUMERIC, *(f"--ignore={file}" for file in LEFT_OUT)]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=False
    )
    return done.returncode, done.stdout


def environment_of(cell: str) -> dict[str, str]:
    """Give the environment variables of a cell; they count from when torch is imported."""
    environment = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", **os.environ}
    if cell == "here":
        return environment
    aten, instructions, threads = cell.split("/")
    environment |= {"ATEN_CPU_CAPABILITY": aten, "OMP_NUM_THREADS": threads}
    environment["DNNL_MAX_CPU_ISA"] = instructions
    if instructions == "best":
        del environment["DNNL_MAX_CPU_ISA"]
    return environment


def report(cell: str, status: int, output: str, seconds: float) -> bool:
    """Print the line of a cell and, where it failed, what pytest said; return whether it passed."""
    last = output.rstrip().rpartition("\n")[2]
    counts = {word: int(n) for n, word in re.findall(r"(\d+) (passed|failed|errors?)", last)}
    failed = sum(n for word, n in counts.items() if word != "passed")
    print(f"{cell:<24} {counts.get('passed', 0)} passed, {failed} failed ({seconds:.0f} s)")
    if status:
        print(output)
    sys.stdout.flush()
    return status == 0


def main(cells: list[str]) -> int:
    """Run the cells and print one line for each; the status is 0 where all of them passed."""
    table = ["/".join(c) for c in itertools.product(CAPABILITIES, INSTRUCTION_SETS, THREADS)]
    if unknown := [cell for cell in cells if cell not in [*table, "here"]]:
        print(f"no such cell: {unknown[0]}; expected `here` or some of {', '.join(table)}")
        return 2
    best, passed = capability(), True
    print(f"== numeric part: {' '.join(NUMERIC)}; this processor is {best}")
    for cell in cells or table:
        aten = cell.split("/")[0]
        if aten in CAPABILITIES and CAPABILITIES.index(aten) > CAPABILITIES.index(best):
            print(f"{cell:<24} left out: this processor has no {aten}")
            continue
        start = time.monotonic()
        status, output = run(environment_of(cell))
        passed = report(cell, status, output, time.monotonic() - start) and passed
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
