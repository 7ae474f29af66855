"""Kernels that see the image, for images of another number of channels."""

from torch import Tensor, nn

_IMAGE_CHANNELS = (1, 3)
# A convolution deep in a network rarely has fewer channels than this.
_FEW_CHANNELS = 5


def input_convs(module: nn.Module, in_channels: int) -> list[str]:
    """Name the kernels of a module that see its image.

    Args:
        module: a network, or what holds one.
        in_channels: channels of its images.

    Returns:
        Names of the weights of the convolutions of as many channels: all of them where an image
        has few channels, else the first; of the first convolution where there is none.
    """
    kernels = {
        f"{name}.weight": part
        for name, part in module.named_modules()
        if isinstance(part, nn.Conv2d) and part.groups == 1
    }
    fitting = [name for name, part in kernels.items() if part.in_channels == in_channels]
    return fitting[: None if in_channels < _FEW_CHANNELS else 1] or list(kernels)[:1]


def adapt_input_conv(weight: Tensor, in_channels: int) -> Tensor:
    """Make a kernel for another number of image channels out of a pretrained one.

    For one channel the channels are added up, so that a grey image gives the response of one whose
    channels are all equal. For more they are repeated in order, the last turn cut short, and scaled
    by the ratio of the numbers: where the new number is a multiple of the old, an image whose
    channels are all equal gives the same response.

    Args:
        weight: ``(O, I, kh, kw)``.
        in_channels: channels wanted.

    Returns:
        ``(O, in_channels, kh, kw)`` of the same dtype; `weight` itself where it fits.
    """
    channels = weight.shape[1]
    if channels == in_channels:
        return weight
    kernel = weight.float()
    if in_channels == 1:
        return kernel.sum(1, keepdim=True).to(weight.dtype)
    turns = -(-in_channels // channels)
    repeated = kernel.repeat(1, turns, 1, 1)[:, :in_channels]
    return (repeated * (channels / in_channels)).to(weight.dtype)


def is_for_image(weight: Tensor, wanted: Tensor, in_channels: int) -> bool:
    """Tell whether two kernels differ in the number of image channels alone, as can be adapted.

    From one or three channels to any number, and from any number to one: what the fourth band of a
    file shows, a kernel for three does not say.

    Args:
        weight: the pretrained one.
        wanted: the network's.
        in_channels: channels of the network's images.
    """
    return (
        weight.ndim == wanted.ndim == 4
        and (weight.shape[1] in _IMAGE_CHANNELS or in_channels == 1)
        and wanted.shape[1] == in_channels != weight.shape[1]
        and weight.shape[0] == wanted.shape[0]
        and weight.shape[2:] == wanted.shape[2:]
    )
