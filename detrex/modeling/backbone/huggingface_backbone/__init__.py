"""Any network of images of Hugging Face's transformers as a backbone."""

from .backbone import HuggingFaceBackbone

__all__ = ["HuggingFaceBackbone"]
