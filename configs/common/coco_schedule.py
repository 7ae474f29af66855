"""Learning-rate multipliers for COCO at 16 images a batch, where an epoch is 7500 iterations.

The milestones are shares of the run, so a schedule fits any `train.max_iter`: with another batch
size only `train.max_iter` changes, to `epochs * 7500 * 16 / batch`.
"""

from detectron2.config import LazyCall as L
from detectron2.solver import WarmupParamScheduler
from fvcore.common.param_scheduler import MultiStepParamScheduler

ITERATIONS_PER_EPOCH = 7500
ITERATIONS_OF_1X = 90000


def _with_linear_warmup(values, milestones, warmup_length):
    return L(WarmupParamScheduler)(
        scheduler=L(MultiStepParamScheduler)(values=values, milestones=milestones),
        warmup_length=warmup_length,
        warmup_method="linear",
        warmup_factor=0.001,
    )


def default_X_scheduler(num_X):  # noqa: N802
    """Detectron's `num_X` times 90000 iterations: two drops by ten, 1000 iterations of warm-up.

    Up to 2x the drops stay at 2/3 and 8/9 of the run; in longer runs they come 60000 and 20000
    iterations before its end (arXiv 1811.08883).
    """
    total = num_X * ITERATIONS_OF_1X
    drops = [60000, 80000, 90000] if num_X <= 2 else [total - 60000, total - 20000, total]
    return _with_linear_warmup([1.0, 0.1, 0.01], drops, 1000 / total)


def default_coco_scheduler(epochs=50, decay_epochs=40, warmup_epochs=0):
    """The schedule of DETR and its kin: one drop by ten after `decay_epochs` of `epochs`."""
    milestones = [decay_epochs * ITERATIONS_PER_EPOCH, epochs * ITERATIONS_PER_EPOCH]
    return _with_linear_warmup([1.0, 0.1], milestones, warmup_epochs / epochs)


lr_multiplier_1x = default_X_scheduler(1)
lr_multiplier_2x = default_X_scheduler(2)
lr_multiplier_3x = default_X_scheduler(3)
lr_multiplier_6x = default_X_scheduler(6)
lr_multiplier_9x = default_X_scheduler(9)

lr_multiplier_50ep = default_coco_scheduler(50, 40, 0)
lr_multiplier_36ep = default_coco_scheduler(36, 30, 0)
lr_multiplier_24ep = default_coco_scheduler(24, 20, 0)
lr_multiplier_12ep = default_coco_scheduler(12, 11, 0)

lr_multiplier_50ep_warmup = default_coco_scheduler(50, 40, 1e-3)
lr_multiplier_12ep_warmup = default_coco_scheduler(12, 11, 1e-3)
