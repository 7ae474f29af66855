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


def test_heeded__interrupt_is_both_an_exit_and_an_interrupt():
    for kind in (KeyboardInterrupt, SystemExit):
        with pytest.raises(kind) as caught, signals.heeded():
            signal.raise_signal(signal.SIGINT)
        assert isinstance(caught.value, signals.StoppedByInterrupt)
        assert caught.value.code == 130
        assert str(caught.value).startswith(
            "Stopped by Ctrl-C (SIGINT) between two steps: --resume"
        )
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("handed_on", [True, False])
def test_heeded__second_interrupt(handed_on, capfd):
    """A parent hands the first one on to a process that the terminal gave it already."""
    with signals.heeded(handed_on=handed_on), signals.noted():
        for _ in range(1 + handed_on):
            signal.raise_signal(signal.SIGINT)
        assert signals.asked() == signal.SIGINT
        with pytest.raises(KeyboardInterrupt) as caught:
            signal.raise_signal(signal.SIGINT)
        assert caught.type is KeyboardInterrupt
    assert capfd.readouterr().err.count("a second Ctrl-C ends it at once") == 1


@pytest.mark.parametrize("own", [signal.SIG_IGN, lambda *_: None])
def test_heeded__leaves_an_interrupt_to_whom_it_belongs(own):
    """In the background of a script it is ignored, and a host program may handle it itself."""
    before = signal.signal(signal.SIGINT, own)
    try:
        with signals.heeded():
            signal.raise_signal(signal.SIGINT)
            assert signals.asked() == 0
    finally:
        signal.signal(signal.SIGINT, before)


def test_heeded__within_another_changes_nothing():
    with signals.heeded(signal.SIGINT), signals.noted():
        before = signal.getsignal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        with signals.heeded():
            assert signal.getsignal(signal.SIGTERM) is before
        assert signals.asked() == signal.SIGINT


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


@pytest.mark.parametrize(("signum", "expected"), [("SIGTERM", -15), ("SIGUSR1", 0), ("SIGINT", 0)])
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
