"""What the keys of a run's config may hold: one dataclass for each group of keys.

A field's type is checked by omegaconf, its range by the rule in its metadata.
`detrex.config.validation` holds configs against these; here is only what is true of them.
"""
# ruff: noqa: RUF009  (`key` and `group` give dataclass fields)

import math
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, field
from typing import Any

from fvcore.common.checkpoint import PeriodicCheckpointer
from PIL.Image import MODES
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grad_norm_

ABSENT = "???"
"""The default of a key that has none: omegaconf's sign for a value that is still to be given."""

IMAGE_FORMATS = ("RGB", "BGR", "L", "YUV-BT.601", *MODES)
"""What detectron2 reads pictures as: the modes of Pillow, and two of its own."""


@dataclass(frozen=True)
class Rule:
    """The range of a key's values.

    Attributes:
        at_least: the smallest value.
        above: a bound below all values.
        at_most: the greatest value.
        below: a bound above all values.
        choices: the values, where they can be listed.
        length: the number of a list's items; each of them obeys the bounds.
        nullable: whether null is a value of its own; otherwise it stands for the default.
        infinite: whether infinity is a value.
        takes: a function whose keywords the group's further keys are.
    """

    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None
    choices: tuple[str, ...] = ()
    length: int | None = None
    nullable: bool = False
    infinite: bool = False
    takes: Any = None

    def allows(self, value: Any) -> bool:
        """Tell whether a value of the right type lies in the range.

        Args:
            value: a number, a string, a truth value, or a list of numbers.
        """
        if isinstance(value, list | tuple):
            wanted = len(value) if self.length is None else self.length
            return len(value) == wanted and all(self.allows(item) for item in value)
        if self.choices:
            return value in self.choices or value is ...
        if isinstance(value, bool) or not isinstance(value, int | float):
            return True
        if math.isnan(value) or (math.isinf(value) and not self.infinite):
            return False
        return (
            (self.at_least is None or value >= self.at_least)
            and (self.above is None or value > self.above)
            and (self.at_most is None or value <= self.at_most)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        bounds = {"of at least": self.at_least, "above": self.above}
        bounds |= {"at most": self.at_most, "below": self.below}
        return " and ".join(
            f"{name} {bound:g}" for name, bound in bounds.items() if bound is not None
        )


def key(default: Any = ABSENT, **rule: Any) -> Any:
    """Describe one key of a group.

    Args:
        default: its value where a config says nothing or null; a list or dict is copied.
        rule: see `Rule`.

    Returns:
        A dataclass field.
    """
    metadata = {"rule": Rule(**rule)}
    if isinstance(default, list | dict):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def group(kind: type, **rule: Any) -> Any:
    """Describe a group of keys inside another, which may be left out.

    Args:
        kind: the group's dataclass.
        rule: see `Rule`.

    Returns:
        A dataclass field.
    """
    return field(default_factory=kind, metadata={"rule": Rule(**rule)})


@dataclass
class Amp:
    """``train.amp``: mixed precision."""

    enabled: bool = key(False)
    dtype: str = key("float16", choices=("float16", "bfloat16"))


@dataclass
class ClipGradParams:
    """``train.clip_grad.params``: keywords of ``torch.nn.utils.clip_grad_norm_``."""

    max_norm: float = key(0.1, above=0)
    norm_type: float = key(2.0, above=0, infinite=True)
    error_if_nonfinite: bool = key(False)
    foreach: bool = key(nullable=True)


@dataclass
class ClipGrad:
    """``train.clip_grad``: clipping of gradients by their norm."""

    enabled: bool = key(False)
    params: ClipGradParams = group(ClipGradParams, takes=clip_grad_norm_)


@dataclass
class Ddp:
    """``train.ddp``: keywords of ``DistributedDataParallel``, and the compression of gradients."""

    broadcast_buffers: bool = key(False)
    find_unused_parameters: bool = key(False)
    fp16_compression: bool = key(False)


@dataclass
class Fsdp:
    """``train.fsdp``: each process keeps a part of the weights, gradients and optimizer's state."""

    enabled: bool = key(False)
    reshard_after_forward: bool = key(True)
    async_checkpoint: bool = key(True)


@dataclass
class FastDevRun:
    """``train.fast_dev_run``: a run of 20 iterations."""

    enabled: bool = key(False)


@dataclass
class Checkpointer:
    """``train.checkpointer``: when checkpoints are written, and how many stay."""

    period: int = key(5000, at_least=1)
    max_to_keep: int = key(nullable=True, at_least=1)
    file_prefix: str = key("model")


@dataclass
class Timeouts:
    """``train.timeouts``: seconds that a run waits, 0 for ever (but for ``lock``)."""

    collective: float = key(1800.0, at_least=0)
    data: float = key(600.0, at_least=0)
    lock: float = key(300.0, above=0)


@dataclass
class Wandb:
    """``train.wandb``: logging to Weights & Biases."""

    enabled: bool = key(False)
    params: dict[str, Any] = key({})


@dataclass
class ModelEma:
    """``train.model_ema``: the moving average of the weights."""

    enabled: bool = key(False)
    decay: float = key(0.999, at_least=0, at_most=1)
    device: str = key("")
    use_ema_weights_for_eval_only: bool = key(False)


@dataclass
class Inference:
    """``train.inference``: the copy of the model that is evaluated in its place.

    A null dtype is that of ``train.amp`` where it is enabled, else that of the weights.
    """

    enabled: bool = key(False)
    dtype: str = key(nullable=True, choices=("auto", "float32", "bfloat16", "float16"))
    channels_last: bool = key(True)
    fold_norms: bool = key(True)
    compile: bool = key(False)


@dataclass
class Report:
    """``train.report``: the page about a finished run."""

    enabled: bool = key(True)
    pictures: int = key(12, at_least=0)


@dataclass
class Train:
    """``train``: the run itself. Keys beyond these are the user's own."""

    max_iter: int = key(at_least=1)
    device: str = key()
    output_dir: str = key()
    init_checkpoint: str = key("")
    seed: int = key(-1, at_most=2**63 - 1)
    accumulate_steps: int = key(1, at_least=1)
    eval_period: int = key(0, at_least=0)
    log_period: int = key(20, at_least=1)
    cudnn_benchmark: bool = key(False)
    deformable_attention_kernel: str = key(
        nullable=True,
        choices=("auto", "grid_sample", "rows", "triton", "detrex._C", "mmcv", "kernels"),
    )
    amp: Amp = group(Amp)
    clip_grad: ClipGrad = group(ClipGrad)
    ddp: Ddp = group(Ddp, takes=DistributedDataParallel)
    fsdp: Fsdp = group(Fsdp)
    fast_dev_run: FastDevRun = group(FastDevRun)
    checkpointer: Checkpointer = group(Checkpointer, takes=PeriodicCheckpointer)
    timeouts: Timeouts = group(Timeouts)
    wandb: Wandb = group(Wandb)
    model_ema: ModelEma = group(ModelEma)
    inference: Inference = group(Inference)
    report: Report = group(Report)


@dataclass
class Dataloader:
    """``dataloader``, beside its loaders and its evaluator."""

    on_bad_image: str = key(choices=("error", "skip"))


@dataclass
class Loader:
    """``dataloader.train`` and ``dataloader.test``, whatever function they call."""

    total_batch_size: int = key(at_least=1)
    batch_size: int = key(at_least=1)
    num_workers: int = key(at_least=0)
    prefetch_factor: int = key(at_least=1, nullable=True)
    pin_memory: bool = key(nullable=True)
    persistent_workers: bool = key(nullable=True)
    aspect_ratio_grouping: bool = key()
    drop_last: bool = key()


@dataclass
class Dataset:
    """``dataloader.train.dataset`` and ``dataloader.test.dataset``."""

    filter_empty: bool = key()
    min_keypoints: int = key(at_least=0)


@dataclass
class Mapper:
    """``dataloader.train.mapper`` and ``dataloader.test.mapper``, whatever class they call."""

    img_format: str = key(choices=IMAGE_FORMATS)
    image_format: str = key(choices=IMAGE_FORMATS)


@dataclass
class Evaluator:
    """``dataloader.evaluator``, whatever class it calls."""

    dataset_name: str = key()
    output_dir: str = key(nullable=True)
    distributed: bool = key()
    use_fast_impl: bool = key()
    allow_cached_coco: bool = key()


@dataclass
class Optimizer:
    """``optimizer``, whatever class it calls."""

    lr: float = key(above=0)
    weight_decay: float = key(at_least=0)
    betas: list[float] = key(at_least=0, below=1, length=2)
    momentum: float = key(at_least=0)
    eps: float = key(at_least=0)


@dataclass
class OptimizerParams:
    """``optimizer.params``, whatever function it calls."""

    base_lr: float = key(above=0, nullable=True)
    weight_decay: float = key(at_least=0, nullable=True)
    weight_decay_norm: float = key(at_least=0, nullable=True)
    weight_decay_bias: float = key(at_least=0, nullable=True)
    bias_lr_factor: float = key(at_least=0, nullable=True)
    decay_rate: float = key(above=0, at_most=1)
    num_layers: int = key(at_least=1, nullable=True)


@dataclass
class Warmup:
    """``lr_multiplier`` where it has a warm-up."""

    warmup_length: float = key(at_least=0, at_most=1)
    warmup_factor: float = key(at_least=0)
    warmup_method: str = key(choices=("linear", "constant"))


GROUPS: Mapping[str, type] = {
    "train": Train,
    "optimizer": Optimizer,
    "optimizer.params": OptimizerParams,
    "lr_multiplier": Warmup,
    "dataloader": Dataloader,
    "dataloader.train": Loader,
    "dataloader.train.dataset": Dataset,
    "dataloader.train.mapper": Mapper,
    "dataloader.test": Loader,
    "dataloader.test.dataset": Dataset,
    "dataloader.test.mapper": Mapper,
    "dataloader.evaluator": Evaluator,
}
"""The groups by their place in a config; ``train`` alone gets defaults for what it lacks."""

_COUNT = Rule(at_least=1)
_SHARE = Rule(at_least=0, at_most=1)
_NOT_NEGATIVE = Rule(at_least=0)


def _each(rule: Rule, names: str) -> Iterable[tuple[str, Rule]]:
    return ((name, rule) for name in names.split())


ARGUMENTS: Mapping[str, Rule] = dict(
    [
        *_each(
            _COUNT,
            "num_queries num_classes num_layers num_heads num_outs num_feature_levels embed_dim "
            "feedforward_dim two_stage_num_proposals select_box_nums_for_evaluation num_pos_feats "
            "in_channels out_channels hidden_dim input_dim output_dim num_groups num_channels "
            "kernel_size stride dilation groups num_blocks max_size num_anchors num_keypoints "
            "batch_size_per_image pre_nms_topk post_nms_topk",
        ),
        *_each(
            _SHARE,
            "attn_dropout ffn_dropout dropout drop_path_rate label_noise_ratio prob "
            "positive_fraction nms_thresh test_nms_thresh test_score_thresh",
        ),
        *_each(
            _NOT_NEGATIVE,
            "dn_number box_noise_scale vis_period cost_class cost_bbox cost_giou gamma eos_coef "
            "eps padding short_edge_length focal_loss_gamma smooth_l1_beta",
        ),
        *_each(Rule(above=0), "temperature pixel_std"),
        ("offset", Rule()),
        ("input_format", Rule(choices=("RGB", "BGR"))),
        ("norm_type", Rule(above=0, infinite=True)),
    ]
)
"""Ranges by name of what constructors take, wherever it stands in the model or the loaders.

Names that have another meaning in some library are left to the constructors, such as ``alpha``, of
which -1 switches a loss's balance off.
"""


def default_of(one: Any) -> Any:
    """Give the default of a group's field.

    Args:
        one: a dataclass field.

    Returns:
        The value, a fresh one where it is a list or a group; `ABSENT` where there is none.
    """
    return one.default if one.default_factory is MISSING else one.default_factory()
