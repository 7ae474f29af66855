from detrex.modeling.inference.trial import least_times


def test_least_times__takes_turns_and_leaves_the_first_out():
    calls = []

    def slow_at_first():
        if len(calls) > 3:
            calls.append("a")
            return
        calls.append("a")
        sum(range(300_000))

    def slow():
        calls.append("b")
        sum(range(300_000))

    first, second = least_times("cpu", slow_at_first, slow)
    assert calls == ["a", "b"] * 10
    assert first < second
