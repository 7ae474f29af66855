"""Learning-rate multipliers of every shape that fvcore knows, each with a warm-up.

`num_updates` is the length of the run in iterations (`train.max_iter`), which turns `warmup_steps`
into a share of it.
"""

from detectron2.config import LazyCall as L
from detectron2.solver import WarmupParamScheduler
from fvcore.common.param_scheduler import (
    ConstantParamScheduler,
    CosineParamScheduler,
    ExponentialParamScheduler,
    LinearParamScheduler,
    MultiStepParamScheduler,
    StepParamScheduler,
    StepWithFixedGammaParamScheduler,
)


def _warmed_up(scheduler, warmup_steps, num_updates, warmup_method, warmup_factor):
    return L(WarmupParamScheduler)(
        scheduler=scheduler,
        warmup_length=warmup_steps / num_updates,
        warmup_method=warmup_method,
        warmup_factor=warmup_factor,
    )


def multistep_lr_scheduler(
    values=(1.0, 0.1),
    warmup_steps=0,
    num_updates=90000,
    milestones=(82500,),
    warmup_method="linear",
    warmup_factor=0.001,
):
    """The i-th of `values` until the i-th of `milestones` (iterations), the last until the end."""
    scheduler = L(MultiStepParamScheduler)(
        values=list(values), num_updates=num_updates, milestones=list(milestones)
    )
    return _warmed_up(scheduler, warmup_steps, num_updates, warmup_method, warmup_factor)


def step_lr_scheduler(
    values=(1.0, 0.1),
    warmup_steps=0,
    num_updates=90000,
    warmup_method="linear",
    warmup_factor=0.001,
):
    """Each of `values` for an equal part of the run."""
    scheduler = L(StepParamScheduler)(values=list(values), num_updates=num_updates)
    return _warmed_up(scheduler, warmup_steps, num_updates, warmup_method, warmup_factor)


def step_lr_scheduler_with_fixed_gamma(
    base_value=1.0,
    num_decays=1,
    gamma=0.1,
    warmup_steps=0,
    num_updates=90000,
    warmup_method="linear",
    warmup_factor=0.001,
):
    """`base_value`, multiplied by `gamma` `num_decays` times at equal distances."""
    scheduler = L(StepWithFixedGammaParamScheduler)(
        base_value=base_value, num_decays=num_decays, gamma=gamma, num_updates=num_updates
    )
    return _warmed_up(scheduler, warmup_steps, num_updates, warmup_method, warmup_factor)


def cosine_lr_scheduler(
    start_value=1.0,
    end_value=0.0,
    warmup_steps=0,
    num_updates=90000,
    warmup_method="linear",
    warmup_factor=0.001,
):
    """Half a period of a cosine from `start_value` to `end_value`."""
    scheduler = L(CosineParamScheduler)(start_value=start_value, end_value=end_value)
    return _warmed_up(scheduler, warmup_steps, num_updates, warmup_method, warmup_factor)


def linear_lr_scheduler(
    start_value=1.0,
    end_value=0.0,
    warmup_steps=0,
    num_updates=90000,
    warmup_method="linear",
    warmup_factor=0.001,
):
    """A straight line from `start_value` to `end_value`."""
    scheduler = L(LinearParamScheduler)(start_value=start_value, end_value=end_value)
    return _warmed_up(scheduler, warmup_steps, num_updates, warmup_method, warmup_factor)


def constant_lr_scheduler(
    value=1.0, warmup_steps=0, num_updates=90000, warmup_method="linear", warmup_factor=0.001
):
    """The same `value` throughout."""
    scheduler = L(ConstantParamScheduler)(value=value)
    return _warmed_up(scheduler, warmup_steps, num_updates, warmup_method, warmup_factor)


def exponential_lr_scheduler(
    start_value=1.0,
    decay=0.1,
    warmup_steps=0,
    num_updates=90000,
    warmup_method="linear",
    warmup_factor=0.001,
):
    """`start_value * decay ** share_of_the_run`."""
    scheduler = L(ExponentialParamScheduler)(start_value=start_value, decay=decay)
    return _warmed_up(scheduler, warmup_steps, num_updates, warmup_method, warmup_factor)
