"""From the feature maps of a network to the levels that are asked for by stride.

A level whose stride the network has is that map, untouched. The others are computed::

    plain networks    every level from a map of the one stride, as in ViTDet (arXiv:2203.16527,
                      section 3): transposed convolutions up, max pooling down, then a 1x1 and a
                      3x3 convolution with layer norm
    partial pyramids  the missing level from the nearest map, in the same way
    odd strides       (14 of DINOv2, 12 and 17 of CrossViT) are first resampled to the nearest power
                      of two, so that the strides published are true
"""

import dataclasses
import math
from collections.abc import Collection, Iterable, Sequence

from detrex.errors import BackboneError, did_you_mean

from .coverage import Coverage
from .feature_info import FeatureInfo, FeatureMaps
from .input_size import InputSize
from .network_spec import NetworkSpec

MADE_STRIDES = (4, 8, 16, 32)
"""Strides of levels that are computed where a network lacks them."""

# Resampling by up to 2 ** 0.75 is done in one step; beyond that a learned step of 2 comes first.
_NEAREST = 0.75


@dataclasses.dataclass(frozen=True)
class Level:
    """One output of a backbone that was asked for by stride.

    Attributes:
        name: ``res{log2 stride}``.
        stride: pixels of the input per cell.
        source: the network's map that it comes from.
        resampled_stride: stride to which that map is resampled first, or None.
        log2_scale: how often its sides are then doubled by learned layers; halved where negative.
        learned: whether it passes learned layers at all.
    """

    name: str
    stride: int
    source: FeatureInfo
    resampled_stride: int | None = None
    log2_scale: int = 0
    learned: bool = False

    @property
    def is_direct(self) -> bool:
        """Whether the level is the network's map itself."""
        return self.resampled_stride is None and not self.learned

    def channels(self, out_channels: int | None) -> int:
        """Give its channels: those of its map where nothing is learned, or nothing is asked for."""
        return out_channels if out_channels and self.learned else self.source.channels

    def published(self, out_channels: int | None) -> FeatureInfo:
        """Describe the level as an output."""
        channels = self.channels(out_channels)
        steps = []
        if self.resampled_stride is not None:
            steps.append(f"resampled to stride {self.resampled_stride}")
        if self.learned:
            power = 2 ** abs(self.log2_scale)
            scale = f"x{power}" if self.log2_scale >= 0 else f"x1/{power}"
            steps.append(f"learned pyramid level {scale}")
        return FeatureInfo(
            self.name, self.source.source, channels, self.stride, derivation=", ".join(steps)
        )


def level_name(stride: int) -> str:
    """Name the level of a stride as detectron2 names maps of a bottom-up network: 8 is ``res3``.

    (Levels of a neck are ``p3``: FPN would take its backbone's output of that name for its own.)
    """
    return f"res{round(math.log2(stride))}"


def _check_out_strides(out_strides: Sequence[int], strides: Sequence[int], who: str) -> list[int]:
    is_row = isinstance(out_strides, Iterable) and not isinstance(out_strides, str)
    given = list(out_strides) if is_row else []
    if not is_row or any(type(stride) is not int for stride in given):
        raise TypeError(
            f"out_strides must be a sequence of integers such as (8, 16, 32), got {out_strides!r}."
        )
    there = sorted(set(strides))
    possible = {*there, *MADE_STRIDES}
    named = [level_name(stride) for stride in given if stride in possible]
    if not given or len(named) < len(given) or len(set(named)) < len(named):
        made = ", ".join(map(str, sorted(set(MADE_STRIDES) - set(there))))
        raise BackboneError(
            f"{who} has maps of the strides {', '.join(map(str, there))}"
            f"{f' ({made} can be made of them)' if made else ''}, got out_strides={tuple(given)}: "
            "choose among these, each level at most once; coarser levels are the neck's (num_outs)."
        )
    return given


def requested_strides(
    out_strides: Sequence[int] | None,
    out_features: Sequence[str] | None,
    strides: Sequence[int],
    who: str,
) -> list[int] | None:
    """Settle what a user asks for by stride, or by the names that detectron2 gives to strides.

    Args:
        out_strides: strides in pixels.
        out_features: names as of `level_name`.
        strides: those of the network's maps.
        who: name of the network, for the message.

    Returns:
        The strides in the order given, None where neither is given.

    Raises:
        TypeError: no sequence of integers, or of names.
        BackboneError: both are given, or one of them names no level, or one twice.
    """
    if out_features is None:
        return None if out_strides is None else _check_out_strides(out_strides, strides, who)
    levels = _strides_by_name(strides)
    names = check_out_features(out_features, levels, who)
    if out_strides is not None:
        raise BackboneError(
            f"got out_features={names} beside out_strides={out_strides!r}, which say the same in "
            "two ways: leave one of them out."
        )
    return [levels[name] for name in names]


def check_out_features(
    out_features: Sequence[str], choices: Collection[str], who: str
) -> list[str]:
    """Check the names of outputs that a user asks for.

    Args:
        out_features: names of levels.
        choices: those that the network has.
        who: name of the network, for the message.

    Returns:
        The names, in the order given.

    Raises:
        TypeError: something that is not a sequence of names.
        BackboneError: no name, one that is not among `choices`, or one given twice.
    """
    is_row = isinstance(out_features, Iterable) and not isinstance(out_features, str)
    names = list(out_features) if is_row else []
    if not is_row or not all(isinstance(name, str) for name in names):
        raise TypeError(
            "out_features must be a sequence of names such as ('res3', 'res4', 'res5'), got "
            f"{out_features!r}."
        )
    unknown = [name for name in names if name not in choices]
    if not names or unknown or len(set(names)) < len(names):
        hint = did_you_mean(unknown[0], choices) if unknown else ""
        raise BackboneError(
            f"{who} gives the levels {', '.join(choices)}, got out_features={names}: name some of "
            f"these, each at most once.{hint}"
        )
    return names


