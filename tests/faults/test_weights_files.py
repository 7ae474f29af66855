"""A short run of `benchmarks.fuzz_weights`, whose long one reads 100,000 files."""

import faulthandler
import os
import re
import signal
import subprocess
import sys

import pytest

from benchmarks.fuzz_weights import Tally, in_a_process
from benchmarks.weights_mutations import case, valid_cases
from tests.faults.trials import ROOT


def test_fuzz_weights__every_file_is_read_or_refused_in_a_sentence():
    command = [sys.executable, "-m", "benchmarks.fuzz_weights", "--count=1200", "--seed=7"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "1200 files: 0 failures, 0 signals, 0 hangs" in done.stdout
    kinds = {kind for kind in re.findall(r"^\| ([\w -]+) \| \d", done.stdout, re.MULTILINE)}
    assert {valid.kind for valid in valid_cases()} < kinds


def test_case__is_the_same_each_time():
    assert [case(3, number).files for number in range(40)] == [
        case(3, number).files for number in range(40)
    ]


def _die():
    yield {"number": 7}
    faulthandler.disable()  # its report is no news
    os.kill(os.getpid(), signal.SIGSEGV)


def _raise():
    yield {"number": 7}
    raise SystemExit(3)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize(("work", "end"), [(_die, "signal 11"), (_raise, "1")])
def test_in_a_process__a_death_is_told(work, end):
    tally = Tally()
    number, died = in_a_process(work)
    assert (number, died) == ({"number": 7}, {"died": end})
    tally.add(7, died)
    assert tally.failures == [f"7: died ({end}): "]
    assert "1 failures" in tally.report()
