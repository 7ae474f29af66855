"""Pictures for people: boxes, masks and keypoints on images, and truth beside predictions.

Images are arrays of shape ``(height, width, 3)`` in RGB order from 0 to 255, and pictures are of
``uint8``; boxes are absolute ``(x0, y0, x1, y1)`` in pixels of the image they belong to. Boxes are
drawn by Pillow, since detectron2's ``Visualizer`` needs OpenCV and a hundred times as long.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pycocotools.mask as mask_util
from detectron2.structures import BoxMode, Instances, polygons_to_bitmask
from jaxtyping import Bool, Float, Shaped, UInt8
from PIL import Image, ImageChops, ImageColor, ImageDraw, ImageFilter, ImageFont, ImageOps

from detrex.data.coco.objects import compressed
from detrex.data.pictures import as_uint8, check_image_size, read_image
from detrex.errors import printable

if TYPE_CHECKING:
    from detectron2.data import Metadata

Colour = tuple[int, ...]

_MOST_ENLARGED = 4096  # pixels of the longer side
_TITLE_HEIGHT = 28
_GAP = 8
_CLEAR = 0.6  # how much of an image shows through a mask
_LEAST_VISIBLE = 0.05
_PALETTE = ("#ffe119", "#42d4f4", "#f032e6", "#3cff4b", "#ff8c1a", "#ff5050", "#aab4ff", "#ffffff")


def draw_boxes(
    image_rgb: UInt8[np.ndarray, "h w 3"],
    boxes_xyxy_abs: Shaped[np.ndarray, "n 4"],
    classes: Sequence[int],
    scores: Sequence[float] | None = None,
    *,
    metadata: "Metadata | None" = None,
    min_side: int = 480,
    masks: Iterable[Bool[np.ndarray, "_ _"]] = (),
    keypoints: Shaped[np.ndarray, "n k 3"] | None = None,
) -> UInt8[np.ndarray, "_ _ 3"]:
    """Draw boxes with their class names and scores, one fixed colour per class.

    A small image is enlarged first, so that lines and letters stay thin beside the objects.

    Args:
        image_rgb: ``(h, w, 3)``, 0 to 255.
        boxes_xyxy_abs: ``(n, 4)``, in pixels of ``image_rgb``.
        classes: ``n`` contiguous class indices from 0.
        scores: ``n`` numbers from 0 to 1, or None for boxes that are the truth.
        metadata: of the dataset; ``thing_classes`` gives the names and ``thing_colors`` (0 to 255)
            the colours where they are set. The name is left out where a dataset has one class only.
        min_side: the least length in pixels of the picture's shorter side, unless the longer one
            would come to more than 4096.
        masks: none, or a bool mask for each box, under which the image is tinted; it covers all of
            the image, in as many pixels or, as of a picture that was reduced, in others.
        keypoints: ``(n, k, 3)``, x and y in pixels of ``image_rgb`` and a visibility or score,
            drawn where that is above 0.05; lines join them by ``keypoint_connection_rules`` of
            ``metadata``.

    Returns:
        The picture, ``(h * f, w * f, 3)`` with
        ``f = max(1, min(min_side / min(h, w), 4096 / max(h, w)))``.
    """
    canvas, factors = _enlarge(image_rgb, min_side)
    boxes_xyxy_abs = np.asarray(boxes_xyxy_abs, dtype=np.float64).reshape(-1, 4) * factors
    labels = _labels(classes, scores, _of(metadata, "thing_classes"))
    colours = _colours(classes, _of(metadata, "thing_colors"))
    for mask, colour in zip(masks, colours, strict=False):
        _tint(canvas, mask, colour)
    pen = ImageDraw.Draw(canvas)
    line_width = max(2, round(min(canvas.size) / 300))
    for box, colour in zip(boxes_xyxy_abs, colours, strict=True):
        x0, y0, x1, y1 = box
        pen.rectangle((x0, y0, max(x0, x1 - 1), max(y0, y1 - 1)), outline=colour, width=line_width)
    if keypoints is not None:
        lines = _joined_keypoints(metadata)
        for points, colour in zip(np.asarray(keypoints, np.float64), colours, strict=True):
            _draw_keypoints(pen, points * [*factors[:2], 1], lines, colour, line_width)
    font = ImageFont.load_default(size=max(12, min(canvas.size) / 45))
    for box, colour, label in zip(boxes_xyxy_abs, colours, labels, strict=True):
        _write(pen, (box[0], box[1]), label, colour, font)
    return np.asarray(canvas)


def draw_record(
    image_rgb: UInt8[np.ndarray, "_ _ 3"],
    record: Mapping[str, Any],
    metadata: "Metadata | None" = None,
    *,
    masks: bool = False,
    keypoints: bool = False,
) -> UInt8[np.ndarray, "_ _ 3"]:
    """Draw the annotations of a detectron2 dataset record; crowd regions are left out.

    Args:
        image_rgb: the record's image, ``(h, w, 3)``.
        record: a dict with ``annotations``, each with ``bbox``, ``bbox_mode`` and ``category_id``.
        metadata: of the dataset.
        masks: whether to draw what stands under ``segmentation``.
        keypoints: whether to draw the ``keypoints``.

    Returns:
        The picture, enlarged as `draw_boxes` says.
    """
    objects = [a for a in record.get("annotations", ()) if not a.get("iscrowd", 0)]
    boxes = [BoxMode.convert(a["bbox"], a["bbox_mode"], BoxMode.XYXY_ABS) for a in objects]
    size = image_rgb.shape[:2]
    return draw_boxes(
        image_rgb,
        np.array(boxes),
        [a["category_id"] for a in objects],
        metadata=metadata,
        masks=(as_mask(a.get("segmentation"), size) for a in objects) if masks else (),
        keypoints=keypoints_of(objects) if keypoints else None,
    )


def draw_instances(
    image_rgb: UInt8[np.ndarray, "_ _ 3"],
    instances: Instances,
    metadata: "Metadata | None" = None,
    score_threshold: float = 0.0,
    min_side: int = 480,
) -> UInt8[np.ndarray, "_ _ 3"]:
    """Draw predictions (``pred_boxes``) or training targets (``gt_boxes``) of one image.

    Args:
        image_rgb: ``(h, w, 3)``.
        instances: with ``pred_boxes, pred_classes, scores`` or with ``gt_boxes, gt_classes``;
            ``pred_masks``, ``pred_keypoints``, ``gt_masks`` and ``gt_keypoints`` are drawn where
            they are there.
        metadata: of the dataset.
        score_threshold: predictions that score less are left out.
        min_side: see `draw_boxes`.

    Returns:
        The picture, enlarged as `draw_boxes` says.
    """
    instances = instances.to("cpu")
    kind = "gt" if instances.has("gt_boxes") else "pred"
    if kind == "pred":
        instances = instances[instances.scores >= score_threshold]
    found = {name.removeprefix(f"{kind}_"): of for name, of in instances.get_fields().items()}
    masks, points = found.get("masks", ()), found.get("keypoints")
    return draw_boxes(
        image_rgb,
        found["boxes"].tensor.detach().numpy(),
        found["classes"].tolist(),
        found["scores"].tolist() if kind == "pred" else None,
        metadata=metadata,
        min_side=min_side,
        masks=(as_mask(mask, image_rgb.shape[:2]) for mask in getattr(masks, "polygons", masks)),
        keypoints=None if points is None else getattr(points, "tensor", points).detach().numpy(),
    )


def draw_truth_beside_predictions(
    record: Mapping[str, Any],
    predictions: Instances,
    metadata: "Metadata | None" = None,
    score_threshold: float = 0.3,
    value_range: Sequence[float] | None = None,
) -> UInt8[np.ndarray, "_ _ 3"]:
    """Show what is in an image on the left, and what a detector finds in it on the right.

    Args:
        record: a detectron2 dataset record with ``file_name`` and ``annotations``.
        predictions: of that image, with ``pred_boxes, pred_classes, scores``; the truth's masks
            and keypoints are drawn where predictions have theirs.
        metadata: of the dataset.
        score_threshold: predictions that score less are left out.
        value_range: see :func:`detrex.data.pictures.read_image`.

    Returns:
        One picture with a title line over each half.

    Raises:
        PictureError: the picture cannot be read, or has not its record's size.
    """
    image_rgb = read_image(record["file_name"], "RGB", value_range)
    check_image_size(dict(record), image_rgb)
    drawn = {name: predictions.has(f"pred_{name}") for name in ("masks", "keypoints")}
    return beside(
        {
            "truth": draw_record(image_rgb, record, metadata, **drawn),
            f"predictions (score from {score_threshold:g})": draw_instances(
                image_rgb, predictions, metadata, score_threshold
            ),
        }
    )


def beside(pictures: Mapping[str, UInt8[np.ndarray, "_ _ 3"]]) -> UInt8[np.ndarray, "_ _ 3"]:
    """Set pictures in a row, each under its title.

    Args:
        pictures: from title to picture, left to right.

    Returns:
        One picture as high as the highest of them and a title line.
    """
    height = _TITLE_HEIGHT + max(picture.shape[0] for picture in pictures.values())
    width = sum(picture.shape[1] + _GAP for picture in pictures.values()) - _GAP
    sheet = Image.new("RGB", (width, height), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=16)
    x = 0
    for title, picture in pictures.items():
        pen.text((x + 4, 4), title, fill="black", font=font)
        sheet.paste(Image.fromarray(picture), (x, _TITLE_HEIGHT))
        x += picture.shape[1] + _GAP
    return np.asarray(sheet)


def keypoints_of(rows: Iterable[Mapping[str, Any]]) -> Float[np.ndarray, "n k 3"] | None:
    """Take the keypoints of rows of COCO's, which need not have equally many.

    Args:
        rows: with x, y, v of each point under ``keypoints``, where they have any.

    Returns:
        float ``(n, k, 3)``, ``k`` being the most of a row; those that a row lacks have the
        visibility 0. None where no row has any.
    """
    points = [np.reshape(row.get("keypoints") or (), (-1, 3)) for row in rows]
    most = max(map(len, points), default=0)
    padded = [np.pad(xyv, ((0, most - len(xyv)), (0, 0))) for xyv in points]
    return np.array(padded, dtype=np.float64) if most else None


def as_mask(outline: Any, size: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
    """Draw an outline as a mask.

    Args:
        outline: polygons, COCO's run lengths, a mask ``(h, w)``, or None for none.
        size: ``h`` and ``w``.

    Returns:
        bool ``(h, w)``.
    """
    if isinstance(outline, list):
        return polygons_to_bitmask(outline, *size) if outline else np.zeros(size, dtype=bool)
    if isinstance(outline, dict):
        return mask_util.decode(compressed(outline)) == 1
    return np.zeros(size, dtype=bool) if outline is None else np.asarray(outline) > 0


def _tint(canvas: Image.Image, mask: np.ndarray, colour: Colour) -> None:
    """Lay a colour over the pixels of a mask: thin inside, full along the border."""
    whole = Image.fromarray(mask.astype(np.uint8) * 255)
    whole = whole.resize(canvas.size, Image.Resampling.NEAREST)
    if box := whole.getbbox():
        part = ImageOps.expand(whole.crop(box), 1)
        inner = part.filter(ImageFilter.MinFilter(3)).point(lambda value: value * _CLEAR)
        canvas.paste(colour, box, ImageOps.crop(ImageChops.subtract(part, inner), 1))


def _joined_keypoints(metadata: "Metadata | None") -> list[tuple[int, int]]:
    names = list(_of(metadata, "keypoint_names") or ())
    rules = _of(metadata, "keypoint_connection_rules") or ()
    return [(names.index(rule[0]), names.index(rule[1])) for rule in rules]


def _draw_keypoints(
    pen: ImageDraw.ImageDraw,
    points: np.ndarray,
    lines: Sequence[tuple[int, int]],
    colour: Colour,
    width: int,
) -> None:
    seen = points[:, 2] > _LEAST_VISIBLE
    for one, other in lines:
        if max(one, other) < len(points) and seen[one] and seen[other]:
            pen.line([*points[one, :2], *points[other, :2]], fill=colour, width=width)
    for x, y in points[seen, :2]:
        corners = (x - 2 * width, y - 2 * width, x + 2 * width, y + 2 * width)
        pen.ellipse(corners, fill=colour, outline="black")


def _write(
    pen: ImageDraw.ImageDraw,
    corner: tuple[float, float],
    label: str,
    colour: Colour,
    font: Any,
) -> None:
    """Write on black above a box's upper left corner, or below it at the picture's upper edge.

    What would run over the right edge is moved to the left.
    """
    if not label:
        return
    x, y = corner
    x = max(0, min(x, pen.im.size[0] - pen.textlength(label, font=font)))
    left, top, right, bottom = pen.textbbox((x, y), label, font=font, anchor="lb")
    if top < 0:
        left, top, right, bottom = pen.textbbox((x, y), label, font=font, anchor="lt")
    pen.rectangle((left - 1, top - 1, right + 1, bottom + 1), fill="black")
    pen.text((left, top), label, fill=colour, font=font, anchor="lt")


def _enlarge(image_rgb: np.ndarray, min_side: int) -> tuple[Image.Image, np.ndarray]:
    """Return the image at the size that `draw_boxes` tells, and the factors of ``xyxy``."""
    height, width = image_rgb.shape[:2]
    factor = min(min_side / min(height, width), _MOST_ENLARGED / max(height, width))
    factor = max(1.0, factor)
    size = (round(width * factor), round(height * factor))
    image = Image.fromarray(as_uint8(image_rgb)).resize(size, Image.Resampling.BICUBIC)
    return image, np.array([size[0] / width, size[1] / height] * 2)


def _of(metadata: "Metadata | None", name: str) -> Any:
    return None if metadata is None else metadata.get(name, None)


def _labels(
    classes: Sequence[int], scores: Sequence[float] | None, names: Sequence[str] | None
) -> list[str]:
    """Return one text per box, empty where there is nothing to say."""
    if names is None:
        words = [str(index) for index in classes]
    elif len(names) == 1:
        words = [""] * len(classes)
    else:
        words = [printable(names[i]) if 0 <= i < len(names) else str(i) for i in classes]
    if scores is None:
        return words
    return [f"{word} {score:.0%}".strip() for word, score in zip(words, scores, strict=True)]


def _colours(classes: Sequence[int], thing_colors: Sequence[Sequence[int]] | None) -> list[Colour]:
    """Return one RGB colour from 0 to 255 per box: the dataset's own, else one fixed per class."""
    palette = thing_colors or [ImageColor.getrgb(name) for name in _PALETTE]
    return [tuple(palette[index % len(palette)]) for index in classes]
