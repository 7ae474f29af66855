"""Any classifier of torchvision, tapped at named nodes of its graph, as a backbone.

Nodes are named as `torchvision.models.feature_extraction` names them.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from detrex.errors import BackboneError
from detrex.modeling.backbone.features.feature_info import FeatureInfo
from detrex.modeling.backbone.features.output_levels import (
    Level,
    check_out_strides,
    maps_and_levels,
    plan_levels,
    requested_strides,
)
from detrex.modeling.backbone.inspection.meta_run import run_on_meta
from detrex.modeling.backbone.inspection.stages import find_stages
from detrex.modeling.backbone.preprocess import Preprocess
from detrex.modeling.backbone.training.activation_checkpointing import checkpoint_network
from detrex.modeling.backbone.training.freezing import check_freeze_at
from detrex.modeling.backbone.training.norms import chosen_norm, norm_kind
from detrex.modeling.backbone.weights.pretrained import find_weights
from detrex.modeling.backbone.weights.source import WeightsSource
from detrex.modeling.backbone.wrapper.arguments import (
    check_in_channels,
    check_switches,
    one_way_to_weights,
)
from detrex.modeling.backbone.wrapper.wrapper_backbone import WrapperBackbone

from .builder import build_classifier, check_classifier
from .input_channels import set_input_channels
from .nodes import DEFAULT_RETURN_NODES, Nodes, extract, node_names, nodes_by_mode
from .spec import NetworkOffer, look_for_nodes, rule_for_nodes, table_of_nodes
from .weights import (
    TRANSFORMED,
    builder_keywords,
    builder_parameters,
    first_weights,
)

logger = logging.getLogger(__name__)


class TorchvisionBackbone(WrapperBackbone):
    """A classifier of torchvision as a detectron2 backbone, cut at strides or at named nodes.

    With `out_strides` output ``res{log2 stride}`` has that stride, in any network, as with
    `TimmBackbone`: each is the last map of its stride, and what a network lacks is made. With
    `return_nodes` outputs are named by its values and come in the order in which the network
    computes them. Images may have any size; see `InputSize`.

    Each output is an NCHW map: NHWC nodes are permuted, tokens laid out on their grid without the
    class token. The network is one copy, ``feature_extractor.*``, with torchvision's names behind
    the prefix; checkpoints of the original detrex, which hold it twice (``model.*`` as well), load
    too, and their classifier is passed over.

    Args:
        model_name: classifier of torchvision, such as ``"resnet50"``.
        pretrained: load torchvision's first ImageNet weights; `weights` says it more precisely.
        return_nodes: node to name of the output, or a list of nodes that keep their names; left out
            where `out_strides` is given.
        train_return_nodes: nodes in training mode, where they differ; with `eval_return_nodes`.
        eval_return_nodes: nodes in evaluation mode; with `train_return_nodes`.
        tracer_kwargs: keywords of torchvision's tracer.
        suppress_diff_warnings: do not warn where the graph differs between the modes.
        out_strides: strides of the outputs in pixels, such as ``(8, 16, 32)``.
        out_features: the same by detectron2's names, such as ``("res3", "res4", "res5")``.
        out_channels: channels of the levels that are made; by default those of the network.
        in_channels: channels of the image; pretrained kernels are adapted.
        weights: True for torchvision's default weights, a member of its enum or its name
            (``"IMAGENET1K_V2"``, ``"DEFAULT"``), a file or folder, an address (``https://``,
            ``hf-hub:``, ``detectron2://``), or a state dict; ``"run.pth#teacher"`` names an entry
            of a file. With torchvision's own weights the network is built as its builder does it
            for them.
        norm_layer: norm to build with: a class or function, or one of detectron2's names (``"BN"``,
            ``"SyncBN"``, ``"GN"``, ``"LN"``, ...). With a frozen batch norm (detectron2's,
            torchvision's, or ``"FrozenBN"``) and with a synchronised one the network is built with
            its own batch norms, gets its weights, and then has them converted exactly.
        frozen_norm: freeze the batch norms exactly, as ``norm_layer=FrozenBatchNorm2d``.
        freeze_at: number of stages to freeze as in `ResNet`: 1 is the stem, 2 the stem and the
            stage of stride 4, ... 5 everything; a network of one stride counts quarters of its
            blocks.
        grad_checkpointing: compute each block's activations again in the backward pass instead of
            keeping them.
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
        super().__init__()
        check_freeze_at(freeze_at)
        check_switches(frozen_norm=frozen_norm, grad_checkpointing=grad_checkpointing)
        check_in_channels(in_channels, kwargs)
        source = one_way_to_weights(pretrained=pretrained, weights=weights)
        check_classifier(model_name)
        place = None if source is None else _place(model_name, source, pretrained)
        if place is not None:
            kwargs = builder_keywords(place.member, model_name, in_channels, kwargs)
        norm = chosen_norm(
            *(norm_layer, frozen_norm, "torchvision"),
            lambda: norm_kind(build_classifier(model_name, **kwargs)),
        )
        given = (return_nodes, train_return_nodes, eval_return_nodes)

        who = f"torchvision's {model_name!r}"
        with norm.naming():
            network = build_classifier(model_name, **kwargs, **norm.keywords)
            set_input_channels(network, in_channels)
            offer = look_for_nodes(network, who, in_channels)
        self.offered = offer.nodes
        strides = [node.stride for node in offer.nodes]
        out_strides = requested_strides(out_strides, out_features, strides, who)
        features: Sequence[FeatureInfo] = ()
        levels = None
        if out_strides is None:
            nodes = nodes_by_mode(*given)
        else:
            features, levels = select_outputs(who, offer, out_strides, given)
            named = {str(feature.source): feature.name for feature in features}
            nodes = (named, named)
        self.feature_extractor = extract(
            model_name, network, nodes, tracer_kwargs, suppress_diff_warnings
        )
        self.register_load_state_dict_pre_hook(_accept_both_copies)
        self.preprocess = Preprocess.from_torchvision(None, in_channels)
        rule = offer.input_size
        if out_strides is None:
            features = table_of_nodes(self.feature_extractor, rule, nodes, in_channels).features
        rule = rule_for_nodes(
            self.feature_extractor,
            features,
            rule,
            who,
            in_channels,
            by_stride=out_strides is not None,
        )
        self._publish(features, levels, out_channels, rule)
        self._load_weights(place, "torchvision", model_name, in_channels)
        if place is not None:
            self._see_to_statistics(model_name, place, in_channels, kwargs)
        norm.convert(self.feature_extractor, model_name, offer.example_size, in_channels)

        meta_run = run_on_meta(network, [offer.example_size], in_channels)
        self._freeze(find_stages(meta_run), freeze_at)
        if grad_checkpointing:
            checkpoint_network(self.feature_extractor, model_name)
        self._log(f"TorchvisionBackbone({model_name!r})")

    def _see_to_statistics(
        self, model_name: str, place: WeightsSource, in_channels: int, keywords: Mapping[str, Any]
    ) -> None:
        """Say, of networks that may change their image's statistics, which they then want."""
        if "transform_input" not in builder_parameters(model_name):
            return
        if place.member is not None and in_channels != len(TRANSFORMED.pixel_mean):
            self.preprocess = TRANSFORMED.with_channels(in_channels)
        elif place.member is None and "transform_input" not in keywords:
            logger.warning(
                "%s: whether the weights' network changed the statistics of its images is not in a "
                "file: give transform_input=True where it began from torchvision's own weights",
                model_name,
            )

    @property
    def network(self) -> nn.Module:
        """The network of torchvision, cut at the nodes."""
        return self.feature_extractor

    def _run(self, images: torch.Tensor) -> Mapping[str, torch.Tensor]:
        return self.feature_extractor(images)

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


def _place(model_name: str, source: Any, pretrained: bool) -> WeightsSource:
    asked = first_weights(model_name) if pretrained else source
    return find_weights(asked, library="torchvision", model_name=model_name)


def select_outputs(
    who: str,
    offer: NetworkOffer,
    out_strides: Sequence[int],
    nodes: tuple[Nodes | None, ...],
) -> tuple[list[FeatureInfo], list[Level] | None]:
    """Choose nodes by stride, and the levels to be made of them."""
    if any(given is not None and given is not DEFAULT_RETURN_NODES for given in nodes):
        raise BackboneError(
            f"got strides ({', '.join(map(str, out_strides))}) by out_strides or out_features "
            "beside return nodes, which say the same in two ways: leave one of them out."
        )
    strides = check_out_strides(out_strides, [node.stride for node in offer.nodes], who)
    return maps_and_levels(plan_levels(strides, offer.nodes), offer.input_size)


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
