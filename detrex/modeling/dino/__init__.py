"""DINO, DETR with improved denoising anchor boxes (arXiv:2203.03605), one file per stage.

The data's way: :mod:`~detrex.modeling.dino.inputs` (images, padding, targets), backbone and neck,
:mod:`~detrex.modeling.dino.denoising`, :mod:`~detrex.modeling.dino.transformer`
(:mod:`~detrex.modeling.dino.encoder`, query selection, :mod:`~detrex.modeling.dino.decoder`),
:mod:`~detrex.modeling.dino.head`, then :mod:`~detrex.modeling.dino.criterion` in training or
:mod:`~detrex.modeling.dino.postprocess` in evaluation. :mod:`~detrex.modeling.dino.detector` is the
table of contents.
"""

from .criterion import DINOCriterion
from .decoder import DINOTransformerDecoder
from .detector import DINO
from .encoder import DINOTransformerEncoder
from .transformer import DINOTransformer

__all__ = [
    "DINO",
    "DINOCriterion",
    "DINOTransformer",
    "DINOTransformerDecoder",
    "DINOTransformerEncoder",
]
