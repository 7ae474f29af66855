"""What a feature map is like: detectron2's own record of channels, height, width and stride."""

from detectron2.layers import ShapeSpec

__all__ = ["ShapeSpec"]
