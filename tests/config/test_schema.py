import dataclasses
import re

import pytest

from detrex.config import get_config
from detrex.config.schema import ABSENT, Rule, Train, default_of
from detrex.engine import do_train


@pytest.mark.parametrize(
    ("rule", "inside", "outside"),
    [
        (Rule(at_least=1), [1, 7], [0, -1, float("nan"), float("inf")]),
        (Rule(above=0), [1e-9], [0, -1]),
        (Rule(at_least=0, at_most=1), [0, 1, 0.5], [1.001, -0.001]),
        (Rule(at_least=0, below=1, length=2), [[0, 0.9]], [[0.9], [0, 1], [0, 0.1, 0.2]]),
        (Rule(choices=("a", "b")), ["a"], ["c", 3]),
        (Rule(above=0, infinite=True), [float("inf")], [float("-inf"), float("nan")]),
        (Rule(at_least=5), ["text", True, None], []),
    ],
)
def test_rule__allows(rule, inside, outside):
    assert all(map(rule.allows, inside))
    assert not any(map(rule.allows, outside))


def test_rule__says_its_bounds():
    assert str(Rule(at_least=0, below=1)) == "of at least 0 and below 1"


def _keys(kind, path="train"):
    for one in dataclasses.fields(kind):
        yield f"{path}.{one.name}", one
        if dataclasses.is_dataclass(one.type):
            yield from _keys(one.type, f"{path}.{one.name}")


def test_train__describes_every_documented_key():
    described = {name for name, _ in _keys(Train)}
    documented = set(re.findall(r"``(train\.[\w.]+)``", do_train.__doc__))
    common = get_config("common/train.py").train
    written = {f"train.{key}" for key in common}
    written |= {f"train.{k}.{j}" for k, v in common.items() if hasattr(v, "items") for j in v}
    assert documented | written <= described


def test_default_of__groups_are_fresh():
    fields = {one.name: one for one in dataclasses.fields(Train)}
    assert default_of(fields["max_iter"]) == ABSENT
    assert default_of(fields["log_period"]) == 20
    assert default_of(fields["amp"]) is not default_of(fields["amp"])