def _strides_by_name(strides: Iterable[int]) -> dict[str, int]:
    """Strides of all possible levels by name; of two the one nearer to its power."""
    powers_last = sorted({*strides, *MADE_STRIDES}, key=lambda s: abs(math.log2(s) % 1 - 0.5))
    named = {level_name(stride): stride for stride in powers_last}
    return dict(sorted(named.items(), key=lambda item: item[1]))


def plan_levels(
    out_strides: Sequence[int], features: Sequence[FeatureInfo], one_each: bool = False
) -> list[Level]:
    """Decide how each level comes from a network's maps.

    Args:
        out_strides: strides as `requested_strides` gave them.
        features: the network's maps in the order in which it computes them; of several with one
            stride the last is taken.
        one_each: take for each level the feature at its place, which the user has chosen.

    Returns:
        The levels, in the order of `out_strides`.
    """
    strides = {feature.stride for feature in features}
    is_plain = len(strides) == 1
    levels = []
    for place, stride in enumerate(out_strides):
        nearest = min(strides, key=lambda s, wanted=stride: (abs(math.log2(s / wanted)), s))  # type: ignore[misc]
        feature = features[place] if one_each else [t for t in features if t.stride == nearest][-1]
        if feature.stride == stride and not is_plain:
            levels.append(Level(level_name(stride), stride, feature))
            continue
        log2_scale = math.ceil(math.log2(feature.stride / stride) - _NEAREST)
        between = round(stride * 2.0**log2_scale)
        resampled = None if between == feature.stride else between
        learned = is_plain or log2_scale != 0
        levels.append(Level(level_name(stride), stride, feature, resampled, log2_scale, learned))
    return levels


@dataclasses.dataclass(frozen=True)
class OutputSpec:
    """What is wanted of a network, and what that needs of images.

    Attributes:
        maps: the network's maps that are taken.
        levels: what is computed of them; None where the maps are the outputs themselves.
        input_size: images that the network takes, and of which all outputs cover the whole.
        out_channels: channels of the levels that pass learned layers; those of their map if None.
    """

    maps: FeatureMaps
    levels: tuple[Level, ...] | None
    input_size: InputSize
    out_channels: int | None = None

    @classmethod
    def of(
        cls,
        spec: NetworkSpec,
        maps: Iterable[FeatureInfo],
        levels: Sequence[Level] | None = None,
        out_channels: int | None = None,
    ) -> "OutputSpec":
        """Settle what is needed of images for some outputs.

        Args:
            spec: the network.
            maps: those of its features that are taken; see `sources_of`.
            levels: what is asked for by stride; None gives the maps as the library does, without
                the image's border where convolutions leave that out.
            out_channels: channels of levels that pass learned layers; None for those of their map.

        Raises:
            BackboneError: a map follows no image's size, or `out_channels` is given for nothing.
        """
        maps = FeatureMaps(tuple(maps))
        coverage = _coverage(spec.name, maps)
        coverage = coverage if levels is not None else coverage.without_margin
        input_size = dataclasses.replace(spec.input_size, coverage=coverage)
        if levels is None or _are_maps(levels, input_size):
            levels = [Level(f.name, f.stride, f) for f in maps] if input_size.tile else None
        if levels is not None:
            resampled = [lv.source.stride for lv in levels if lv.resampled_stride is not None]
            multiple = math.lcm(input_size.multiple, *([] if input_size.tile else resampled))
            cells = tuple(level.stride for level in levels)
            input_size = dataclasses.replace(input_size, multiple=multiple, cells=cells)
        if out_channels is not None and not any(level.learned for level in levels or ()):
            channels = ", ".join(f"{name}: {c}" for name, c in maps.channels.items())
            raise BackboneError(
                f"got out_channels={out_channels}, but every output is a map of the network itself "
                f"({channels}): leave it out; the neck brings levels to one width."
            )
        return cls(maps, None if levels is None else tuple(levels), input_size, out_channels)

    @property
    def features(self) -> FeatureMaps:
        """The outputs, in order."""
        if self.levels is None:
            return self.maps
        return FeatureMaps(tuple(level.published(self.out_channels) for level in self.levels))


def sources_of(levels: Sequence[Level], input_size: InputSize) -> list[FeatureInfo]:
    """List the maps that levels need; those that are levels themselves carry their names.

    Args:
        levels: as `plan_levels` gave them.
        input_size: what the network needs of images.
    """
    if _are_maps(levels, input_size):
        return [dataclasses.replace(level.source, name=level.name) for level in levels]
    return list({level.source.name: level.source for level in levels}.values())


def _are_maps(levels: Sequence[Level], input_size: InputSize) -> bool:
    """Whether levels are a network's maps as they are; those of tiles have to be merged."""
    return input_size.tile is None and all(level.is_direct for level in levels)


def _coverage(who: str, maps: FeatureMaps) -> Coverage:
    """Zeros with which all of several maps cover an image."""
    whole = Coverage()
    for feature in maps:
        if feature.coverage is None:
            raise BackboneError(
                f"{who} has a map {feature.name!r} that does not follow the size of the image, "
                "whatever zeros are added around it: choose another map."
            )
        whole |= feature.coverage
    return whole
