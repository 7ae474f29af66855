"""Where a detector holds its backbone, told alike of a config and of a built detector.

::

    backbone               DINO, DETR, detectron2's C4, whose last stage is roi_heads.res5
    backbone.bottom_up     under FPN: Mask R-CNN, RetinaNet, FCOS, ...
    backbone.net           under ViTDet's simple feature pyramid
"""

from typing import Any

from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor, nn

REGION_STAGE = "roi_heads.res5"
_INSIDE = ("bottom_up", "net", "backbone")


def backbone_parts(detector: Any) -> dict[str, Any]:
    """Follow a detector's backbone down to the network that maps images.

    Args:
        detector: a built detector, or the lazy call of one.

    Returns:
        Modules or lazy calls by their dotted name in the detector, the outermost first and the
        network last; empty for a detector that has no ``backbone``.

    Example:
        >>> from detrex.config import get_detectron2_config
        >>> model = get_detectron2_config("common/models/mask_rcnn_fpn.py").model
        >>> list(backbone_parts(model))
        ['backbone', 'backbone.bottom_up']
    """
    return _parts(_held(detector, "backbone"))


def published_statistics(backbone: Any) -> Any:
    """Find the images that a backbone's weights expect, where a network in it says so.

    Args:
        backbone: a built backbone, which may be a pyramid over another one.

    Returns:
        What the innermost part publishes as ``preprocess``: ``pixel_mean``, ``pixel_std`` and
        ``channel_order``; None where none does.
    """
    said = [getattr(part, "preprocess", None) for part in _parts(backbone).values()]
    return next((statistics for statistics in reversed(said) if statistics is not None), None)


def image_network(backbone: Any) -> Any:
    """Follow a backbone down to the network that maps images.

    Args:
        backbone: a built backbone, which may be a pyramid over another one.
    """
    return list(_parts(backbone).values())[-1]


def image_channels(detector: Any) -> int | None:
    """Give the channels of a built detector's images, None where no ``pixel_mean`` tells them."""
    mean = getattr(detector, "pixel_mean", None)
    return mean.numel() if isinstance(mean, Tensor) else None


def _parts(part: Any) -> dict[str, Any]:
    parts = {}
    path = "backbone"
    while _is_part(part):
        parts[path] = part
        inside = [name for name in _INSIDE if _is_inner_backbone(_held(part, name))]
        if not inside:
            break
        path, part = f"{path}.{inside[0]}", _held(part, inside[0])
    return parts


def region_stage(detector: Any) -> Any:
    """Find the last stage of a backbone's network, which a C4 detector runs on regions.

    Args:
        detector: as in `backbone_parts`.

    Returns:
        The module or lazy call, None where there is none.
    """
    stage = _held(_held(detector, "roi_heads"), "res5")
    return stage if _is_part(stage) else None


def _held(holder: Any, name: str) -> Any:
    try:
        return getattr(holder, name, None)
    except OmegaConfBaseException:  # a reference to nothing
        return None


def _is_part(part: Any) -> bool:
    return isinstance(part, nn.Module) or (isinstance(part, DictConfig) and "_target_" in part)


def _is_inner_backbone(part: Any) -> bool:
    """Whether something in a backbone is one itself: detectron2's say what they give."""
    return _is_part(part) and (isinstance(part, DictConfig) or hasattr(part, "output_shape"))
