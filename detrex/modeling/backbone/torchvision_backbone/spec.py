"""What a classifier of torchvision gives and needs, seen without data."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from detrex.errors import BackboneError
from detrex.modeling.backbone.features.coverage import Size
from detrex.modeling.backbone.features.feature_info import FeatureInfo, FeatureMaps
from detrex.modeling.backbone.features.network_spec import NetworkSpec
from detrex.modeling.backbone.inspection.feature_shapes import describe_feature, grid_size
from detrex.modeling.backbone.inspection.input_size_search import find_coverage, search_input_size
from detrex.modeling.backbone.inspection.meta_run import SizeRefusedError, run_on_meta
from detrex.modeling.pixel_statistics import IMAGENET

Shape = Sequence[int]

_EXAMPLE_SIZE: Size = (256, 320)


def inspect_network(network: nn.Module, who: str, in_channels: int = 3) -> NetworkSpec:
    """Run a network on the ``meta`` device: its maps, and the images that it takes.

    Args:
        network: a classifier of torchvision; it is not changed.
        who: its name, for messages.
        in_channels: channels of the image.

    Returns:
        What was seen; its features are the outermost modules that give maps, each with the path of
        the module as name and source.

    Raises:
        BackboneError: it takes no image of any size.
    """
    side = getattr(network, "image_size", 224)
    shapes, sizes = _shapes_at_two_sizes(network, (side, side), in_channels)
    nodes = list(_outermost(network, "", shapes, sizes))

    def run(size: Size) -> list[Size]:
        seen = _maps_by_module(network, size, in_channels)
        return [grid_size(node, seen[str(node.source)], size) for node in nodes]

    rule = search_input_size(who, [({}, run)], (side, side), [node.stride for node in nodes])
    size = rule.tile or rule.fitted_size(_EXAMPLE_SIZE)
    statistics = IMAGENET.with_channels(in_channels)
    return NetworkSpec(who, tuple(nodes), rule, size, in_channels, statistics)


def _shapes_at_two_sizes(
    network: nn.Module, native: Size, in_channels: int
) -> tuple[dict[str, list[Shape]], list[Size]]:
    """Shapes by module for two image sizes, or for the one that the network takes."""
    height, width = _EXAMPLE_SIZE
    sizes = [_EXAMPLE_SIZE, (2 * height, 2 * width)]
    try:
        seen = [_maps_by_module(network, size, in_channels) for size in sizes]
    except SizeRefusedError:
        sizes = [native]
        seen = [_maps_by_module(network, native, in_channels)]
    return {path: [shapes[path] for shapes in seen] for path in seen[0]}, sizes


def _maps_by_module(network: nn.Module, size: Size, in_channels: int) -> dict[str, Shape]:
    """Shapes of the first tensor that each module gives, by path, in the order of their return."""
    shapes: dict[str, Shape] = {}

    def run(twin: nn.Module, image: torch.Tensor) -> None:
        def watch(path: str) -> Any:
            def note(_module: nn.Module, _inputs: Any, output: Any) -> None:
                if isinstance(output, torch.Tensor):
                    shapes.setdefault(path, tuple(output.shape))

            return note

        for path, module in twin.named_modules():
            if path:
                module.register_forward_hook(watch(path))
        shapes.clear()
        with torch.no_grad():
            twin(image)

    run_on_meta(network, [size], in_channels, run=run)
    return shapes


def _outermost(
    module: nn.Module, path: str, shapes: Mapping[str, Sequence[Shape]], sizes: Sequence[Size]
) -> Iterator[FeatureInfo]:
    """The outermost modules that give maps, up to the pooling before the classifier."""
    for name, child in module.named_children():
        inner_path = f"{path}.{name}" if path else name
        if any(isinstance(m, nn.AdaptiveAvgPool2d) for m in [child, *_links(child)]):
            return
        own = _feature_of(inner_path, shapes.get(inner_path), sizes)
        inner: list[FeatureInfo] = []
        if _links(child) or inner_path not in shapes:
            inner = list(_outermost(child, inner_path, shapes, sizes))
        strides = {feature.stride for feature in inner} | ({own.stride} if own else set())
        # A link of a chain that only leads to the next stride belongs to that stride as a whole.
        if own is not None and len(strides) <= (2 if path else 1):
            yield own
        else:
            yield from inner


def _links(module: nn.Module) -> list[nn.Module]:
    chains = isinstance(module, nn.Sequential | nn.ModuleList)
    return list(module.children()) if chains else []


def _feature_of(
    path: str, shapes: Sequence[Shape] | None, sizes: Sequence[Size]
) -> FeatureInfo | None:
    try:
        feature = describe_feature(path, path, shapes, sizes) if shapes else None
    except BackboneError:
        return None
    return feature if feature and feature.stride < min(sizes[0]) else None


def describe_maps(
    extractor: nn.Module, spec: NetworkSpec, nodes: tuple[Mapping[str, str], Mapping[str, str]]
) -> list[FeatureInfo]:
    """Describe the outputs of a cut network, which must be alike in both modes.

    Args:
        extractor: as from `cut_at`.
        spec: the network that was cut.
        nodes: what it was cut at, by mode.

    Returns:
        The outputs, in the order of their computation.

    Raises:
        BackboneError: an output is no map, or differs between the modes.
    """
    small = spec.input_size.fitted_size(_EXAMPLE_SIZE)
    tile = spec.input_size.tile
    sizes = [small, (2 * small[0], 2 * small[1])] if tile is None else [tile]
    maps = _features_in_mode(extractor, sizes, nodes[1], spec.in_channels, training=False)
    if nodes[0] != nodes[1]:
        in_training = _features_in_mode(extractor, sizes, nodes[0], spec.in_channels, training=True)
        if (in_training.channels, in_training.strides) != (maps.channels, maps.strides):
            raise BackboneError(
                "train_return_nodes and eval_return_nodes must give maps of equal channels and "
                f"strides, got {in_training} and {maps}."
            )
    return list(maps)


def with_coverage(
    extractor: nn.Module, maps: Sequence[FeatureInfo], spec: NetworkSpec
) -> list[FeatureInfo]:
    """Find the zeros with which each output of a cut network covers images of any size.

    Args:
        extractor: as from `cut_at`.
        maps: its outputs by name.
        spec: the network that was cut.

    Returns:
        `maps` with their coverage.
    """
    if spec.input_size.tile is not None:
        return list(maps)
    size = spec.input_size.fitted_size(_EXAMPLE_SIZE)
    channels = spec.in_channels
    meta_run = run_on_meta(extractor, [size], channels, run=lambda twin, image: twin.forward(image))

    def run(size: Size) -> list[Size]:
        with torch.no_grad():
            outputs = meta_run.twin.forward(meta_run.image.new_zeros(1, channels, *size))
        return [grid_size(node, outputs[node.name].shape, size) for node in maps]

    strides = [node.stride for node in maps]
    needs = find_coverage(spec.name, run, spec.input_size.multiple, strides)
    return [
        dataclasses.replace(node, coverage=need) for node, need in zip(maps, needs, strict=True)
    ]


def _features_in_mode(
    extractor: nn.Module,
    image_sizes: Sequence[Size],
    nodes: Mapping[str, str],
    in_channels: int,
    training: bool,
) -> FeatureMaps:
    """Describe the outputs by their shapes for one image size, or two."""

    def run(twin: nn.Module, image: torch.Tensor) -> dict[str, torch.Tensor]:
        return twin.train(training).forward(image)  # twin(image) would print before it raises

    meta_runs = [run_on_meta(extractor, [size], in_channels, run) for size in image_sizes]
    sources = {name: node for node, name in nodes.items()}
    return FeatureMaps(
        tuple(
            describe_feature(
                name,
                node,
                [_shape(meta_run.outputs[name], node) for meta_run in meta_runs],
                image_sizes,
            )
            for name, node in ((name, sources[name]) for name in meta_runs[0].outputs)
        )
    )


def _shape(output: Any, node: str) -> Sequence[int]:
    if not isinstance(output, torch.Tensor):
        raise BackboneError(
            f"node {node!r} gives a {type(output).__name__}, not a tensor: choose another node."
        )
    return output.shape
