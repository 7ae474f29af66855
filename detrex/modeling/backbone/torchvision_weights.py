"""torchvision's pretrained weights: their enum members, and where they are."""

from typing import Any

import torchvision

from detrex.errors import BackboneError, did_you_mean

from .weights import Place


def names(model_name: str) -> list[str]:
    """List the names of a classifier's weights, oldest first, and ``"DEFAULT"``.

    Args:
        model_name: classifier of torchvision.
    """
    return [
        *(member.name for member in torchvision.models.get_model_weights(model_name)),
        "DEFAULT",
    ]


def first_weights(model_name: str) -> Any:
    """Give the oldest weights of a classifier, which ``pretrained=True`` has always meant.

    Args:
        model_name: classifier of torchvision.

    Returns:
        A member of its enum.

    Raises:
        BackboneError: torchvision has none for it.
    """
    choices = torchvision.models.get_model_weights(model_name)
    return next(iter(choices)) if len(choices) else find(True, model_name)


def find(weights: Any, model_name: str) -> Place | None:
    """Find weights that torchvision has for a classifier.

    Args:
        weights: True for the default, an enum member, or its name with or without the enum's
            (``"IMAGENET1K_V2"``, ``"ResNet50_Weights.DEFAULT"``).
        model_name: classifier of torchvision.

    Returns:
        Where they are; None where `weights` names none of torchvision's.

    Raises:
        BackboneError: an enum member of another network, or a network without weights.
    """
    choices = torchvision.models.get_model_weights(model_name)
    if weights is True:
        if not len(choices):
            raise BackboneError(
                f"torchvision has no weights for {model_name!r}: give a file or an address, or "
                "leave weights out."
            )
        return _place(choices.DEFAULT)
    if isinstance(weights, torchvision.models.WeightsEnum) and not isinstance(weights, choices):
        raise BackboneError(
            f"{model_name} has the weights {', '.join(names(model_name))}, got {weights}: use one "
            f"of these.{did_you_mean(weights.name, names(model_name))}"
        )
    if isinstance(weights, choices):
        return _place(weights)
    name = str(weights).removeprefix(f"{choices.__name__}.")
    return _place(choices[name]) if name in names(model_name) else None


def _place(member: Any) -> Place:
    return Place((member.url,), member=member)
