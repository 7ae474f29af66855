"""Signs of life of the ranks of a run: who is waited for, since when, and what it does.

A thread of each rank writes a sign into the meeting's store every few seconds, and reads those of
the others while this rank waits. So a rank that is stopped, or whose machine is gone, is told from
one that is busy with something that the others do not do, such as metrics on the main process.
"""

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from torch.distributed import DistError

from detrex.errors import DetrexError
from detrex.utils.meeting import Meeting, identity, warn_after

logger = logging.getLogger(__name__)

_LONGEST_INTERVAL = 2.0
_GRACE = 10.0
_LONG_AGO = float("inf")
_GLOO = ("gloo", "Connection closed by peer", "Connection reset by peer", "Broken pipe")


class LostRankError(DetrexError):
    """The other ranks did not come in time, or are gone; there is nobody left to tell."""

    is_from_exchange = True
    is_lost = True


@dataclass
class _Sign:
    """What a rank last wrote, and when this process saw it change."""

    beat: int
    calls: int
    doing: str
    who: str
    left: bool
    seen: float


class Presence:
    """This process among those of its meeting.

    Args:
        meeting: where all have come.
        on_stop: called, in the thread, with the signal's number when another rank was asked to
            stop.
        on_lost: called, in the thread, with the sentence when the time-out has passed, and this
            rank is still held in a call that does not end by itself.
    """

    def __init__(
        self,
        meeting: Meeting,
        on_stop: Callable[[int], None] = lambda _: None,
        on_lost: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.meeting = meeting
        self.doing = "starting"
        self._on_stop, self._on_lost = on_stop, on_lost
        self._warn = warn_after(meeting.timeout)
        self.interval = min(_LONGEST_INTERVAL, self._warn / 4)
        self._calls, self._called_at = 0, time.monotonic()
        self._beat, self._next_warning = 0, self._warn
        self._signs: dict[int, _Sign] = {}
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._told, self._rounds = False, 0
        self._write()
        self._thread = threading.Thread(target=self._live, name="detrex presence", daemon=True)
        self._thread.start()
        threading.Thread(target=self._watch, name="detrex presence watch", daemon=True).start()

    def enter(self) -> None:
        """Note that this rank enters a call in which all meet."""
        self._calls += 1
        self._called_at = time.monotonic()
        self._next_warning = self._warn

    def leave(self) -> None:
        """Say that this rank ends, and give no more signs."""
        self._ended.set()
        self._thread.join(5)
        try:
            self._write(left=True)
        except DistError:
            logger.debug("The store is gone before this rank.")

    def ask_all_to_stop(self, signum: int) -> None:
        """Hand a signal on to all ranks."""
        with self._lock:
            self.meeting.signs.set("stop", str(signum))

    def asked_to_stop(self) -> int:
        """Give the number of the signal that some rank handed on, 0 for none."""
        with self._lock:
            signs = self.meeting.signs
            return int(signs.get("stop")) if signs.check(["stop"]) else 0

    def wait_for_all(self, patience: float = _LONG_AGO, name: str = "") -> None:
        """Wait until all ranks have called this, however long, while those that lack are alive.

        Args:
            patience: seconds for ranks that are not `doing` the same as this one.
            name: of the one meeting that it is, for ranks that have met unlike often before.

        Raises:
            LostRankError: a rank ended, or gave no sign of life for the time-out.
        """
        self.enter()
        store, key = self.meeting.store, f"wait/{name or self._calls}"
        with self._lock:
            self._write()
        start, pause = time.monotonic(), 0.01
        look = start + 2 * self.interval
        store.add(key, 1)
        while store.add(key, 0) < self.meeting.world_size:
            time.sleep(pause)
            pause = min(pause * 1.2, 0.5)
            if time.monotonic() < look:
                continue
            look = time.monotonic() + self.interval
            gone = [
                (rank, sign)
                for rank, sign in self._late().items()
                if sign.left
                or time.monotonic() - sign.seen > self.meeting.timeout
                or (time.monotonic() - start > patience and sign.doing != self.doing)
            ]
            if gone:
                raise LostRankError(self._waits(dict(gone)))
        self._called_at = time.monotonic()

    def explain(self, error: BaseException) -> LostRankError | None:
        """Turn an error of the process group into a sentence on who is gone.

        Args:
            error: what a collective call raised, or what was raised from it.

        Returns:
            The error to raise in its place; None where it is of another kind.
        """
        if isinstance(error, LostRankError):
            return error
        if getattr(error, "is_from_exchange", False) or not is_of_group(error):
            return None
        timed_out = "imed out" in str(error)
        deadline = time.monotonic() + (0 if timed_out else 3 * self.interval)
        while True:
            late = self._late(behind=timed_out, stale=2 * self.interval)
            if late or time.monotonic() >= deadline:
                return LostRankError(self._waits(late) if timed_out else self._lost(late))
            time.sleep(self.interval / 2)

    def _live(self) -> None:
        while not self._ended.wait(self.interval):
            try:
                with self._lock:
                    self._write()
                if signum := self.asked_to_stop():
                    self._on_stop(signum)
                waited = time.monotonic() - self._called_at
                if waited > 2 * self.interval:
                    self._look(waited)
            except DistError:  # rank 0 or torchrun's store is gone: the calls will fail and say so
                pass
            self._rounds += 1

    def _watch(self) -> None:
        """Tell of a store that takes calls and answers none, as that of a stopped rank 0 does."""
        seen, silent = 0, 0.0
        while not self._ended.wait(self.interval):  # counted, for this process may be stopped too
            seen, silent = self._rounds, silent + self.interval if seen == self._rounds else 0.0
            if silent > self.meeting.timeout + _GRACE and not self._told:
                self._told = True
                self._on_lost(
                    f"Rank {self.meeting.rank}, {self.doing}, had no answer from the process of "
                    f"rank 0, where all meet, for {silent:.0f} s, train.timeouts.collective="
                    f"{self.meeting.timeout:g} s at most: it is stopped or its machine is gone."
                )

    def _look(self, waited: float) -> None:
        late = self._late(stale=self._warn)
        if not late:
            return
        if waited >= self._next_warning:
            self._next_warning = 2 * waited
            logger.warning("%s", self._waits(late))
        dead = {
            rank: sign
            for rank, sign in late.items()
            if time.monotonic() - sign.seen > self.meeting.timeout + _GRACE
        }
        if dead and not self._told:
            self._told = True
            self._on_lost(self._waits(dead))

    def _write(self, left: bool = False) -> None:
        self._beat += 1
        sign = [self._beat, self._calls, self.doing, identity(), left]
        self.meeting.signs.set(f"sign/{self.meeting.rank}", json.dumps(sign))

    def _late(self, behind: bool = True, stale: float = _LONG_AGO) -> dict[int, _Sign]:
        """The ranks that ended, gave no sign for long or, `behind`, have entered fewer calls."""
        now, found = time.monotonic(), {}
        for rank in range(self.meeting.world_size):
            if rank == self.meeting.rank:
                continue
            sign = self._read(rank, now)
            if sign is None:
                continue
            if sign.left or now - sign.seen > stale or (behind and sign.calls < self._calls):
                found[rank] = sign
        return found

    def _read(self, rank: int, now: float) -> _Sign | None:
        key, signs = f"sign/{rank}", self.meeting.signs
        known = self._signs.get(rank)
        try:
            with self._lock:
                if not signs.check([key]):
                    return None
                beat, calls, doing, who, left = json.loads(signs.get(key))
        except DistError:  # the store went with rank 0
            return known if rank == 0 else None
        seen = known.seen if known and known.beat == beat else now
        self._signs[rank] = _Sign(beat, calls, doing, who, left, seen)
        return self._signs[rank]

    def _waits(self, late: dict[int, _Sign]) -> str:
        waited = time.monotonic() - self._called_at
        return (
            f"Rank {self.meeting.rank}, {self.doing}, has waited {waited:.0f} s for "
            f"{self._named(late)}, train.timeouts.collective={self.meeting.timeout:g} s at most: "
            "one that is silent is stopped or its machine is gone; see its log."
        )

    def _lost(self, late: dict[int, _Sign]) -> str:
        return (
            f"Rank {self.meeting.rank}, {self.doing}, lost its connection to {self._named(late)}: "
            "its process ended or its machine is gone; the first error in the logs of the other "
            "ranks says why."
        )

    def _named(self, late: dict[int, _Sign]) -> str:
        now, named = time.monotonic(), []
        for rank, sign in list(late.items())[:3]:
            state = "ended" if sign.left else f"silent for {now - sign.seen:.0f} s"
            if not sign.left and now - sign.seen < 2 * self.interval:
                state = "alive"
            named.append(f"rank {rank} ({sign.who}, {state}; last {sign.doing})")
        more = f" and {len(late) - 3} more" if len(late) > 3 else ""
        return ", ".join(named) + more or "another rank"


_here: list[Presence] = []


@contextmanager
def presence(one: Presence) -> Iterator[Presence]:
    """Make a presence that of this process, until the block's end.

    Args:
        one: it leaves at the end.
    """
    _here.append(one)
    try:
        yield one
    finally:
        _here.remove(one)
        one.leave()


def present() -> Presence | None:
    """Give this process's presence, None where `detrex.engine.launch` made no group."""
    return _here[-1] if _here else None


@contextmanager
def doing(what: str) -> Iterator[None]:
    """Say to the other ranks what this one does in a block, or what it did last.

    Args:
        what: some words, such as ``"in iteration 7"``.
    """
    here = present()
    before = here.doing if here else ""
    if here:
        here.doing = what
    yield
    if here:
        here.doing = before


def wait_for_all(patience: float = _LONG_AGO, name: str = "") -> None:
    """Wait for ranks that do more than this one, longer than the time-out where they are alive.

    Args:
        patience: see `Presence.wait_for_all`.
        name: likewise.

    Raises:
        LostRankError: a rank ended, or gave no sign of life for the time-out.
    """
    if here := present():
        here.wait_for_all(patience, name)


@contextmanager
def waited_for() -> Iterator[None]:
    """Wait for all ranks at the end of a block that takes some of them long, and errors too."""
    with ExitStack() as stack:
        stack.push(_wait_unless_stopped)
        yield


def _wait_unless_stopped(kind: type[BaseException] | None, *_: object) -> None:
    if kind is None or issubclass(kind, Exception):
        wait_for_all()


def explain(error: BaseException) -> LostRankError | None:
    """Turn an error of the process group into a sentence; see `Presence.explain`."""
    here = present()
    return here.explain(error) if here else None


def is_of_group(error: BaseException | None) -> bool:
    """Tell whether an error, or one that it comes from, is that of a process group."""
    while error is not None:
        text = str(error)
        if isinstance(error, DistError | LostRankError) or (
            type(error) is RuntimeError and any(mark in text for mark in _GLOO)
        ):
            return True
        error = error.__cause__ or error.__context__
    return False
