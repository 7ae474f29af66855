"""What a network gives and needs, known before it is built."""

from dataclasses import dataclass

from detrex.modeling.pixel_statistics import PixelStatistics

from .coverage import Size
from .feature_info import FeatureInfo
from .input_size import InputSize


@dataclass(frozen=True)
class NetworkSpec:
    """What a network gives and needs.

    Attributes:
        name: what to call it, such as ``"timm's 'resnet50'"``.
        features: the feature maps that it can give, in the order of their computation.
        input_size: the images that it takes.
        example_size: height and width in pixels of an image that it takes as it is.
        in_channels: channels of the image.
        statistics: those of the images that its default weights expect.
        count: how many tensors it gives in all, those that are no feature maps too; 0 where only
            the features are taken out of it.
    """

    name: str
    features: tuple[FeatureInfo, ...]
    input_size: InputSize
    example_size: Size
    in_channels: int
    statistics: PixelStatistics
    count: int = 0
