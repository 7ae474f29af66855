"""torchvision's classifiers by name."""

from collections.abc import Mapping
from typing import Any

import torchvision
from torch import nn

from detrex.errors import BackboneError, did_you_mean
from detrex.modeling.backbone.inspection.findings import NetworkKey
from detrex.modeling.backbone.wrapper.library_builder import build_with

# Keywords that reach no builder of torchvision's: those of TorchvisionBackbone.
_OTHER_KEYWORDS = (
    *("model_name", "pretrained", "weights", "return_nodes", "out_strides", "out_features"),
    *("out_channels", "in_channels", "norm_layer", "frozen_norm", "freeze_at"),
    *("grad_checkpointing", "train_return_nodes", "eval_return_nodes", "tracer_kwargs"),
    "suppress_diff_warnings",
)


def check_classifier(model_name: str) -> None:
    """Check that torchvision has a classifier.

    Args:
        model_name: name of the classifier.

    Raises:
        TypeError: the name is no text.
        BackboneError: it has not; near names are suggested.
    """
    if not isinstance(model_name, str):
        raise TypeError(f"model_name must be a name such as 'resnet50', got {model_name!r}.")
    models = classifier_names()
    if model_name not in models:
        hint = did_you_mean(model_name, models) or " See torchvision.models.list_models()."
        raise BackboneError(f"torchvision has no classifier named {model_name!r}.{hint}")


def build_classifier(model_name: str, **kwargs: Any) -> nn.Module:
    """Build a classifier of torchvision, without pretrained weights.

    Args:
        model_name: name of the classifier.
        **kwargs: passed to torchvision's builder.

    Returns:
        The network.

    Raises:
        TypeError: a keyword that the network does not take.
        BackboneError: an unknown model, or one that cannot be built so.
    """
    check_classifier(model_name)
    builder = torchvision.models.get_model_builder(model_name)
    return build_with(f"torchvision's {model_name!r}", builder, kwargs, builder, _OTHER_KEYWORDS)


def network_key(model_name: str, keywords: Mapping[str, Any]) -> NetworkKey | None:
    """Say under what to keep what is found of a classifier; see `NetworkKey.of`.

    Args:
        model_name: name of the classifier.
        keywords: what it is built with.
    """
    return NetworkKey.of(torchvision.models.get_model_builder(model_name), model_name, keywords)


def classifier_names() -> list[str]:
    """Names of torchvision's own classifiers, and of the networks that a user registered."""
    models = torchvision.models
    own = models.list_models(module=models)
    others = set(models.list_models()) - set(own)
    return own + sorted(
        name
        for name in others
        if not models.get_model_builder(name).__module__.startswith("torchvision.")
    )
