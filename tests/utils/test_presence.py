import threading
import time

import pytest
from torch.distributed import FileStore

from detrex.utils.meeting import Meeting
from detrex.utils.presence import LostRankError, Presence, is_of_group
from tests.reference.forked import wait_until

CLOSED = "[gloo/transport/tcp/pair.cc:1] Connection closed by peer [127.0.0.1]:1"
LATE = "[gloo/transport/tcp/unbound_buffer.cc:1] Timed out waiting 5ms for recv operation"


@pytest.fixture
def ranks(tmp_path):
    made = []

    def make(count, timeout=0.8, **keywords):
        for rank in range(count):
            stores = [FileStore(str(tmp_path / "store"), -1) for _ in range(2)]
            made.append(Presence(Meeting(*stores, rank, count, timeout), **keywords))
        return made

    yield make
    for one in made:
        one.leave()


def stop(one):
    """What a stopped process does: give no sign of life, and not say that it left."""
    one._ended.set()
    one._thread.join(5)


def test_wait_for_all__longer_than_the_time_out_while_it_lives(ranks):
    first, second = ranks(2)
    waiting = threading.Thread(target=first.wait_for_all)
    waiting.start()
    time.sleep(1.2)
    assert waiting.is_alive()
    second.wait_for_all()
    waiting.join(5)
    assert not waiting.is_alive()


def test_wait_for_all__of_a_name_after_unlike_many_meetings(ranks):
    first, second = ranks(2)
    second.enter()
    waiting = threading.Thread(target=first.wait_for_all, kwargs={"name": "stopped"}, daemon=True)
    waiting.start()
    meeting = threading.Thread(target=second.wait_for_all, kwargs={"name": "stopped"}, daemon=True)
    meeting.start()
    for thread in (waiting, meeting):
        thread.join(10)
        assert not thread.is_alive(), "the two wait for each other"


def test_wait_for_all__rank_that_is_silent(ranks):
    first, second = ranks(2)
    second.doing = "in evaluation"
    time.sleep(2 * second.interval)
    stop(second)
    with pytest.raises(LostRankError, match=r"rank 1 \(.*, silent for [12] s; last in evaluation"):
        first.wait_for_all()


def test_presence__store_that_answers_nothing_as_that_of_a_stopped_rank(ranks, monkeypatch):
    monkeypatch.setattr("detrex.utils.presence._GRACE", 0.1)
    told, answers = [], threading.Event()
    (only,) = ranks(1, timeout=0.4, on_lost=told.append)
    time.sleep(1.0)
    assert told == []
    monkeypatch.setattr(only, "_write", lambda left=False: answers.wait(20))
    wait_until(lambda: told, seconds=10)
    answers.set()
    assert "had no answer from the process of rank 0, where all meet, for" in told[0]


def test_wait_for_all__rank_that_ended(ranks):
    first, second, _ = ranks(3, timeout=30.0)
    second.leave()
    first.interval = 0.05
    with pytest.raises(LostRankError, match=r"for rank 1 \(.*, ended; last starting\)"):
        first.wait_for_all()


def test_wait_for_all__patience_ends_where_others_do_another_thing(ranks):
    first, _ = ranks(2)
    first.doing = "in evaluation"
    with pytest.raises(LostRankError, match=r"rank 1 \(.*, alive; last starting\)"):
        first.wait_for_all(patience=0.3)


def test_explain__names_who_is_silent_and_not_who_is_slow(ranks):
    first, _, third = ranks(3, timeout=2.0)
    first.enter()
    stop(third)
    assert "lost its connection to rank 2 (" in str(first.explain(RuntimeError(CLOSED)))
    assert "has waited 1 s for rank 1 (" in str(first.explain(RuntimeError(LATE)))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (RuntimeError(CLOSED), True),
        (RuntimeError("shapes do not match"), False),
        (ValueError("gloo"), False),
        (LostRankError("gone"), True),
        (None, False),
    ],
)
def test_is_of_group(error, expected):
    assert is_of_group(error) is expected
    wrapped = ValueError("wrapped")
    wrapped.__cause__ = error
    assert is_of_group(wrapped) is expected


def test_presence__warns_of_who_is_waited_for(ranks, caplog):
    first, _ = ranks(2)
    first.enter()
    wait_until(lambda: "Rank 0, starting, has waited" in caplog.text, 10)
    assert "for rank 1 (" in caplog.text
    assert "alive; last starting" in caplog.text


def test_presence__hands_a_signal_on(ranks):
    heard = []
    first, second = ranks(2, on_stop=heard.append)
    assert second.asked_to_stop() == 0
    first.ask_all_to_stop(10)
    assert second.asked_to_stop() == 10
    wait_until(lambda: len(heard) >= 2, 10)
    assert set(heard) == {10}
