"""Reading a picture, in one way for training, evaluation, the demo and the viewers.

The file's content tells its format, its EXIF orientation is applied, and what has more than 8 bits
keeps its levels. Whatever goes wrong is a `PictureError` that names the file.
"""

import logging
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from detectron2.data import detection_utils as utils
from detectron2.data import transforms as T
from PIL import Image

from detrex.data.picture_files import opened, shown
from detrex.errors import ConfigError, PictureError, first_line

logger = logging.getLogger(__name__)

_ORDERS = ("BGR", "YUV-BT.601")
_EXIF_ORIENTATION = 0x0112
_TIFF_WIDTH, _TIFF_HEIGHT, _TIFF_BITS_PER_SAMPLE = 256, 257, 258
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_QUARTER_TURNS = [_TURNS[orientation] for orientation in (5, 6, 7, 8)]
_TWELVE_BITS, _SIXTEEN_BITS = 4095, 65535


def read_image(
    path: str | os.PathLike[str],
    image_format: str = "RGB",
    value_range: Sequence[float] | None = None,
) -> np.ndarray:
    """Read a picture, upright as its EXIF orientation says.

    A picture of 8 bits, or of 16 bits and several channels (of which the upper 8 bits are taken),
    comes as uint8. A grey one of 12 or 16 bits, of 32-bit integers or of floats comes as float32,
    scaled linearly to 0..255 from ``value_range``, or without one from all that its file can hold;
    what a file of 32-bit integers or floats can hold says nothing, so that these need a range.
    Transparency is dropped, and of several frames or pages the first is taken.

    Args:
        path: of the file, or an address that detectron2's ``PathManager`` knows.
        image_format: the channels: ``"RGB"``, ``"BGR"``, ``"L"``, ``"YUV-BT.601"`` or a mode of
            Pillow.
        value_range: the values ``(low, high)`` that become 0 and 255 in pictures of more than 8
            bits, such as ``(0, 4095)`` for a camera of 12 bits; what is outside is clipped.

    Returns:
        ``(H, W, C)``, values from 0 to 255 (YUV: as detectron2's function of this name gives).

    Raises:
        ConfigError: ``image_format`` is none of these.
        PictureError: the file is missing, damaged or no picture, has too many pixels, or its levels
            would be lost.
    """
    if image_format not in (*_ORDERS, *Image.MODES):
        raise ConfigError(
            f"image_format is {', '.join(_ORDERS)}, RGB, L or another mode of Pillow, got "
            f"{image_format!r:.80}."
        )
    with opened(path) as image:
        return pixels_of(image, shown(path), image_format, value_range)


def pixels_of(
    image: Image.Image,
    name: str,
    image_format: str = "RGB",
    value_range: Sequence[float] | None = None,
) -> np.ndarray:
    """Take the pixels out of an open picture of Pillow's; see `read_image`, which opens it.

    Args:
        image: the picture; it need not be loaded yet.
        name: what messages call it.
        image_format: the channels.
        value_range: of pictures of more than 8 bits.

    Returns:
        ``(H, W, C)``, values from 0 to 255.

    Raises:
        PictureError: its levels would be lost.
        Exception: whatever Pillow's readers raise at a damaged file.
    """
    _warn_of_frames(image, name)
    deep = any(";16" in str(tile[3]) for tile in getattr(image, "tile", ()))
    # Before the orientation is asked for: TIFF's reader turns its pictures itself.
    image.load()
    if _is_wide(image.mode):
        levels = _scaled_levels(image, name, value_range)
        return _channels(_upright(levels, image), image_format, name)
    if deep:
        _refuse_dark_colours(image, name)
    return utils.convert_PIL_to_numpy(_upright(image, image), image_format)


