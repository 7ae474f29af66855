"""torchvision's networks cut at nodes of their graph, and the nodes at which each stride ends.

Nodes are named as `torchvision.models.feature_extraction` does: by the path of a module, which
stands for its output, or by an operation within one.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from detrex.errors import BackboneError, did_you_mean
from detrex.modeling.backbone.features.coverage import Size, find_coverage, merged
from detrex.modeling.backbone.features.feature_info import (
    Feature,
    FeatureTable,
    describe_feature,
    map_size,
)
from detrex.modeling.backbone.features.input_size import InputRule, find_input_rule
from detrex.modeling.backbone.inspection.meta_run import SizeRefusedError, look_at

DEFAULT_RETURN_NODES: Mapping[str, str] = MappingProxyType(
    {"layer1": "res2", "layer2": "res3", "layer3": "res4", "layer4": "res5"}
)

Nodes = Mapping[str, str] | Sequence[str]
Shape = Sequence[int]

_LOOK_SIZE: Size = (256, 320)


@dataclass(frozen=True)
class NetworkOffer:
    """What a network offers and needs.

    Attributes:
        nodes: the outermost modules that give maps, in the order of their computation, each with
            the path of the module as name and source.
        input_rule: the images that the network takes.
        look_size: height and width in pixels of an image that it takes as it is.
    """

    nodes: tuple[Feature, ...]
    input_rule: InputRule
    look_size: Size


def look_for_nodes(network: nn.Module, who: str, in_channels: int = 3) -> NetworkOffer:
    """Look at a network without data: its maps, and the images that it takes.

    Args:
        network: a classifier of torchvision; it is not changed.
        who: its name, for messages.
        in_channels: channels of the image.

    Returns:
        What was seen.

    Raises:
        BackboneError: it takes no image of any size.
    """
    side = getattr(network, "image_size", 224)
    shapes, sizes = _shapes_at_two_sizes(network, (side, side), in_channels)
    nodes = list(_outermost(network, "", shapes, sizes))

    def run(size: Size) -> list[Size]:
        seen = _maps_by_module(network, size, in_channels)
        return [_grid(node, seen[str(node.source)], size) for node in nodes]

    rule = find_input_rule(who, [({}, run)], (side, side), [node.stride for node in nodes])
    return NetworkOffer(tuple(nodes), rule, rule.tile or rule.fitted_size(_LOOK_SIZE))


def _shapes_at_two_sizes(
    network: nn.Module, native: Size, in_channels: int
) -> tuple[dict[str, list[Shape]], list[Size]]:
    """Shapes by module for two image sizes, or for the one that the network takes."""
    height, width = _LOOK_SIZE
    sizes = [_LOOK_SIZE, (2 * height, 2 * width)]
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

    look_at(network, [size], in_channels, run=run)
    return shapes


def _outermost(
    module: nn.Module, path: str, shapes: Mapping[str, Sequence[Shape]], sizes: Sequence[Size]
) -> Iterator[Feature]:
    """The outermost modules that give maps, up to the pooling before the classifier."""
    for name, child in module.named_children():
        inner_path = f"{path}.{name}" if path else name
        if any(isinstance(m, nn.AdaptiveAvgPool2d) for m in [child, *_links(child)]):
            return
        own = _feature_of(inner_path, shapes.get(inner_path), sizes)
        inner: list[Feature] = []
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


def _feature_of(path: str, shapes: Sequence[Shape] | None, sizes: Sequence[Size]) -> Feature | None:
    try:
        feature = describe_feature(path, path, shapes, sizes) if shapes else None
    except BackboneError:
        return None
    return feature if feature and feature.stride < min(sizes[0]) else None


def _grid(node: Feature, shape: Shape, size: Size) -> Size:
    """Height and width of a node's map in cells."""
    if node.layout == "NLC":
        height, width = (side // node.stride for side in size)
        if shape[1] - node.prefix_tokens != height * width:
            raise SizeRefusedError(f"{shape[1]} tokens are not {height} x {width}")
        return height, width
    return map_size(shape, node.layout)


def nodes_by_mode(
    both: Nodes | None, train: Nodes | None, evaluation: Nodes | None
) -> tuple[dict[str, str], dict[str, str]]:
    """Name the nodes to return in each mode.

    Args:
        both: nodes in either mode.
        train: nodes in training mode, with `evaluation`.
        evaluation: nodes in evaluation mode, with `train`.

    Returns:
        Node to name of its output, in training mode and in evaluation mode.

    Raises:
        TypeError: something else than a dictionary or a list.
        BackboneError: they contradict each other, or name an output twice or none.
    """
    if train is None and evaluation is None:
        nodes = _as_dict(DEFAULT_RETURN_NODES if both is None else both)
        return nodes, nodes
    if train is None or evaluation is None:
        raise BackboneError(
            "train_return_nodes and eval_return_nodes belong together, got only one: give both."
        )
    if both is not None and _as_dict(both) != dict(DEFAULT_RETURN_NODES):
        raise BackboneError(
            "got return_nodes beside train_return_nodes and eval_return_nodes: leave one kind out."
        )
    in_training, in_evaluation = _as_dict(train), _as_dict(evaluation)
    if set(in_training.values()) != set(in_evaluation.values()):
        raise BackboneError(
            "train_return_nodes and eval_return_nodes must give the same output names, got "
            f"{sorted(in_training.values())} and {sorted(in_evaluation.values())}."
        )
    return in_training, in_evaluation


def _as_dict(nodes: Nodes) -> dict[str, str]:
    if isinstance(nodes, str) or not isinstance(nodes, Iterable):
        raise TypeError(
            "return nodes must be a dictionary such as {'layer3': 'res4'}, or a list of nodes, got "
            f"{nodes!r}."
        )
    items = list(nodes.items() if isinstance(nodes, Mapping) else zip(nodes, nodes, strict=True))
    named = {str(node): str(name) for node, name in items}
    if not named or len(set(named.values())) < len(items):
        raise BackboneError(
            f"return nodes must name at least one output, and each output once, got {dict(named)}."
        )
    return named


def node_names(
    network: nn.Module, tracer_kwargs: dict[str, Any] | None = None
) -> tuple[list[str], list[str]]:
    """List the nodes of a network in training mode and in evaluation mode.

    Args:
        network: what to trace.
        tracer_kwargs: keywords of torchvision's tracer.

    Returns:
        Names in the order of their computation, for each mode.
    """
    from torchvision.models.feature_extraction import get_graph_node_names

    return get_graph_node_names(network, tracer_kwargs, suppress_diff_warning=True)


def extract(
    model_name: str,
    network: nn.Module,
    nodes: tuple[dict[str, str], dict[str, str]],
    tracer_kwargs: Mapping[str, Any] | None,
    suppress_diff_warnings: bool,
) -> nn.Module:
    """Trace a network and keep what leads to some nodes.

    Args:
        model_name: its name, for messages.
        network: what to trace.
        nodes: as from `nodes_by_mode`.
        tracer_kwargs: keywords of torchvision's tracer.
        suppress_diff_warnings: do not warn where the graph differs between the modes.

    Returns:
        Module that maps images to the tensors of the nodes by their names.

    Raises:
        BackboneError: a node is not there; near ones are named.
    """
    from torchvision.models.feature_extraction import create_feature_extractor

    tracer = None if tracer_kwargs is None else dict(tracer_kwargs)
    same = nodes[0] == nodes[1]
    try:
        return create_feature_extractor(
            network,
            return_nodes=nodes[0] if same else None,
            train_return_nodes=None if same else nodes[0],
            eval_return_nodes=None if same else nodes[1],
            tracer_kwargs=tracer,
            suppress_diff_warning=suppress_diff_warnings,
        )
    except ValueError as error:
        for wanted, there in zip(nodes, node_names(network, tracer), strict=True):
            for node in wanted:
                if not any(name == node or name.startswith(f"{node}.") for name in there):
                    raise BackboneError(_unknown_node(model_name, node, there)) from error
        raise BackboneError(
            f"torchvision's {model_name!r} could not be cut at {', '.join(nodes[0])} ({error}): "
            "choose other nodes, or leave out what it was built with."
        ) from error


def _unknown_node(model_name: str, node: str, there: Sequence[str]) -> str:
    parents = {name.rsplit(".", k)[0] for name in there for k in range(name.count(".") + 1)}
    roots = dict.fromkeys(name.split(".")[0] for name in there)
    hint = did_you_mean(node, sorted(parents)) or f" Its outermost nodes are {', '.join(roots)}."
    return (
        f"torchvision's {model_name!r} has no node {node!r}.{hint} All nodes: "
        f"TorchvisionBackbone.get_graph_node_names({model_name!r})."
    )


def table_of_nodes(
    extractor: nn.Module,
    input_rule: InputRule,
    nodes: tuple[Mapping[str, str], Mapping[str, str]],
    in_channels: int = 3,
) -> FeatureTable:
    """Describe the outputs of a cut network, which must be alike in both modes.

    Args:
        extractor: as from `extract`.
        input_rule: the images that it takes.
        nodes: what it was cut at.
        in_channels: channels of the image.

    Returns:
        The outputs, in the order of their computation.

    Raises:
        BackboneError: an output is no map, or differs between the modes.
    """
    small = input_rule.fitted_size(_LOOK_SIZE)
    sizes = [small, (2 * small[0], 2 * small[1])] if input_rule.tile is None else [input_rule.tile]
    table = _features_in_mode(extractor, sizes, nodes[1], in_channels, training=False)
    if nodes[0] != nodes[1]:
        in_training = _features_in_mode(extractor, sizes, nodes[0], in_channels, training=True)
        if (in_training.channels, in_training.strides) != (table.channels, table.strides):
            raise BackboneError(
                "train_return_nodes and eval_return_nodes must give maps of equal channels and "
                f"strides, got {in_training} and {table}."
            )
    return table


def rule_for_nodes(
    extractor: nn.Module,
    nodes: Sequence[Feature],
    input_rule: InputRule,
    who: str,
    in_channels: int = 3,
    by_stride: bool = True,
) -> InputRule:
    """Find the rule under which the outputs of a cut network cover images of any size.

    Args:
        extractor: as from `extract`.
        nodes: its outputs by name.
        input_rule: the images that it takes.
        who: its name, for messages.
        in_channels: channels of the image.
        by_stride: whether they are asked for by stride; else see `Coverage.without_margin`.

    Returns:
        `input_rule` with the zeros that fill the maps' last cells.

    Raises:
        BackboneError: an output never covers the image.
    """
    if input_rule.tile is not None:
        return input_rule
    size = input_rule.fitted_size(_LOOK_SIZE)
    look = look_at(extractor, [size], in_channels, run=lambda twin, image: twin.forward(image))

    def run(size: Size) -> list[Size]:
        with torch.no_grad():
            outputs = look.twin.forward(look.image.new_zeros(1, in_channels, *size))
        return [_grid(node, outputs[node.name].shape, size) for node in nodes]

    strides = [node.stride for node in nodes]
    needs = find_coverage(who, run, input_rule.multiple, strides)
    coverage = merged(who, [node.name for node in nodes], needs)
    coverage = coverage if by_stride else coverage.without_margin
    return dataclasses.replace(input_rule, coverage=coverage)


def _features_in_mode(
    extractor: nn.Module,
    image_sizes: Sequence[Size],
    nodes: Mapping[str, str],
    in_channels: int,
    training: bool,
) -> FeatureTable:
    """Describe the outputs by their shapes for one image size, or two."""

    def run(twin: nn.Module, image: torch.Tensor) -> dict[str, torch.Tensor]:
        return twin.train(training).forward(image)  # twin(image) would print before it raises

    looks = [look_at(extractor, [size], in_channels, run) for size in image_sizes]
    sources = {name: node for node, name in nodes.items()}
    return FeatureTable(
        tuple(
            describe_feature(
                name, node, [_shape(look.outputs[name], node) for look in looks], image_sizes
            )
            for name, node in ((name, sources[name]) for name in looks[0].outputs)
        )
    )


def _shape(output: Any, node: str) -> Sequence[int]:
    if not isinstance(output, torch.Tensor):
        raise BackboneError(
            f"node {node!r} gives a {type(output).__name__}, not a tensor: choose another node."
        )
    return output.shape
