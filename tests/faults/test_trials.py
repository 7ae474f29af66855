"""Each way in which a trial can end is told from the others."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time

import pytest

from detrex.errors import ConfigError
from tests.faults.attempts import attempt, attempt_all
from tests.faults.trials import Trial, Wrong, expect, note


def try_(run, expected="right", **options):
    return attempt(Trial("frame", "one", run, expected, **options))


def _raise(error):
    raise error


def _say(text, status):
    print(text, file=sys.stderr)
    return status


def _log_and_end():
    print("[11/26 09:12:39 detrex]: ERROR: train.max_iter is 0", flush=True)
    sys.exit("ConfigError: train.max_iter is 0")


@pytest.mark.parametrize(
    ("run", "outcome"),
    [
        (lambda: None, "right"),
        (lambda: {"bbox": 1.0}, "right"),
        (lambda: _raise(ConfigError("train is missing")), "sentence"),
        (lambda: sys.exit("ConfigError: train is missing"), "sentence"),
        (lambda: _say("detrex: train is missing", 1), "sentence"),
        (lambda: _say("usage: it [-h]\nit.py: error: unrecognized arguments", 2), "sentence"),
        (_log_and_end, "sentence"),
        (lambda: _raise(KeyError("train")), "traceback"),
        (lambda: _raise(KeyboardInterrupt), "traceback"),
        (lambda: _say("ConfigError: one\nConfigError: two", 1), "traceback"),
        (lambda: _say("ConfigError: in two\nlines", 1), "traceback"),
        (lambda: _raise(ConfigError("x" * 1000)), "traceback"),
        (lambda: _raise(Wrong("another tensor")), "silent"),
        (lambda: sys.exit(1), "silent"),
        (lambda: os.kill(os.getpid(), signal.SIGSEGV), "signal"),
        (os.abort, "signal"),
    ],
)
def test_attempt__tells(run, outcome):
    result = try_(run, expected="either")
    assert result.outcome == outcome
    assert result.good == (outcome in ("right", "sentence"))


def test_attempt__of_what_hangs_ends_it_and_all_that_it_started(tmp_path):
    def hang():
        process = subprocess.Popen(["sleep", "100"])
        (tmp_path / "pid").write_text(str(process.pid))
        time.sleep(100)

    result = try_(hang, seconds=0.5)
    assert result.outcome == "hang"
    assert not result.good
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_attempt__silence_where_a_sentence_was_expected():
    assert try_(lambda: None, expected="sentence").outcome == "silent"


def test_attempt__a_sentence_where_none_was_expected_is_a_failure():
    assert not try_(lambda: _raise(ConfigError("no"))).good


def test_attempt__has_a_folder_of_its_own_and_notes_what_is_left(tmp_path):
    def run():
        expect(os.listdir() == [], "the folder is not empty")
        open("weights.pth.unfinished", "w").close()
        open("weights.pth", "w").close()
        note(steps=3)

    result = try_(run)
    assert (result.outcome, result.junk) == ("right", ("work/weights.pth.unfinished",))
    assert result.facts == {"steps": 3}
    assert os.getcwd() != str(tmp_path)


def test_attempt__process_that_is_left_is_ended_and_told():
    result = try_(lambda: subprocess.Popen(["sleep", "100"]) and None)
    assert result.junk == ("a process",)


def test_attempt__memory_has_a_limit():
    result = try_(lambda: bytearray(1 << 30) and None, memory=1 << 28)
    assert (result.outcome, result.why) == ("traceback", "MemoryError")


def test_attempt_all__runs_several_at_a_time():
    barrier = multiprocessing.Barrier(4)  # which none passes before all are there
    trials = [Trial("frame", str(i), lambda: barrier.wait(20) and None, "right") for i in range(4)]
    at_a_time = attempt_all(trials, jobs=4)
    assert [result.outcome for result in at_a_time] == ["right"] * 4


def test_trial__refuses_another_expectation():
    with pytest.raises(ValueError, match="expected is 'good'"):
        Trial("frame", "one", print, "good")