def upright_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Read the width and height in pixels that a picture has as `read_image` gives it.

    Args:
        path: as for `read_image`; the header is read.

    Raises:
        PictureError: the file is missing, damaged or no picture.
    """
    with opened(path) as image:
        width, height = image.size
        if tags := getattr(image, "tag_v2", {}):  # some Pillows turn the size of a TIFF beforehand
            width, height = tags[_TIFF_WIDTH], tags[_TIFF_HEIGHT]
        turned = _turn_of(image) in _QUARTER_TURNS
    return (height, width) if turned else (width, height)


def read_labels(path: str | os.PathLike[str]) -> np.ndarray:
    """Read the class of every pixel: the numbers in a picture of one channel, or in a palette's.

    Args:
        path: as for `read_image`.

    Returns:
        ``(H, W)``, uint8, or float32 where the file has more than 8 bits, for detectron2's
        transforms resize no integers.

    Raises:
        PictureError: the file is missing, damaged or no picture, or has several channels.
    """
    with opened(path) as image:
        labels = np.asarray(image)
    if labels.ndim != 2 or labels.dtype.kind == "f":
        raise PictureError(
            f"{shown(path)} is a picture of Pillow's mode {image.mode}, expected class numbers: "
            "write them as a picture of one channel, such as a grey PNG."
        )
    return labels.astype(np.uint8 if labels.dtype.itemsize == 1 else np.float32)


def check_image_size(record: dict[str, Any], image: np.ndarray) -> None:
    """Hold a picture against the size in its record, or write the size into it.

    Args:
        record: a detectron2 dict with ``file_name``; ``height`` and ``width`` are filled in where
            they are missing or None.
        image: ``(H, W, C)``, as read.

    Raises:
        PictureError: the sizes differ.
    """
    size = dict(zip(("height", "width"), image.shape[:2], strict=True))
    said = {key: record.get(key) for key in size}
    if any(value is not None and value != size[key] for key, value in said.items()):
        turned = said["height"] == size["width"] and said["width"] == size["height"]
        hint = (
            "exchange the record's two, or, if the picture's EXIF orientation turns it, annotate "
            "it upright or remove the tag"
            if turned
            else "correct the record, or put the picture there that was annotated"
        )
        raise PictureError(
            f"{shown(record.get('file_name', 'a picture'))} has {size['width']} x "
            f"{size['height']} pixels (width x height), but its record says {said['width']} x "
            f"{said['height']}: {hint}."
        )
    record.update(size)


def augment(
    augmentations: Sequence[T.Augmentation],
    image: np.ndarray,
    path: str | os.PathLike[str],
    labels: np.ndarray | None = None,
) -> tuple[np.ndarray, T.TransformList]:
    """Apply detectron2 augmentations to a picture.

    Args:
        augmentations: applied in order.
        image: ``(H, W, C)``.
        path: the picture's file, for the error.
        labels: class of every pixel ``(H, W)``, for augmentations that take them into account.

    Returns:
        The new picture, uint8 or float32 as ``image``, and the transforms for its boxes.

    Raises:
        PictureError: an augmentation fails, as a resize does that leaves no pixel of a long strip.
    """
    try:
        inputs = T.AugInput(image, sem_seg=labels)
        transforms = T.AugmentationList(augmentations)(inputs)
        augmented = inputs.image
    except Exception as error:  # any augmentation of the user's, with any error of its own
        height, width = image.shape[:2]
        raise PictureError(
            f"{shown(path)}, {width} x {height} pixels (width x height), cannot be augmented or "
            f"resized ({type(error).__name__}: {first_line(error)}): crop or pad the picture, or "
            "change the augmentation."
        ) from error
    if np.issubdtype(augmented.dtype, np.floating):  # some compute in double precision
        augmented = augmented.astype(np.float32, copy=False)
    return augmented, transforms


def as_uint8(image: np.ndarray) -> np.ndarray:
    """Round a picture of 0..255 to uint8; one that is uint8 is returned itself."""
    return image if image.dtype == np.uint8 else np.rint(np.clip(image, 0, 255)).astype(np.uint8)


def checked_value_range(value_range: Sequence[float] | None) -> tuple[float, float] | None:
    """Check a ``value_range`` of `read_image`.

    Args:
        value_range: two numbers, or None.

    Returns:
        The same as a tuple of floats, or None.

    Raises:
        ValueError: it is not two finite numbers, the lower first.
    """
    if value_range is None:
        return None
    try:
        low, high = map(float, value_range)
    except (TypeError, ValueError):
        low = high = np.nan
    if not (np.isfinite([low, high]).all() and low < high):
        raise ValueError(
            f"value_range is the least and the greatest value of a picture, got {value_range!r}: "
            "give two numbers such as [0, 4095], or null."
        )
    return low, high


def refuse_wide(path: str | os.PathLike[str], mapper: str) -> None:
    """Refuse a picture of more than 8 bits for a mapper that would clip it; reads the header only.

    Args:
        path: of the file; one that cannot be read is left to the mapper.
        mapper: the name of the mapper, for the error.

    Raises:
        PictureError: the picture has more than 8 bits, or too many pixels or scans.
    """
    try:
        with opened(path) as image:
            mode = image.mode
    except PictureError as error:
        if isinstance(error.__cause__, OSError):  # the mapper's own attempt says what is wrong
            return
        raise
    if _is_wide(mode):
        raise PictureError(
            f"{shown(path)} has more than 8 bits (Pillow's mode {mode}), which {mapper} would clip "
            "to 255: convert it to 8 bits, or use detrex.data.DetrDatasetMapper."
        )


def _is_wide(mode: str) -> bool:
    return mode in ("I", "F") or mode.startswith("I;16")


def _scaled_levels(
    image: Image.Image, name: str, value_range: Sequence[float] | None
) -> np.ndarray:
    """Scale a grey picture of more than 8 bits to 0..255, float32 ``(H, W)``."""
    values = np.asarray(image).astype(np.float64)
    if not np.isfinite(values).all():
        raise PictureError(f"{name} holds NaN or infinite values: replace them in the file.")
    low, high = value_range or (0, _greatest(image, name))
    if value_range is None and high == _SIXTEEN_BITS and 0 < values.max() <= _TWELVE_BITS:
        _warn_once(
            "dark",
            "%s has 16 bits but no value over %d, as cameras of 12 bits write: it is dark at the "
            "range 0..65535; set value_range=[0, 4095] in the mappers of dataloader.train and "
            "dataloader.test, if all pictures are so (said once)",
            *(name, values.max()),
        )
    return np.clip((values - low) * (255 / (high - low)), 0, 255).astype(np.float32)


def _greatest(image: Image.Image, name: str) -> float:
    """The greatest value that a file of whole numbers from 0 can hold."""
    if image.mode.startswith("I;16"):
        bits = getattr(image, "tag_v2", {}).get(_TIFF_BITS_PER_SAMPLE, 16)
        return _TWELVE_BITS if bits in (12, (12,)) else _SIXTEEN_BITS
    if image.mode == "I" and image.format in ("PNG", "PPM"):  # older Pillows' word for 16 bits
        return _SIXTEEN_BITS
    kind = "floats" if image.mode == "F" else "32-bit or signed integers"
    raise PictureError(
        f"{name} is a picture of {kind}, whose range the file does not tell: set value_range=[low, "
        "high] in the mappers of dataloader.train and dataloader.test, or convert it to 8 bits."
    )


def _channels(levels: np.ndarray, image_format: str, name: str) -> np.ndarray:
    """Give grey levels ``(H, W)`` the channels of a format."""
    if image_format == "L":
        return levels[..., None]
    if image_format in ("RGB", "BGR"):
        return np.repeat(levels[..., None], 3, axis=2)
    raise PictureError(
        f"{name} has more than 8 bits, and such pictures are read as RGB, BGR or L, not as "
        f"{image_format}: choose one of these, or convert the picture to 8 bits."
    )


def _refuse_dark_colours(image: Image.Image, name: str) -> None:
    """Refuse 16-bit channels with small values, of which the upper 8 bits keep next to nothing."""
    greatest = np.asarray(image.convert("RGB")).max()
    if greatest <= _SIXTEEN_BITS >> 12:
        raise PictureError(
            f"{name} has 16 bits per channel but values of less than {_TWELVE_BITS + 1} only, of "
            "which the upper 8 bits keep no more than 16 levels: convert it to 8 bits."
        )


def _turn_of(image: Image.Image) -> Image.Transpose | None:
    """How a picture's EXIF says that it is to be turned; None where it is upright."""
    try:
        return _TURNS.get(image.getexif().get(_EXIF_ORIENTATION, 1))
    except Exception:  # EXIF that cannot be read does not turn the picture
        return None


def _upright(pixels: Any, image: Image.Image) -> Any:
    """Turn a picture, or its levels, as the orientation in its EXIF says."""
    turn = _turn_of(image)
    if turn is None:
        return pixels
    if isinstance(pixels, np.ndarray):
        return np.asarray(Image.fromarray(pixels).transpose(turn))
    return pixels.transpose(turn)


def _warn_of_frames(image: Image.Image, name: str) -> None:
    # A camera's MPO holds a preview beside the picture, and nobody means that.
    if image.format in ("GIF", "PNG", "TIFF", "WEBP") and getattr(image, "is_animated", False):
        _warn_once(
            f"frames of {image.format}",
            "%s is a %s of several frames or pages, of which the first is taken (said once)",
            *(name, image.format),
        )


_warned: set[str] = set()


def _warn_once(kind: str, message: str, *args: object) -> None:
    """Log the first warning of a kind; one for each file would drown a log."""
    if kind not in _warned:
        _warned.add(kind)
        logger.warning(message, *args)
