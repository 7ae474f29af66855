"""What networks of four stages share: the names, strides and statistics of their feature maps."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import torch
from detectron2.modeling.backbone import Backbone
from torch import nn

from detrex.errors import BackboneError
from detrex.modeling.pixel_statistics import IMAGENET, PixelStatistics

from .features.output_levels import check_out_features, level_name
from .training.freezing import KeepsFrozen

NUM_STAGES = 4


class StagedBackbone(KeepsFrozen, Backbone):
    """Network of four stages, each of half the resolution of the one before.

    Outputs come from the finest to the coarsest. They are ``p0`` to ``p3``, named by the stage, or
    are called as detectron2 names strides: ``res2`` for 4, ``res3`` for 8.

    Args:
        channels: channels of each stage's feature map.
        stride: stride of the first stage in pixels; it doubles from stage to stage.
        out_indices: stages whose feature maps are put out, 0 to 3.
        in_chans: channels of the image.
        out_features: in the place of `out_indices`, outputs by detectron2's names.

    Attributes:
        out_indices: stages whose feature maps are put out, in ascending order.
        output_names: name of the output of each of these stages.
        strides: stride of each stage in pixels.
        preprocess: ImageNet's statistics in RGB.

    Raises:
        TypeError: `out_indices` is no sequence of integers, or `out_features` none of names.
        BackboneError: either is empty, or names a stage twice or one that there is not; or both are
            given.
    """

    preprocess: PixelStatistics

    def __init__(
        self,
        channels: Sequence[int],
        stride: int,
        out_indices: Sequence[int],
        in_chans: int,
        out_features: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        self.strides = tuple(stride * 2**stage for stage in range(NUM_STAGES))
        indices = check_integers(type(self).__name__, "out_indices", out_indices)
        if not indices or len(set(indices)) < len(indices) or not set(indices) <= {0, 1, 2, 3}:
            raise BackboneError(
                f"{type(self).__name__} has the stages 0, 1, 2 and 3, got out_indices={indices}: "
                "name at least one of them, each at most once."
            )
        names = {stage: f"p{stage}" for stage in sorted(indices)}
        if out_features is not None:
            names = self._names_by_stride(out_features, indices)
        self.output_names = names
        self.out_indices = tuple(names)
        self.preprocess = IMAGENET.with_channels(in_chans)
        self._out_features = list(names.values())
        self._out_feature_channels = {name: channels[stage] for stage, name in names.items()}
        self._out_feature_strides = {name: self.strides[stage] for stage, name in names.items()}

    def _names_by_stride(self, out_features: Sequence[str], indices: list[int]) -> dict[int, str]:
        stages = {
            level_name(stride): stage
            for stage, stride in enumerate(self.strides)
            if stride.bit_count() == 1
        }
        if not stages:
            raise BackboneError(
                f"{type(self).__name__} has the strides {self.strides}, which are no powers of two "
                "and have no names: use out_indices."
            )
        names = check_out_features(out_features, stages, type(self).__name__)
        if indices != [0, 1, 2, 3]:
            raise BackboneError(
                f"got out_features={names} beside out_indices={indices}, which say the same in two "
                "ways: leave one of them out."
            )
        return dict(sorted((stages[name], name) for name in names))

    @property
    def size_divisibility(self) -> int:
        """Multiple of pixels to which images are best padded: the stride of the last stage."""
        return self.strides[-1]

    def _with_idle(
        self, outputs: dict[str, torch.Tensor], idle: Iterable[nn.Module]
    ) -> dict[str, torch.Tensor]:
        """Give parameters of stages that no output needs a gradient of zero.

        The stages are there for the names of checkpoints, and DistributedDataParallel waits for the
        gradient of everything that learns.
        """
        parameters = [p for module in idle for p in module.parameters() if p.requires_grad]
        if parameters and torch.is_grad_enabled():
            name = self._out_features[-1]
            outputs[name] = outputs[name] + 0 * sum(p.flatten()[0] for p in parameters)
        return outputs


def check_integer(who: str, name: str, value: int, low: int, high: int | None = None) -> int:
    """Check an integer keyword of a constructor.

    Args:
        who: name of the class, here and in the checks below.
        name: the keyword, likewise.
        value: what was given.
        low: the least value.
        high: the greatest value, None for no limit.

    Returns:
        The value.

    Raises:
        BackboneError: it is no integer, or out of range.
    """
    return _check_range(who, name, value, low, high, Integral)


def check_integers(who: str, name: str, values: Sequence[int]) -> list[int]:
    """Check a keyword that is a sequence of integers, or a list of a config, and give them.

    Raises:
        TypeError: something else, such as what can be read but once.
    """
    is_sequence = hasattr(values, "__getitem__") and not isinstance(values, str | bytes | Mapping)
    try:
        numbers = list(values) if is_sequence else []
    except TypeError:  # an array of no dimension
        is_sequence, numbers = False, []
    if not is_sequence or not all(_is(number, Integral) for number in numbers):
        raise TypeError(f"{who} takes a sequence of integers as {name}, got {values!r:.80}.")
    return [int(number) for number in numbers]


def check_stages(who: str, name: str, values: Sequence[int], low: int = 1) -> list[int]:
    """Check a keyword that has an integer of at least `low` for each stage, and give the four.

    Raises:
        TypeError: something that is not a sequence of integers.
        BackboneError: they are not four, or one is too small.
    """
    numbers = check_integers(who, name, values)
    if len(numbers) != NUM_STAGES or min(numbers) < low:
        raise BackboneError(
            f"{who} has four stages and takes four integers of at least {low} as {name}, got "
            f"{numbers!s:.80}."
        )
    return numbers


def check_number(who: str, name: str, value: float, low: float, high: float | None = None) -> float:
    """Check a keyword that is a number, such as a probability; as `check_integer`.

    Raises:
        BackboneError: it is no finite number, or out of range.
    """
    return _check_range(who, name, value, low, high, Real)


def check_builder(who: str, name: str, value: Callable[..., nn.Module]) -> None:
    """Check a keyword that builds a layer.

    Raises:
        TypeError: something else, such as a layer itself.
    """
    if not callable(value) or isinstance(value, nn.Module):
        raise TypeError(
            f"{who} takes a class or function that builds a layer as {name}, such as "
            f"torch.nn.LayerNorm or torch.nn.GELU, got {' '.join(repr(value).split()):.80}."
        )


def drop_path_rates(rate: float, depths: Sequence[int]) -> list[list[float]]:
    """Spread stochastic depth (arXiv:1603.09382) linearly over the blocks of all stages.

    Args:
        rate: probability of dropping the last block; the first is never dropped.
        depths: number of blocks of each stage.

    Returns:
        A probability for each block of each stage.
    """
    step = rate / max(sum(depths) - 1, 1)
    firsts = [sum(depths[:stage]) for stage in range(len(depths))]
    return [
        [step * (first + block) for block in range(depth)]
        for first, depth in zip(firsts, depths, strict=True)
    ]


def init_weights(module: nn.Module, kinds: Any = nn.Linear) -> None:
    """Start a layer of some kinds from a truncated normal distribution, its bias from zero."""
    if isinstance(module, kinds):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _is(value: Any, kind: type) -> bool:
    """Whether it is a number of the kind, NumPy's too; True and False are none."""
    return isinstance(value, kind) and not isinstance(value, bool)


def _check_range(
    who: str, name: str, value: Any, low: float, high: float | None, kind: type
) -> Any:
    greatest = math.inf if high is None else high
    is_number = _is(value, kind) and math.isfinite(value)
    if not is_number or not low <= value <= greatest:
        limits = f" of at least {low}" if high is None else f" from {low} to {high}"
        limits = limits if math.isfinite(low) else ""
        article = "a number" if kind is Real else "an integer"
        raise BackboneError(f"{who} takes {article}{limits} as {name}, got {value!r:.80}.")
    return value
