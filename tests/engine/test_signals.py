import os
import signal
import threading

import pytest

from detrex.engine import signals


def test_heeded__raises_at_once_and_restores():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(signals.StoppedBySignal) as caught, signals.heeded():
        signal.raise_signal(signal.SIGTERM)
    assert caught.value.code == 75
    assert caught.value.sentence.startswith("Stopped by SIGTERM between two steps: --resume")
    assert signal.getsignal(signal.SIGTERM) is before
    assert signals.asked() == 0


def test_heeded__leaves_handlers_alone_that_it_could_not_put_back(monkeypatch):
    """Python gives None for those that a host program in C has installed."""
    usual, before = signal.getsignal, signal.getsignal(signal.SIGUSR1)
    hosts = signal.SIGUSR1
    monkeypatch.setattr(signal, "getsignal", lambda s: None if s == hosts else usual(s))
    with signals.heeded():
        assert usual(hosts) is before
        assert usual(signal.SIGTERM) is signals._heed


def test_noted__waits_until_it_is_asked_for():
    with signals.heeded(), signals.noted():
        signal.raise_signal(signal.SIGUSR1)
        assert signals.asked() == signal.SIGUSR1
        with pytest.raises(signals.StoppedBySignal), signals.at_once():
            pytest.fail("the block begins")
        assert signals.asked() == signal.SIGUSR1


def test_at_once__within_noted():
    stopped = pytest.raises(signals.StoppedBySignal)
    with signals.heeded(), signals.noted(), stopped, signals.at_once():
        signal.raise_signal(signal.SIGTERM)


@pytest.mark.parametrize("handed_on", [True, False])
def test_heeded__second_signal(handed_on):
    pid = os.fork()
    if pid == 0:
        with signals.heeded(handed_on=handed_on), signals.noted():
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == (0 if handed_on else -signal.SIGTERM)


def test_finishing__passes_over_what_a_parent_sends(monkeypatch):
    monkeypatch.setattr(signals, "_ONE_REQUEST", -1.0)
    with signals.heeded(handed_on=True), signals.noted(), signals.finishing():
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)


@pytest.mark.parametrize(("signum", "expected"), [("SIGTERM", -15), ("SIGUSR1", 0)])
def test_fork__has_no_part_in_the_signals(signum, expected):
    with signals.heeded():
        pid = os.fork()
        if pid == 0:
            signal.raise_signal(getattr(signal, signum))
            os._exit(0)
        _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == expected


def test_heeded__in_another_thread_changes_nothing():
    def body():
        with signals.heeded():
            seen.append(signal.getsignal(signal.SIGTERM))

    seen = []
    thread = threading.Thread(target=body)
    thread.start()
    thread.join(10)
    assert seen == [signal.getsignal(signal.SIGTERM)]
