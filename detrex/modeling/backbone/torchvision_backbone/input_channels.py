"""Images of another number of channels than three, for networks that are built for three."""

import functools
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from detrex.checkpoint.matching.input_conv import adapt_input_conv
from detrex.errors import BackboneError
from detrex.modeling.backbone.arguments import check_in_channels
from detrex.modeling.backbone.inspection.meta_run import run_on_meta

_BUILT_FOR = 3


def set_input_channels(
    network: nn.Module, in_channels: int, image_sizes: Iterable[tuple[int, int]] = ()
) -> None:
    """Let a network take images of another number of channels, in place.

    The convolutions that see the image are found by a run on the meta device. Their kernels are
    adapted, pretrained ones too: see `detrex.checkpoint.matching.input_conv.adapt_input_conv`.

    Args:
        network: a network that maps images of three channels; it may be on the ``meta`` device.
        in_channels: channels wanted, at least 1; 3 changes nothing.
        image_sizes: heights and widths to run with, in this order; by default some usual ones.

    Raises:
        BackboneError: the number is no positive integer, the network cannot be run, or something
            else than a convolution reads its image's channels.
    """
    check_in_channels(in_channels)
    if in_channels == _BUILT_FOR:
        return
    sizes = [*image_sizes] or _usual_sizes(network)
    names = _convolutions_of_image(network, sizes)
    originals = [_adapt(network.get_submodule(name), in_channels) for name in names]
    try:
        run_on_meta(network, sizes, in_channels)
    except BackboneError as error:
        for name, weight in zip(names, originals, strict=True):
            _set_weight(network.get_submodule(name), weight)
        raise BackboneError(
            f"{type(network).__name__} reads the three channels of its image elsewhere than in its "
            f"first convolution ({', '.join(names)}), so it cannot take {in_channels}: leave "
            "in_channels out, or choose another network."
        ) from error


def _convolutions_of_image(network: nn.Module, sizes: list[tuple[int, int]]) -> list[str]:
    """Name the convolutions that are given the image itself, or else the first that is run."""
    of_image: list[str] = []
    in_order: list[str] = []

    def note(name: str, image: torch.Tensor, module: nn.Conv2d, inputs: tuple[Any, ...]) -> None:
        in_order.append(name)
        if inputs and inputs[0] is image:
            of_image.append(name)

    def run(twin: nn.Module, image: torch.Tensor) -> Any:
        of_image.clear()
        in_order.clear()
        handles = [
            module.register_forward_pre_hook(functools.partial(note, name, image))
            for name, module in twin.named_modules()
            if isinstance(module, nn.Conv2d)
        ]
        try:
            return twin(image)
        finally:
            for handle in handles:
                handle.remove()

    run_on_meta(network, sizes, _BUILT_FOR, run)
    names = of_image or in_order[:1]
    for name in names:
        convolution: Any = network.get_submodule(name)
        if (convolution.in_channels, convolution.groups) != (_BUILT_FOR, 1):
            names = []
    if not names:
        raise BackboneError(
            f"no convolution of {type(network).__name__} sees its image of three channels: leave "
            "in_channels out, or choose another network."
        )
    return names


def _adapt(convolution: Any, in_channels: int) -> nn.Parameter:
    """Change a convolution in place, and give the weight that it had."""
    weight: nn.Parameter = convolution.weight
    kernel = adapt_input_conv(weight.detach(), in_channels)
    _set_weight(convolution, nn.Parameter(kernel, requires_grad=weight.requires_grad))
    return weight


def _set_weight(convolution: Any, weight: nn.Parameter) -> None:
    convolution.weight, convolution.in_channels = weight, weight.shape[1]


def _usual_sizes(network: nn.Module) -> list[tuple[int, int]]:
    """The square that the network was built for where it says so, and usual ones."""
    own = getattr(network, "image_size", None)
    sides = [own] if isinstance(own, int) else []
    return [(side, side) for side in (*sides, 224, 299, 256)]
