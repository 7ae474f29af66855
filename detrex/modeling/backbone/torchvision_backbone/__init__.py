"""Any classifier of torchvision as a backbone."""

from .backbone import TorchvisionBackbone

__all__ = ["TorchvisionBackbone"]
