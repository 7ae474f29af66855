"""What a network of transformers gives and needs, seen on the ``meta`` device."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch

from detrex.errors import BackboneError
from detrex.modeling.backbone.features.coverage import Coverage, Size, round_up
from detrex.modeling.backbone.features.feature_info import FeatureInfo
from detrex.modeling.backbone.features.network_spec import NetworkSpec
from detrex.modeling.backbone.inspection.feature_shapes import describe_feature, grid_size
from detrex.modeling.backbone.inspection.findings import recall
from detrex.modeling.backbone.inspection.input_size_search import (
    Run,
    find_coverage,
    search_input_size,
)
from detrex.modeling.backbone.inspection.meta_run import SizeRefusedError, on_meta_or_cpu, tried
from detrex.modeling.backbone.inspection.position_tables import RefuseOtherPositions
from detrex.modeling.pixel_statistics import IMAGENET

from .builder import FREE_SIZE, Recipe, forward_keywords, takes_free_sizes
from .network import TransformersNetwork, is_backbone

_EXAMPLE_SIDES = (256, 320)
_BATCH = 2
Shape = Sequence[int]


def inspect_network(recipe: Recipe, in_channels: int = 3) -> NetworkSpec:
    """Run a network on the ``meta`` device: no weights, no memory.

    What is seen is kept for the next time; see `NetworkKey`.

    Args:
        recipe: how it is built.
        in_channels: channels of the image.

    Returns:
        What was seen. The source of a feature is its place among all maps of the network.

    Raises:
        TypeError, BackboneError: see `Recipe.build` and `search_input_size`.
    """

    def inspect(device: str) -> NetworkSpec:
        return _Inspector(recipe, in_channels, device).spec()

    key = recipe.key
    return recall(key and key / "spec", lambda: on_meta_or_cpu(inspect))


class _Inspector:
    """One network with all its maps, run on empty images."""

    def __init__(self, recipe: Recipe, in_channels: int, device: str) -> None:
        self.recipe, self.channels, self.device = recipe, in_channels, device
        with torch.device(device):
            self.model = recipe.build().eval()
        self.config: Any = self.model.config
        self._shapes: dict[tuple[Size, bool], dict[int, Shape]] = {}
        self.features: tuple[FeatureInfo, ...] = ()

    def shapes(self, size: Size, is_free: bool) -> dict[int, Shape]:
        """Shapes of all maps by place, for an image size, with position tables resampled or not."""
        if (size, is_free) not in self._shapes:
            keywords = forward_keywords(self.recipe.kind) | ({FREE_SIZE: True} if is_free else {})
            network = TransformersNetwork(self.model, keywords)
            image = torch.zeros(_BATCH, self.channels, *size, device=self.device)
            try:
                with torch.no_grad(), RefuseOtherPositions(network):
                    maps = network(image)
            except TypeError as error:
                if not is_free:
                    raise
                raise SizeRefusedError(str(error)) from error  # it takes no such keyword
            places = self.recipe.places or range(len(maps))
            self._shapes[size, is_free] = {
                place: tuple(m.shape) for place, m in zip(places, maps, strict=True)
            }
        return self._shapes[size, is_free]

    def run(self, is_free: bool) -> Run:
        """Give the sizes of all feature maps for an image size."""

        def sizes(size: Size) -> list[Size]:
            shapes = self.shapes(size, is_free)
            return [grid_size(f, shapes[int(f.source)], size) for f in self.features]

        return sizes

    def spec(self) -> NetworkSpec:
        """Describe every map, then find the rule for images."""
        who, native = self.recipe.who, _native_size(self.config, self.recipe.who)
        ways = (False, True) if takes_free_sizes(self.recipe.kind) else (False,)
        self.features, native = self._described(native, ways)
        strides = [feature.stride for feature in self.features]
        keywords: list[dict[str, Any]] = [{}, {FREE_SIZE: True}]
        variants = [(keywords[way], self.run(way)) for way in ways]
        input_size = search_input_size(who, variants, native, strides)
        size = input_size.tile or input_size.fitted_size(
            [min(side, _EXAMPLE_SIDES[0]) for side in native]
        )
        coverages: list[Coverage | None] = [Coverage() for _ in self.features]
        if input_size.tile is None:
            run = self.run(bool(input_size.keywords))
            coverages = find_coverage(who, run, input_size.multiple, strides)
        features = tuple(
            dataclasses.replace(feature, coverage=coverage)
            for feature, coverage in zip(self.features, coverages, strict=True)
        )
        statistics = IMAGENET.with_channels(self.channels)
        count = 1 + max(next(iter(self._shapes.values())))
        return NetworkSpec(who, features, input_size, size, self.channels, statistics, count)

    def _described(
        self, native: Size, ways: Sequence[bool]
    ) -> tuple[tuple[FeatureInfo, ...], Size]:
        """The maps, told by their shapes for two images, or for the only one that is taken."""
        patch = _patch_side(self.config)
        height, width = (round_up(side, patch) for side in _EXAMPLE_SIDES)
        in_patches = (native[0] // patch * patch, native[1] // patch * patch)
        seen: list[dict[int, Shape]] = []
        refusals = []
        for sizes in ([(height, width), (2 * height, 2 * width)], [in_patches], [native]):
            for way in ways:
                try:
                    seen = [
                        tried(self.recipe.who, size, lambda s=size, w=way: self.shapes(s, w))  # type: ignore[misc]
                        for size in sizes
                    ]
                except SizeRefusedError as error:
                    refusals.append(str(error))
                    continue
                features = self._features(seen, sizes)
                if len(sizes) == 2:
                    return features, native
                if _fill(features, sizes[0], patch):
                    return features, sizes[0]
                refusals.append(f"its patches of {patch} pixels leave a part of it out")
        raise BackboneError(
            f"{self.recipe.who} could not be run on an image of any size, its own {native[0]} x "
            f"{native[1]} included ({refusals[-1]}): choose another network, or give the keywords "
            "that it needs."
        )

    def _features(self, seen: list[dict[int, Shape]], sizes: list[Size]) -> tuple[FeatureInfo, ...]:
        named = self.config.stage_names if is_backbone(self.recipe.kind) else ()
        features = []
        reason = "it gives none"
        for place in seen[0]:
            shapes = [shapes_of_maps[place] for shapes_of_maps in seen]
            name = named[place] if named else f"stage{place}" if place else "stem"
            if shapes[0][0] != _BATCH:
                reason = f"it joins the {_BATCH} images of a batch in one tensor {shapes[0]}"
                continue
            try:
                feature = describe_feature(name, name, shapes, sizes)
            except BackboneError as error:
                reason = str(error)
                continue
            if feature.stride == 1:  # the image itself
                continue
            features.append(dataclasses.replace(feature, source=place))
        if not features:
            raise BackboneError(f"{self.recipe.who} gives no feature map: {reason}")
        return tuple(features)


def _native_size(config: Any, who: str) -> Size:
    """Image size that a network was made for."""
    size = getattr(config, "image_size", None)
    size = 224 if size is None else size
    height, width = (size, size) if isinstance(size, int) else tuple(size)[-2:]
    least = _patch_side(config)
    if min(height, width) < least:
        raise BackboneError(
            f"{who} has image_size={size!r}, expected {least} pixels or more, as many as one of "
            "its patches: correct it, or leave it out."
        )
    return int(height), int(width)


def _fill(features: Sequence[FeatureInfo], size: Size, patch: int) -> bool:
    """Whether maps cover the only image that is taken, with no rest that their cells leave out."""
    strides = {feature.stride for feature in features}
    steps = {patch} if len(strides) == 1 else strides
    return all(side % step == 0 for side in size for step in steps)


def _patch_side(config: Any) -> int:
    """Side of the patches of a network of one stride, whose multiples it surely takes."""
    patch = getattr(config, "patch_size", 1)
    side = max(patch) if isinstance(patch, list | tuple) else patch
    return side if isinstance(side, int) and side > 0 else 1
