"""Each script runs at a tiny size, and keeps a sample of everything or a reason why not."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.__main__ import SCRIPTS
from benchmarks.results_file import read_rows

ROOT = Path(__file__).resolve().parents[2]
TINY = {
    "backbones": ["--size", "64", "96", "--families", "efficientnet_b0"],
    "dino_evaluation": ["--size", "64", "96"],
    "dino_training_step": ["--size", "64", "96"],
    "mask_rcnn": ["--size", "64", "96"],
    "memory": ["--size", "64", "96"],
    "sizes": ["--sides", "64", "96", "--batches", "1"],
    "two_processes": ["--size", "64", "96"],
}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", SCRIPTS)
def test_main__keeps_samples(name, tmp_path):
    if importlib.util.find_spec(f"benchmarks.{name}") is None:
        pytest.skip("there is no such script")
    command = [sys.executable, "-W", "ignore", "-m", f"benchmarks.{name}", "--quick"]
    command += ["--repeats", "1", "--threads", "1", "--results", str(tmp_path)]
    subprocess.run([*command, *TINY.get(name, [])], cwd=ROOT, check=True)
    rows, described = read_rows(tmp_path / f"{name}.csv")
    assert described["length"] == "short"
    assert all(float(row.value) >= 0 if row.value else row.note for row in rows)
    assert any(row.value for row in rows)
    failed = [row for row in rows if not row.value and row.note != "not installed"]
    assert not failed
