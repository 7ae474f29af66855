"""Any classifier of torchvision, tapped at named nodes of its graph, as a backbone.

Nodes are named as `torchvision.models.feature_extraction` names them.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from detectron2.modeling.backbone import Backbone
from torch import nn

from detrex.errors import BackboneError, did_you_mean

from .features import FeatureTable, describe_feature
from .freezing import KeepsFrozen, check_freeze_at, plan_freezing
from .frozen_norm import freeze_norms, frozen_norm_class
from .probing import look_at
from .torchvision_classifier import create_classifier

logger = logging.getLogger(__name__)

DEFAULT_RETURN_NODES: Mapping[str, str] = MappingProxyType(
    {"layer1": "res2", "layer2": "res3", "layer3": "res4", "layer4": "res5"}
)

Nodes = Mapping[str, str] | Sequence[str]


class TorchvisionBackbone(KeepsFrozen, Backbone):
    """A classifier of torchvision, cut off after the last node that is asked for.

    Outputs are named by the values of `return_nodes` and come in the order in which the network
    computes them. Each is an NCHW map: NHWC nodes are permuted, tokens laid out on their grid
    without the class token. The network is one copy, ``feature_extractor.*``, with torchvision's
    names behind the prefix; checkpoints of the original detrex, which hold it twice (``model.*`` as
    well), load too, and their classifier is passed over.

    Args:
        model_name: classifier of torchvision, such as ``"resnet50"``.
        pretrained: load torchvision's first ImageNet weights; `weights` says it more precisely.
        return_nodes: node to name of the output, or a list of nodes that keep their names.
        train_return_nodes: nodes in training mode, where they differ; with `eval_return_nodes`.
        eval_return_nodes: nodes in evaluation mode; with `train_return_nodes`.
        tracer_kwargs: keywords of torchvision's tracer.
        suppress_diff_warnings: do not warn where the graph differs between the modes.
        weights: a torchvision enum, its name (``"IMAGENET1K_V2"``, ``"DEFAULT"``), or a local file.
        norm_layer: norm to build with. A frozen batch norm (detectron2's, torchvision's, or
            ``"FrozenBN"``) means that the network is built with its own batch norms, gets its
            weights, and has them frozen exactly.
        freeze_at: number of stages to freeze as in `ResNet`: 1 is the stem, 2 the stem and the
            stage of stride 4, ... 5 everything; a network of one stride counts quarters of its
            blocks.
        **kwargs: passed to torchvision's builder.

    Raises:
        TypeError: a keyword that the network does not take.
        BackboneError: an unknown model, node or weights, a node that is no feature map, or weights
            that cannot be fetched.
        CheckpointError: too little of a weights file fits the network.

    Example:
        >>> nodes = {"features.6": "p3", "features.13": "p4", "features.18": "p5"}
        >>> TorchvisionBackbone("mobilenet_v2", return_nodes=nodes).output_shape()["p3"].stride
        8
    """

    def __init__(
        self,
        model_name: str = "resnet50",
        pretrained: bool = False,
        return_nodes: Nodes | None = DEFAULT_RETURN_NODES,
        train_return_nodes: Nodes | None = None,
        eval_return_nodes: Nodes | None = None,
        tracer_kwargs: Mapping[str, Any] | None = None,
        suppress_diff_warnings: bool = False,
        *,
        weights: Any | str | Path | None = None,
        norm_layer: Any = None,
        freeze_at: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        check_freeze_at(freeze_at)
        frozen_class = frozen_norm_class(norm_layer)
        if norm_layer is not None and frozen_class is None:
            kwargs["norm_layer"] = norm_layer
        nodes = _nodes_by_mode(return_nodes, train_return_nodes, eval_return_nodes)
        network, file = create_classifier(model_name, pretrained, weights, **kwargs)
        self.feature_extractor = _extract(
            model_name, network, nodes, tracer_kwargs, suppress_diff_warnings
        )
        self.register_load_state_dict_pre_hook(_accept_both_copies)
        if file is not None:
            from detrex.checkpoint.matching import load_weights

            load_weights(self.feature_extractor, file)
        if frozen_class is not None:
            freeze_norms(self.feature_extractor, frozen_class, model_name)

        self.features = _feature_table(self.feature_extractor, _image_sizes(network), nodes)
        self._out_features = self.features.names
        self._out_feature_channels = self.features.channels
        self._out_feature_strides = self.features.strides
        if freeze_at > 0:
            plan = plan_freezing(look_at(network, _image_sizes(network)), freeze_at)
            frozen = plan.apply(self.feature_extractor)
            self.frozen_modules = tuple(f"feature_extractor.{name}" for name in frozen)
        logger.info("TorchvisionBackbone(%r): %s", model_name, self.features)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Map images ``(N, 3, H, W)`` to ``{name: (N, C, H / stride, W / stride)}``."""
        return self.features.to_maps(self.feature_extractor(x), x.shape[-2:])

    @staticmethod
    def get_graph_node_names(model_name: str, **kwargs: Any) -> tuple[list[str], list[str]]:
        """List the nodes that `return_nodes` can name, in the order of their computation.

        Args:
            model_name: classifier of torchvision.
            **kwargs: passed to torchvision's builder.

        Returns:
            Names of the nodes in training mode and in evaluation mode.
        """
        network, _ = create_classifier(model_name, **kwargs)
        return _node_names(network, None)


