"""A detector run on the ``meta`` device: shapes meet or do not, without data.

Matching, sampling, suppression and losses need values and are left out. What comes after them is
run all the same: the heads get as many regions as training samples, of the size that their pooler
gives.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from detectron2.structures import ImageList
from torch import Tensor, nn

from detrex.detectors import image_channels
from detrex.errors import ConfigError, did_you_mean
from detrex.modeling.backbone.features.coverage import Size
from detrex.modeling.backbone.top_block import check_top_block

Maps = Mapping[str, Tensor]
Strides = Mapping[str, int]
Attempt = Callable[[str, Callable[[], Any]], Any]
"""Calls a function, notes what it raises under a name, and gives its result or None."""

_LEFT_OUT = "matching, sampling, suppression and losses, which need values"


@dataclass
class MetaForward:
    """What running a detector showed.

    Attributes:
        neck: lines on the levels between backbone and detector.
        notes: what was left out, and why.
        results: all that was computed, kept so that what autograd saved can be counted.
    """

    neck: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    results: list[Any] = field(default_factory=list)


def run_on_meta(detector: nn.Module, size: Size, attempt: Attempt) -> MetaForward:
    """Run what can be run of a detector on one image.

    Args:
        detector: on the meta device, in training mode. DINO's kind is run up to its hidden states,
            detectron2's kinds (R-CNN, panoptic, RetinaNet, FCOS) with all their heads, of any other
            the backbone alone.
        size: height and width of the image in pixels.
        attempt: what goes wrong in a stage is its business.

    Returns:
        What was seen.
    """
    seen = MetaForward()
    image = torch.empty(image_channels(detector) or 3, *size, device="meta")
    if hasattr(detector, "extract_levels") and hasattr(detector, "hidden_states"):
        attempt("model", lambda: _run_dino(detector, image, seen))
    elif not callable(backbone := getattr(detector, "backbone", None)):
        seen.notes.append("nothing was run: the detector has no backbone")
    else:
        maps = attempt("model.backbone", lambda: run_backbone(backbone, image))
        if isinstance(maps, Mapping):
            seen.results.append(maps)
            _run_heads(detector, maps, seen, attempt)
    return seen


def padded_size(backbone: Any, size: Size) -> Size:
    """Give the size that detectron2 pads images to for a backbone.

    Args:
        backbone: its ``padding_constraints`` and ``size_divisibility`` are read, where it has them.
        size: height and width of the image.

    Raises:
        ConfigError: the backbone takes squares, and the image is larger.
    """
    square = (getattr(backbone, "padding_constraints", None) or {}).get("square_size", 0)
    if 0 < square < max(size):
        raise ConfigError(
            f"{type(backbone).__name__} pads images to {square} x {square} (square_pad), and those "
            f"of training have up to {size[0]} x {size[1]}, which would be cut: resize or crop "
            "them, or give a larger square_pad."
        )
    height, width = _padded(backbone, torch.empty(1, *size, device="meta")).shape[-2:]
    return height, width


def run_backbone(backbone: Any, image: Tensor) -> Maps:
    """Run a backbone on an image, padded as detectron2 does it, and hold its maps to its word.

    Args:
        backbone: a detectron2 ``Backbone`` or alike.
        image: ``(C, H, W)``.

    Returns:
        Its maps by name.

    Raises:
        ConfigError: channels or stride of a map are not those that ``output_shape()`` publishes, or
            a pyramid's top block takes another map than its last level.
        BackboneError: the top block is built for other channels.
    """
    padded_size(backbone, (image.shape[-2], image.shape[-1]))
    check_top_block(backbone)
    images = _padded(backbone, image)
    maps = backbone(images)
    said = backbone.output_shape() if hasattr(backbone, "output_shape") else {}
    for name, shape in said.items():
        if name not in maps or shape.stride is None:
            continue
        channels, *cells = maps[name].shape[1:]
        expected = [-(-side // shape.stride) for side in images.shape[-2:]]
        if channels != shape.channels or any(
            abs(a - b) > 1 for a, b in zip(cells, expected, strict=True)
        ):
            raise ConfigError(
                f"{type(backbone).__name__} publishes {name!r} with {shape.channels} channels and "
                f"stride {shape.stride}, but gives {channels} channels and {cells[0]} x {cells[1]} "
                f"cells for an image of {images.shape[-2]} x {images.shape[-1]}: mend its "
                "output_shape()."
            )
    return maps


def _padded(backbone: Any, image: Tensor) -> Tensor:
    return ImageList.from_tensors(
        [image],
        getattr(backbone, "size_divisibility", 0),
        padding_constraints=getattr(backbone, "padding_constraints", None),
    ).tensor


def _run_dino(detector: Any, image: Tensor, seen: MetaForward) -> None:
    levels = detector.extract_levels([image])
    seen.neck += [
        f"level {place}  {f.shape[1]} channels  {f.shape[2]} x {f.shape[3]} cells"
        for place, f in enumerate(levels.features)
    ]
    seen.results.append(detector.hidden_states(levels))


def _run_heads(detector: Any, maps: Maps, seen: MetaForward, attempt: Attempt) -> None:
    """Run the heads of detectron2's detectors, each told by what it has."""
    strides = _strides(detector.backbone)
    heads = {
        name: functools.partial(run, head, maps, strides)
        for name, marks, run in _HEADS
        if all(hasattr(head := getattr(detector, name, None), mark) for mark in marks)
    }
    if hasattr(detector, "head") and hasattr(detector, "head_in_features"):
        heads["head"] = functools.partial(_run_dense, detector, maps, strides)
    results = {name: attempt(f"model.{name}", run) for name, run in heads.items()}
    seen.results.append(results)
    if heads:
        seen.notes.append(_LEFT_OUT)
    else:
        seen.notes.append(
            f"the backbone alone was run: what a {type(detector).__name__} does with its maps is "
            "not known here"
        )
    if results.get("roi_heads") is not None:
        boxes, objects = _numbers_of_regions(detector.roi_heads)
        seen.notes.append(
            f"proposals: {boxes} empty regions, {objects} of them with an object, stand for them"
        )


