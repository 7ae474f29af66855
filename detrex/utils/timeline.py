"""Where the time of a run goes: every moment counts for one part, so that the parts add up."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Timeline:
    """Seconds by part, from when it is made on.

    Args:
        part: what the first moments count for.
        clock: gives seconds.
    """

    def __init__(self, part: str = "start", clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._part, self._since = part, clock()
        self._seconds: dict[str, float] = {}

    def enter(self, part: str) -> str:
        """Let the moments from now on count for a part.

        Args:
            part: its name.

        Returns:
            The part that they counted for before.
        """
        before, now = self._part, self._clock()
        self._seconds[before] = self._seconds.get(before, 0.0) + now - self._since
        self._part, self._since = part, now
        return before

    @contextmanager
    def during(self, part: str) -> Iterator[None]:
        """Let the moments within a block count for a part, but for those of blocks in it."""
        before = self.enter(part)
        try:
            yield
        finally:
            self.enter(before)

    def seconds(self) -> dict[str, float]:
        """Give the seconds of each part until now; their sum is the age of the timeline."""
        self.enter(self._part)
        return dict(self._seconds)
