"""Learning-rate multipliers take the published values at the published iterations."""

import pytest
from detectron2.config import instantiate

from detrex.config import get_config
from detrex.config.configs.common import coco_schedule, common_schedule

EPOCH = 7500


@pytest.mark.parametrize(
    ("name", "epochs", "drop"),
    [("50ep", 50, 40), ("36ep", 36, 30), ("24ep", 24, 20), ("12ep", 12, 11)],
)
def test_lr_multiplier_epochs__one_drop(name, epochs, drop):
    multiplier = instantiate(get_config("common/coco_schedule.py")[f"lr_multiplier_{name}"])
    total = epochs * EPOCH
    assert multiplier(0.0) == 1.0
    assert multiplier((drop * EPOCH - 1) / total) == 1.0
    assert multiplier((drop * EPOCH + 1) / total) == pytest.approx(0.1)
    assert multiplier((total - 1) / total) == pytest.approx(0.1)


@pytest.mark.parametrize(("name", "epochs"), [("50ep_warmup", 50), ("12ep_warmup", 12)])
def test_lr_multiplier_warmup__linear_over_a_thousandth_of_an_epoch(name, epochs):
    multiplier = instantiate(get_config("common/coco_schedule.py")[f"lr_multiplier_{name}"])
    length = 1e-3 / epochs
    assert multiplier(0.0) == pytest.approx(0.001)
    assert multiplier(length / 2) == pytest.approx((0.001 + 1.0) / 2)
    assert multiplier(length * 1.01) == 1.0


@pytest.mark.parametrize(
    ("times", "drops"),
    [
        (1, (60000, 80000)),
        (2, (120000, 160000)),
        (3, (210000, 250000)),
        (6, (480000, 520000)),
        (9, (750000, 790000)),
    ],
)
def test_lr_multiplier_x__detectron(times, drops):
    multiplier = instantiate(get_config("common/coco_schedule.py")[f"lr_multiplier_{times}x"])
    total = times * 90000
    assert multiplier(0.0) == pytest.approx(0.001)
    assert multiplier(500 / total) == pytest.approx((0.001 + 1.0) / 2)
    for value, drop in zip((1.0, 0.1), drops, strict=True):
        assert multiplier((drop - 2) / total) == pytest.approx(value)
        assert multiplier((drop + 2) / total) == pytest.approx(value / 10)


def test_default_coco_scheduler__defaults():
    assert instantiate(coco_schedule.default_coco_scheduler())(0.81) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("multiplier", "where", "expected"),
    [
        (common_schedule.multistep_lr_scheduler(), 0.91, 1.0),
        (common_schedule.multistep_lr_scheduler(), 0.92, 0.1),
        (common_schedule.step_lr_scheduler(values=[1.0, 0.5, 0.2]), 0.5, 0.5),
        (common_schedule.step_lr_scheduler_with_fixed_gamma(num_decays=2, gamma=0.3), 0.5, 0.3),
        (common_schedule.cosine_lr_scheduler(), 0.5, 0.5),
        (common_schedule.linear_lr_scheduler(end_value=0.5), 0.5, 0.75),
        (common_schedule.constant_lr_scheduler(value=0.7), 0.5, 0.7),
        (common_schedule.exponential_lr_scheduler(decay=0.25), 0.5, 0.5),
    ],
)
def test_common_schedule__values(multiplier, where, expected):
    assert instantiate(multiplier)(where) == pytest.approx(expected)


def test_common_schedule__warmup_in_iterations():
    multiplier = instantiate(
        common_schedule.constant_lr_scheduler(warmup_steps=100, num_updates=1000, warmup_factor=0.5)
    )
    assert multiplier(0.0) == pytest.approx(0.5)
    assert multiplier(0.05) == pytest.approx(0.75)
    assert multiplier(0.1) == 1.0
