"""Layout, channels and stride of a feature, told by the shapes of its tensor."""

import math
from collections.abc import Sequence

from detrex.errors import BackboneError
from detrex.modeling.backbone.features.coverage import Size
from detrex.modeling.backbone.features.feature_info import FeatureInfo, Layout

from .meta_run import SizeRefusedError

MAX_PREFIX_TOKENS = 16
"""The most class and register tokens that may stand before the tokens of the image."""


def describe_feature(
    name: str,
    source: str,
    shapes: Sequence[Sequence[int]],
    image_sizes: Sequence[tuple[int, int]],
) -> FeatureInfo:
    """Find layout, channels and stride of a feature from its shapes.

    Args:
        name: key in the output dict.
        source: node that gives it.
        shapes: shape of the tensor for each of one or two image sizes.
        image_sizes: the image sizes, height and width in pixels.

    Returns:
        The row of the feature table.

    Raises:
        BackboneError: the tensor is not a map of the image in any known layout.
    """
    shape, image_size = shapes[0], image_sizes[0]
    if len(shape) == 3:
        stride, prefix = _token_grid(name, source, shape, image_size)
        return FeatureInfo(name, source, shape[2], stride, "NLC", prefix)
    if len(shape) != 4:
        raise BackboneError(
            f"node {source!r} gives a tensor of shape {tuple(shape)}, which is no feature map: "
            "choose a node before the pooling and the classifier."
        )
    layout = map_layout(shape, image_size)
    heights = [map_size(s, layout)[0] for s in shapes]
    map_stride = _stride(heights, [height for height, _ in image_sizes])
    if map_stride is None:
        raise BackboneError(
            f"node {source!r} gives a tensor of shape {tuple(shape)} whatever the size of the "
            "image, which is no feature map: choose a node before the pooling."
        )
    return FeatureInfo(name, source, shape[1 if layout == "NCHW" else 3], map_stride, layout)


def map_layout(shape: Sequence[int], image_size: Sequence[int]) -> Layout:
    """Tell NCHW from NHWC by which pair of axes has the proportions of the image.

    Args:
        shape: the four sizes of a feature map.
        image_size: height and width of the image.

    Returns:
        ``"NCHW"`` or ``"NHWC"``, the first when both would do.
    """
    aspect = math.log(image_size[0] / image_size[1])
    channels_first = abs(math.log(shape[2] / shape[3]) - aspect)
    channels_last = abs(math.log(shape[1] / shape[2]) - aspect)
    return "NCHW" if channels_first <= channels_last else "NHWC"


def map_size(shape: Sequence[int], layout: Layout) -> tuple[int, int]:
    """Give height and width of a map in cells.

    Args:
        shape: the four sizes of a feature map.
        layout: ``"NCHW"`` or ``"NHWC"``.
    """
    first = 2 if layout == "NCHW" else 1
    return int(shape[first]), int(shape[first + 1])


def grid_size(feature: FeatureInfo, shape: Sequence[int], image_size: tuple[int, int]) -> Size:
    """Give height and width of a feature in cells, those of a grid of tokens too.

    Args:
        feature: layout, stride and prefix of the tensor.
        shape: its sizes for an image.
        image_size: height and width of the image in pixels.

    Raises:
        SizeRefusedError: the tokens do not fill the grid that belongs to the image.
    """
    if feature.layout != "NLC":
        return map_size(shape, feature.layout)
    height, width = (side // feature.stride for side in image_size)
    if shape[1] - feature.prefix_tokens != height * width:
        raise SizeRefusedError(f"{shape[1]} tokens are not {height} x {width}")
    return height, width


def _stride(map_heights: Sequence[int], image_heights: Sequence[int]) -> int | None:
    """Stride from how a map grows with the image, which holds for unpadded convolutions too."""
    if len(map_heights) == 1:
        return round(image_heights[0] / map_heights[0])
    grown = map_heights[1] - map_heights[0]
    return round((image_heights[1] - image_heights[0]) / grown) if grown > 0 else None


def _token_grid(
    name: str, source: str, shape: Sequence[int], image_size: Sequence[int]
) -> tuple[int, int]:
    """Patch size and number of prefix tokens of a sequence of ``shape[1]`` tokens."""
    height, width = image_size
    patches = [p for p in range(1, min(image_size) + 1) if height % p == width % p == 0]
    prefixes = {p: shape[1] - (height // p) * (width // p) for p in patches}
    fitting = {p: k for p, k in prefixes.items() if 0 <= k <= MAX_PREFIX_TOKENS}
    if not fitting:
        raise BackboneError(
            f"node {source!r}, asked for as {name!r}, gives {shape[1]} tokens for an image of "
            f"{tuple(image_size)}, which is no grid of square patches: choose another node."
        )
    stride = min(fitting, key=lambda p: fitting[p])
    return stride, fitting[stride]
