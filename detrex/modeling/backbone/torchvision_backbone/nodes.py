"""torchvision's networks cut at nodes of their graph, and the nodes at which each stride ends.

Nodes are named as `torchvision.models.feature_extraction` does: by the path of a module, which
stands for its output, or by an operation within one.
"""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from torch import nn

from detrex.errors import BackboneError, did_you_mean

DEFAULT_RETURN_NODES: Mapping[str, str] = MappingProxyType(
    {"layer1": "res2", "layer2": "res3", "layer3": "res4", "layer4": "res5"}
)

Nodes = Mapping[str, str] | Sequence[str]


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


def refuse_nodes(out_strides: Sequence[int], nodes: Iterable[Nodes | None]) -> None:
    """Check that nobody asks for nodes beside strides.

    Args:
        out_strides: strides in pixels.
        nodes: what is given for each keyword that names nodes.

    Raises:
        BackboneError: one of `nodes` is given.
    """
    if any(given is not None and given is not DEFAULT_RETURN_NODES for given in nodes):
        raise BackboneError(
            f"got strides ({', '.join(map(str, out_strides))}) by out_strides or out_features "
            "beside return nodes, which say the same in two ways: leave one of them out."
        )


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


def cut_at(
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
