"""torchvision's classifiers by name, with their weights by enum, by name, or from a file."""

from pathlib import Path
from typing import Any

import torchvision
from torch import nn

from detrex.errors import BackboneError, did_you_mean

from .building import build_network

_WEIGHT_FILES = (".pth", ".pt", ".bin", ".pkl", ".safetensors")


def create_classifier(
    model_name: str,
    pretrained: bool = False,
    weights: Any | str | Path | None = None,
    **kwargs: Any,
) -> tuple[nn.Module, Path | None]:
    """Build a classifier of torchvision.

    Args:
        model_name: name of the classifier.
        pretrained: take the first ImageNet weights there are.
        weights: a torchvision enum, its name, or a file.
        **kwargs: passed to torchvision's builder.

    Returns:
        The network, and the weights file that is still to be loaded, if `weights` is one.

    Raises:
        TypeError: a keyword that the network does not take.
        BackboneError: an unknown model, or weights that are not there.
    """
    models = torchvision.models.list_models(module=torchvision.models)
    if model_name not in models:
        hint = did_you_mean(model_name, models) or " See torchvision.models.list_models()."
        raise BackboneError(f"torchvision has no classifier named {model_name!r}.{hint}")
    builder = torchvision.models.get_model_builder(model_name)
    member, file = _resolve_weights(model_name, pretrained, weights)
    who = f"torchvision's {model_name!r}"
    try:
        network = build_network(who, builder, {"weights": member, **kwargs}, builder)
    except (OSError, RuntimeError) as error:
        if member is None:
            raise
        raise BackboneError(
            f"weights {member} of {who} could not be fetched ({type(error).__name__}: {error}): "
            "give a local file as weights, or pretrained=False."
        ) from error
    return network, file


def _resolve_weights(
    model_name: str, pretrained: bool, weights: Any | str | Path | None
) -> tuple[Any, Path | None]:
    """Tell an enum, or a name of one, from a file."""
    if weights is None and not pretrained:
        return None, None
    choices = torchvision.models.get_model_weights(model_name)
    names = [*(member.name for member in choices), "DEFAULT"]
    if weights is None:
        return next(iter(choices)), None
    if pretrained:
        raise BackboneError(
            f"got both pretrained=True and weights={weights!r}: leave one of them out."
        )
    if isinstance(weights, choices):
        return weights, None
    text = str(weights)
    name = text.removeprefix(f"{choices.__name__}.")
    if name in names:
        return choices[name], None
    if isinstance(weights, Path) or text.endswith(_WEIGHT_FILES):
        return None, Path(text)
    raise BackboneError(
        f"{model_name} has the weights {', '.join(names)}, got {text!r}: use one of these, or a "
        f"file ending in {', '.join(_WEIGHT_FILES)}.{did_you_mean(name, names)}"
    )
