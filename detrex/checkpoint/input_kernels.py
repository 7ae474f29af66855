"""Kernels that see the image, for images of another number of channels."""

from torch import Tensor

_IMAGE_CHANNELS = (1, 3)


def adapt_kernel(weight: Tensor, in_channels: int) -> Tensor:
    """Make a kernel for another number of image channels out of a pretrained one.

    For one channel the channels are added up, so that a grey image gives the response of one with
    three equal channels. For more they are repeated in order, the last turn cut short, and scaled
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
    """Tell whether two kernels differ in the number of image channels alone.

    Args:
        weight: the pretrained one.
        wanted: the network's.
        in_channels: channels of the network's images.
    """
    return (
        weight.ndim == wanted.ndim == 4
        and weight.shape[1] in _IMAGE_CHANNELS
        and wanted.shape[1] == in_channels != weight.shape[1]
        and weight.shape[0] == wanted.shape[0]
        and weight.shape[2:] == wanted.shape[2:]
    )
