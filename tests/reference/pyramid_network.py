"""A network of five strides without anything else."""

from torch import nn


def halving(channels_in, channels_out):
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 2, 2), nn.Conv2d(channels_out, channels_out, 1)
    )


class Pyramid(nn.Sequential):
    """Stem of stride 2, then stages of strides 4, 8, 16 and 32."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 2, 2)
        for index in range(4):
            self.add_module(f"stage{index}", halving(4, 4))