def _nodes_by_mode(
    both: Nodes | None, train: Nodes | None, evaluation: Nodes | None
) -> tuple[dict[str, str], dict[str, str]]:
    """Nodes in training mode and in evaluation mode."""
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
    items = nodes.items() if isinstance(nodes, Mapping) else ((node, node) for node in nodes)
    named = {str(node): str(name) for node, name in items}
    if not named or len(set(named.values())) < len(named):
        raise BackboneError(
            f"return nodes must name at least one output, and each output once, got {dict(named)}."
        )
    return named


def _node_names(
    network: nn.Module, tracer_kwargs: dict[str, Any] | None
) -> tuple[list[str], list[str]]:
    from torchvision.models.feature_extraction import get_graph_node_names

    return get_graph_node_names(network, tracer_kwargs, suppress_diff_warning=True)


def _extract(
    model_name: str,
    network: nn.Module,
    nodes: tuple[dict[str, str], dict[str, str]],
    tracer_kwargs: Mapping[str, Any] | None,
    suppress_diff_warnings: bool,
) -> nn.Module:
    """Trace the network and keep what leads to the nodes."""
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
        for wanted, there in zip(nodes, _node_names(network, tracer), strict=True):
            for node in wanted:
                if not any(name == node or name.startswith(f"{node}.") for name in there):
                    raise BackboneError(_unknown_node(model_name, node, there)) from error
        raise


def _unknown_node(model_name: str, node: str, there: Sequence[str]) -> str:
    parents = {name.rsplit(".", k)[0] for name in there for k in range(name.count(".") + 1)}
    roots = dict.fromkeys(name.split(".")[0] for name in there)
    hint = did_you_mean(node, sorted(parents)) or f" Its outermost nodes are {', '.join(roots)}."
    return (
        f"torchvision's {model_name!r} has no node {node!r}.{hint} All nodes: "
        f"TorchvisionBackbone.get_graph_node_names({model_name!r})."
    )


def _image_sizes(network: nn.Module) -> list[tuple[int, int]]:
    """Image sizes to look with: an oblong one, or the square that the network was built for."""
    squares = (getattr(network, "image_size", 224), 224, 299)
    return [(256, 320), *((side, side) for side in squares)]


def _feature_table(
    extractor: nn.Module,
    image_sizes: Sequence[tuple[int, int]],
    nodes: tuple[Mapping[str, str], Mapping[str, str]],
) -> FeatureTable:
    """Describe the outputs, which must be alike in both modes."""
    table = _features_in_mode(extractor, image_sizes, nodes[1], training=False)
    if nodes[0] != nodes[1]:
        in_training = _features_in_mode(extractor, image_sizes, nodes[0], training=True)
        if (in_training.channels, in_training.strides) != (table.channels, table.strides):
            raise BackboneError(
                "train_return_nodes and eval_return_nodes must give maps of equal channels and "
                f"strides, got {in_training} and {table}."
            )
    return table


def _features_in_mode(
    extractor: nn.Module,
    image_sizes: Sequence[tuple[int, int]],
    nodes: Mapping[str, str],
    training: bool,
) -> FeatureTable:
    """Describe the outputs by their shapes for one image, and for another of twice its size."""

    def run(twin: nn.Module, image: torch.Tensor) -> dict[str, torch.Tensor]:
        return twin.train(training).forward(image)  # twin(image) would print before it raises

    looks = [look_at(extractor, image_sizes, run=run)]
    if looks[0].image_size == image_sizes[0]:
        height, width = image_sizes[0]
        looks.append(look_at(extractor, [(2 * height, 2 * width)], run=run))
    sizes = [look.image_size for look in looks]
    sources = {name: node for node, name in nodes.items()}
    return FeatureTable(
        tuple(
            describe_feature(
                name, node, [_shape(look.outputs[name], node) for look in looks], sizes
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


def _accept_both_copies(
    module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any
) -> None:
    """Move the original's ``model.*`` to ``feature_extractor.*``, dropping what is not in it."""
    known = module.state_dict().keys()
    for key in [k for k in state_dict if k.startswith(f"{prefix}model.")]:
        value = state_dict.pop(key)
        name = f"feature_extractor.{key.removeprefix(f'{prefix}model.')}"
        if name in known:
            state_dict.setdefault(prefix + name, value)
