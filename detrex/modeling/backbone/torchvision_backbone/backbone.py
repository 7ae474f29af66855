"""Any classifier of torchvision, cut at named nodes of its graph, as a backbone.

Nodes are named as `torchvision.models.feature_extraction` names them.
"""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from detrex.modeling.backbone.arguments import (
    check_drop_path,
    check_in_channels,
    one_way_to_weights,
)
from detrex.modeling.backbone.features.feature_info import FeatureInfo
from detrex.modeling.backbone.features.output_levels import (
    OutputSpec,
    plan_levels,
    requested_strides,
    sources_of,
)
from detrex.modeling.backbone.inspection.findings import recall
from detrex.modeling.backbone.training.norms import chosen_norm, norm_kind
from detrex.modeling.backbone.training.plan import TrainingPlan
from detrex.modeling.backbone.weights.late_init import LateInit
from detrex.modeling.backbone.wrapper.wrapper_backbone import WrapperBackbone

from .builder import build_classifier, check_classifier, network_key
from .input_channels import set_input_channels
from .nodes import DEFAULT_RETURN_NODES, Nodes, cut_at, node_names, nodes_by_mode, refuse_nodes
from .spec import describe_maps, inspect_network, with_coverage
from .weights import builder_keywords, find_weights, first_weights, warn_of_transform


