import pytest

from detrex.utils.timeline import Timeline


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def test_timeline__parts_add_up_and_inner_blocks_count_for_themselves_alone():
    clock = Clock()
    timeline = Timeline("start", clock)
    clock.now += 1
    timeline.enter("rest")
    clock.now += 2
    with timeline.during("step"):
        clock.now += 4
        with timeline.during("data"):
            clock.now += 8
        clock.now += 16
    clock.now += 32
    assert timeline.seconds() == {"start": 1, "rest": 34, "step": 20, "data": 8}
    clock.now += 64
    assert timeline.seconds()["rest"] == 98
    assert sum(timeline.seconds().values()) == clock.now - 100


def test_timeline__a_block_that_fails_ends_its_part():
    clock = Clock()
    timeline = Timeline("rest", clock)

    def fail():
        with timeline.during("step"):
            clock.now += 1
            raise ValueError("x")

    with pytest.raises(ValueError, match="x"):
        fail()
    clock.now += 2
    assert timeline.seconds() == {"rest": 2, "step": 1}