def _strides(backbone: Any) -> dict[str, int]:
    shapes = backbone.output_shape() if hasattr(backbone, "output_shape") else {}
    return {name: shape.stride for name, shape in shapes.items() if shape.stride is not None}


def _run_rpn(rpn: Any, maps: Maps, strides: Strides) -> Any:
    taken = _taken(maps, rpn.in_features, "in_features")
    logits, deltas = rpn.rpn_head(taken)
    _check_strides(rpn, [strides.get(name) for name in rpn.in_features])
    _check_anchors(rpn, taken, logits)
    return logits, deltas


def _run_sem_seg(head: Any, maps: Maps, strides: Strides) -> Any:
    _taken(maps, getattr(head, "in_features", ()), "in_features")
    return head.layers(maps)


def _run_dense(detector: Any, maps: Maps, strides: Strides) -> Any:
    names = detector.head_in_features
    taken = _taken(maps, names, "head_in_features")
    built_for = getattr(detector.head, "_num_features", len(taken))
    if len(taken) != built_for:
        raise ConfigError(
            f"head_in_features names {len(taken)} maps, and the head is built for {built_for}: "
            "give head.input_shape one entry for each."
        )
    logits, deltas, *rest = detector.head(taken)
    if hasattr(detector, "anchor_generator"):
        _check_strides(detector, [strides.get(name) for name in names])
        _check_anchors(detector, taken, deltas, numbers=4)
        _check_anchors(detector, taken, logits, numbers=detector.num_classes)
    return logits, deltas, rest


def _check_strides(owner: Any, strides: list[int | None]) -> None:
    own = list(getattr(owner.anchor_generator, "strides", strides))
    # What anchors have beyond the last map is not used.
    if None not in strides and own[: len(strides)] != strides:
        raise ConfigError(
            f"its anchors are {own} pixels apart and the strides of its maps are {strides}: set "
            "anchor_generator.strides to these."
        )


