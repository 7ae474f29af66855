"""Pixel means and standard deviations that pretrained weights were trained with."""

constants = dict(
    imagenet_rgb256_mean=[123.675, 116.28, 103.53],
    imagenet_rgb256_std=[58.395, 57.12, 57.375],
    imagenet_bgr256_mean=[103.53, 116.28, 123.675],
    # Caffe's models divided by nothing: their first convolution holds the scale.
    imagenet_bgr256_std=[1.0, 1.0, 1.0],
)
