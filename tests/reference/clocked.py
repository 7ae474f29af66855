"""Calls with known costs, on a clock of their own."""


def clocked(costs):
    """Calls that each let a clock go on by what they cost, which may differ from call to call."""
    now, order = [0.0], []

    def call(name):
        order.append(name)
        now[0] += next(costs[name])

    calls = {name: lambda name=name: call(name) for name in costs}
    return calls, (lambda: now[0]), order