def _check_anchors(
    owner: Any, maps: Sequence[Tensor], predicted: Sequence[Tensor], numbers: int = 1
) -> None:
    """Hold what is predicted on each map against its anchors."""
    for anchors, tensor in zip(owner.anchor_generator(maps), predicted, strict=True):
        if tensor.numel() != len(anchors) * numbers:
            cells = tensor.shape[-2] * tensor.shape[-1]
            raise ConfigError(
                f"its head predicts {tensor.shape[1]} numbers a cell and its anchors need "
                f"{len(anchors) // cells * numbers}: set num_anchors (and num_classes) of the head "
                "to those of the anchor generator."
            )


def _run_roi_heads(heads: Any, maps: Maps, strides: Strides) -> Any:
    boxes, objects = _numbers_of_regions(heads)
    regions = _pooled(heads.box_pooler, maps, heads.box_in_features, strides, boxes)
    stages = [(heads.box_head, heads.box_predictor)]
    if isinstance(heads.box_head, nn.ModuleList):  # Cascade R-CNN
        stages = list(zip(heads.box_head, heads.box_predictor, strict=True))
    results = [predictor(head(regions)) for head, predictor in stages]
    for part in ("mask", "keypoint"):
        head: Any = getattr(heads, f"{part}_head", None)
        pooler = getattr(heads, f"{part}_pooler", None)
        if hasattr(head, "layers") and pooler is not None:
            names = getattr(heads, f"{part}_in_features")
            results.append(head.layers(_pooled(pooler, maps, names, strides, objects)))
    return results


def _run_res5_heads(heads: Any, maps: Maps, strides: Strides) -> Any:
    """Run the heads of detectron2's C4 detectors, whose last stage is theirs."""
    boxes, objects = _numbers_of_regions(heads)
    shared = heads.res5(_pooled(heads.pooler, maps, heads.in_features, strides, boxes))
    results = [heads.box_predictor(shared.mean(dim=[2, 3]))]
    mask_head: Any = getattr(heads, "mask_head", None)
    if hasattr(mask_head, "layers"):
        results.append(mask_head.layers(shared[:objects]))
    return results


def _numbers_of_regions(heads: Any) -> tuple[int, int]:
    """Boxes that training samples in an image, and those of them that may be objects."""
    boxes = int(getattr(heads, "batch_size_per_image", 512))
    return boxes, max(1, round(boxes * getattr(heads, "positive_fraction", 0.25)))


def _pooled(
    pooler: Any,
    maps: Maps,
    names: Sequence[str],
    strides: Strides,
    count: int,
) -> Tensor:
    """Give empty regions of the size that a pooler cuts out of maps, and check that it can."""
    taken = _taken(maps, names, "in_features")
    scales = [level.spatial_scale for level in pooler.level_poolers]
    wanted = [1 / strides[name] if name in strides else None for name in names]
    fit = len(scales) == len(wanted) and all(
        b is None or math.isclose(a, b, rel_tol=0.01) for a, b in zip(scales, wanted, strict=True)
    )
    if not fit:
        raise ConfigError(
            f"the scales of its pooler are {scales}, those of its maps {list(names)} are {wanted}: "
            "set scales to 1 / stride of each map."
        )
    channels = {name: map_.shape[1] for name, map_ in zip(names, taken, strict=True)}
    if len(set(channels.values())) > 1:
        raise ConfigError(f"its pooler takes maps of equal channels, got {channels}.")
    return taken[0].new_empty(count, taken[0].shape[1], *pooler.output_size)


def _taken(maps: Maps, names: Sequence[str], what: str) -> list[Tensor]:
    for name in names:
        if name not in maps:
            raise ConfigError(
                f"{what} has {name!r}, which the backbone does not give: it gives "
                f"{', '.join(maps)}.{did_you_mean(name, maps)}"
            )
    return [maps[name] for name in names]


_HEADS: Sequence[tuple[str, tuple[str, ...], Callable[..., Any]]] = (
    ("proposal_generator", ("rpn_head", "anchor_generator", "in_features"), _run_rpn),
    ("roi_heads", ("box_pooler", "box_head", "box_predictor"), _run_roi_heads),
    ("roi_heads", ("pooler", "res5", "box_predictor"), _run_res5_heads),
    ("sem_seg_head", ("layers", "in_features", "scale_heads"), _run_sem_seg),
)
"""Heads of detectron2's detectors, the attributes by which each is told, and how it is run."""