class TorchvisionBackbone(WrapperBackbone):
    """A classifier of torchvision as a detectron2 backbone, cut at strides or at named nodes.

    With `out_strides` output ``res{log2 stride}`` has that stride, in any network, as with
    `TimmBackbone`: each is the last map of its stride, and what a network lacks is computed. With
    `return_nodes` outputs are named by its values and come in the order in which the network
    computes them. Images may have any size; see `InputSize`.

    Each output is an NCHW map: NHWC nodes are permuted, tokens laid out on their grid without the
    class token. The network is one copy, ``feature_extractor.*``, with torchvision's names behind
    the prefix; checkpoints of the original detrex, which hold it twice (``model.*`` as well), load
    too, and their classifier is passed over.

    `out_strides`, `out_features`, `out_channels`, `in_channels`, `norm_layer`, `frozen_norm`,
    `freeze_at` and `grad_checkpointing` are those of `TimmBackbone`.

    Args:
        model_name: classifier of torchvision, such as ``"resnet50"``.
        pretrained: load torchvision's first ImageNet weights; `weights` says it more precisely.
        return_nodes: node to name of the output, or a list of nodes that keep their names; left out
            where `out_strides` is given.
        train_return_nodes: nodes in training mode, where they differ; with `eval_return_nodes`.
        eval_return_nodes: nodes in evaluation mode; with `train_return_nodes`.
        tracer_kwargs: keywords of torchvision's tracer.
        suppress_diff_warnings: do not warn where the graph differs between the modes.
        weights: True for torchvision's default weights, a member of its enum or its name
            (``"IMAGENET1K_V2"``, ``"DEFAULT"``), a file or folder, an address (``https://``,
            ``hf-hub:``, ``detectron2://``), or a state dict; ``"run.pth#teacher"`` names an entry
            of a file. With torchvision's own weights the network is built as its builder does it
            for them.
        **kwargs: passed to torchvision's builder.

    Raises:
        TypeError: an argument of the wrong type, or a keyword that the network does not take.
        BackboneError: an unknown model, stride or node, or a node that is no feature map.
        CheckpointError: weights that are not there, or of which too little fits.
        DownloadError: weights that cannot be fetched.

    Example:
        >>> TorchvisionBackbone("mobilenet_v2", out_strides=(8, 16)).features.names
        ['res3', 'res4']
    """

    network_name = "feature_extractor"
    feature_extractor: nn.Module

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
        out_strides: Sequence[int] | None = None,
        out_features: Sequence[str] | None = None,
        out_channels: int | None = None,
        in_channels: int = 3,
        weights: Any | str | Path | None = None,
        norm_layer: Any = None,
        frozen_norm: bool = False,
        freeze_at: int = 0,
        grad_checkpointing: bool = False,
        **kwargs: Any,
    ) -> None:
        check_in_channels(in_channels, kwargs)
        check_drop_path(kwargs)
        asked = one_way_to_weights(pretrained=pretrained, weights=weights)
        check_classifier(model_name)
        source = None
        if asked is not None:
            if pretrained:
                asked = first_weights(model_name)
            source = find_weights(asked, model_name, in_channels)
            kwargs = builder_keywords(source.info, model_name, in_channels, kwargs)
            warn_of_transform(source, model_name, kwargs)
        build = functools.partial(build_classifier, model_name, **kwargs)
        norm = chosen_norm(norm_layer, frozen_norm, "torchvision", lambda: norm_kind(build()))
        plan = TrainingPlan(norm, freeze_at, grad_checkpointing)
        who = f"torchvision's {model_name!r}"
        key = network_key(model_name, {**kwargs, **norm.keywords, "in_channels": in_channels})

        def built() -> nn.Module:
            network = build(**norm.keywords)
            set_input_channels(network, in_channels)
            return network

        with norm.naming():
            late = None if source is None else LateInit(built)
            classifier = built() if late is None else late.network
            spec = recall(
                key and key / "spec", lambda: inspect_network(classifier, who, in_channels)
            )
        strides = requested_strides(
            out_strides, out_features, [node.stride for node in spec.features], who
        )
        given = (return_nodes, train_return_nodes, eval_return_nodes)
        if strides is None:
            levels, nodes = None, nodes_by_mode(*given)
        else:
            refuse_nodes(strides, given)
            levels = plan_levels(strides, spec.features)
            maps = sources_of(levels, spec.input_size)
            nodes = ({str(node.source): node.name for node in maps},) * 2
        network = cut_at(model_name, classifier, nodes, tracer_kwargs, suppress_diff_warnings)
        key = None if tracer_kwargs else key and key / nodes

        def seen() -> tuple[FeatureInfo, ...]:
            found = describe_maps(network, spec, nodes) if levels is None else maps
            return tuple(with_coverage(network, found, spec))

        outputs = OutputSpec.of(spec, recall(key and key / "maps", seen), levels, out_channels)
        super().__init__(network, spec, outputs, plan, source, late, classifier=classifier, key=key)

    def extract(self, images: torch.Tensor) -> Mapping[str, torch.Tensor]:
        """Run the cut network on images that it takes; see `WrapperBackbone.extract`."""
        return self.feature_extractor(images)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        """Take the original's ``model.*`` for ``feature_extractor.*``; drop what is not in it."""
        known = self.state_dict().keys()
        for key in [k for k in state_dict if k.startswith(f"{prefix}model.")]:
            value = state_dict.pop(key)
            name = f"feature_extractor.{key.removeprefix(f'{prefix}model.')}"
            if name in known:
                state_dict.setdefault(prefix + name, value)
        super()._load_from_state_dict(state_dict, prefix, *args)

    @staticmethod
    def keywords_of_weights(
        model_name: str = "resnet50",
        pretrained: bool = False,
        weights: Any = None,
        in_channels: int = 3,
        **_: Any,
    ) -> dict[str, Any]:
        """Say what else the network is built with where weights are asked for.

        A config that leaves the weights out needs these to describe the same network.

        Args:
            model_name: as the class's other arguments.
            pretrained: whether the first weights are asked for.
            weights: which weights; nothing is fetched.
            in_channels: channels of the image.

        Returns:
            Keywords of torchvision's builder.

        Raises:
            TypeError, BackboneError: see the class.
        """
        asked = one_way_to_weights(pretrained=pretrained, weights=weights)
        if asked is None:
            return {}
        asked = first_weights(model_name) if pretrained else asked
        source = find_weights(asked, model_name, in_channels)
        return builder_keywords(source.info, model_name, in_channels, {})

    @staticmethod
    def get_graph_node_names(model_name: str, **kwargs: Any) -> tuple[list[str], list[str]]:
        """List the nodes that `return_nodes` can name, in the order of their computation.

        Args:
            model_name: classifier of torchvision.
            **kwargs: passed to torchvision's builder.

        Returns:
            Names of the nodes in training mode and in evaluation mode.
        """
        network = build_classifier(model_name, **kwargs)
        return node_names(network)
