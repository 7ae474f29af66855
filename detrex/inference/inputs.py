"""Pictures of every kind -> arrays in RGB.

===========================  ===================================================================
file, folder, pattern        read as training reads them: upright, 16 bits scaled; folders deeply
``http(s)://`` address       fetched into memory, at most 100 MB
array of numpy               uint8 ``(H, W, 3)``, ``(H, W, 1)`` or ``(H, W)``; ``(N, H, W, 3)``
picture of Pillow            of any mode, turned upright as its EXIF says
tensor of PyTorch            ``(3, H, W)`` or ``(1, H, W)``, ``(N, 3, H, W)``: uint8 from 0 to
                             255, or floats from 0 to 1, which are rounded to 256 levels
list, generator              of all these
video, camera's number       frames; for streams alone
===========================  ===================================================================
"""

import glob
import io
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from detrex.checkpoint.download import shown
from detrex.data.picture_files import PICTURE_SUFFIXES, files_below, opened
from detrex.data.pictures import pixels_of, read_image
from detrex.errors import ConfigError, PictureError, did_you_mean, first_line
from detrex.inference.video import SUFFIXES as VIDEOS
from detrex.inference.video import Video, is_video
from detrex.inference.web_pictures import fetch_picture, is_web_address

_ORDERS = ("RGB", "BGR")


@dataclass(frozen=True)
class Picture:
    """A picture that was read.

    Attributes:
        pixels: ``(H, W, 3)``, RGB, from 0 to 255: uint8, or float32 where the file has more levels.
        name: what messages call it.
        path: its file or address; None for what was in memory.
        frame: the number of a video's frame, from 0.
    """

    pixels: np.ndarray
    name: str
    path: str | None = None
    frame: int | None = None


Read = Callable[[], Picture]
"""Reads a picture when it is its turn; raises PictureError where it cannot be."""


def are_several(images: Any) -> bool:
    """Whether what a user gives stands for a list of pictures, and not for one."""
    if isinstance(images, str | os.PathLike):
        name = os.path.expanduser(images)
        return os.path.isdir(name) or _is_pattern(name)
    if isinstance(images, np.ndarray | Tensor):
        return images.ndim == 4
    single = (Image.Image, bytes, dict, io.IOBase, Video)
    return isinstance(images, Iterable) and not isinstance(images, single)


def pictures(
    images: Any,
    image_format: str = "RGB",
    value_range: Sequence[float] | None = None,
    *,
    videos: bool = False,
) -> Iterator[Read]:
    """Go through pictures in their order, without reading them yet.

    Args:
        images: see the head of this module.
        image_format: the order of channels of arrays and tensors, ``"RGB"`` or ``"BGR"``.
        value_range: see `detrex.data.pictures.read_image`.
        videos: whether videos are taken, too.

    Yields:
        For each a function that reads it. Frames of a video are read when they are yielded.

    Raises:
        ConfigError: ``image_format`` is neither.
        PictureError: a folder or pattern holds no picture, or a video stands where none can be.
        TypeError: something is no picture.
    """
    if image_format not in _ORDERS:
        raise ConfigError(
            f"image_format is RGB or BGR, the order of an array's channels, got "
            f"{image_format!r:.60}."
        )
    return _pictures(images, image_format, value_range, videos)


def _pictures(
    images: Any, image_format: str, value_range: Sequence[float] | None, videos: bool
) -> Iterator[Read]:
    for item in _items(images):
        if is_video(item):
            if not videos:
                name = getattr(item, "name", "") or shown(str(item))
                raise PictureError(
                    f"{name:.200} is a video or a camera, whose frames would all be in memory at "
                    "once: go through `detector.stream(...)` in the place of `predict`."
                )
            yield from _frames(item)
        elif isinstance(item, str) and is_web_address(item):
            yield partial(_from_web, item, value_range)
        elif isinstance(item, str | os.PathLike):
            yield partial(_from_file, os.path.expanduser(item), value_range)
        else:
            yield partial(_from_memory, item, image_format, value_range)


def _items(images: Any) -> Iterator[Any]:
    """Single pictures out of lists, folders, patterns and stacks."""
    if isinstance(images, str | os.PathLike) and are_several(images):
        yield from map(str, image_files([os.path.expanduser(images)], "The input", deep=True))
    elif isinstance(images, np.ndarray | Tensor) and images.ndim == 4:
        yield from images
    elif are_several(images) and not isinstance(images, np.ndarray | Tensor):
        for each in images:
            yield from _items(each)
    else:
        yield images


def _is_pattern(name: str) -> bool:
    return glob.has_magic(name) and not os.path.exists(name) and "://" not in name


def image_files(
    inputs: Sequence[str], option: str = "--input", *, deep: bool = False, videos: bool = False
) -> list[Path]:
    """Find the pictures that files, patterns and folders name.

    Args:
        inputs: paths of files, glob patterns, and folders.
        option: what the user gave them to, for the error.
        deep: whether the folders within a folder are searched, too.
        videos: whether videos in folders count.

    Returns:
        The files in the order of ``inputs``, those of a folder or pattern sorted. What is hidden
        in a folder (``._a.jpg``, ``.trash/a.jpg``) is left out, as patterns leave it out.

    Raises:
        PictureError: one of the inputs names no picture.
    """
    wanted = PICTURE_SUFFIXES | (VIDEOS if videos else set())
    files: list[Path] = []
    for name in inputs:
        if not name:
            raise PictureError(f"{option} is empty, expected a file, a pattern or a folder.")
        if Path(name).is_dir():
            inside = files_below(name, lambda _: not deep)
            found = sorted(p for p in inside if p.suffix.lower() in wanted and p.is_file())
        elif Path(name).is_file():
            found = [Path(name)]
        else:
            found = [Path(match) for match in sorted(glob.glob(name, recursive=True))]
            found = [path for path in found if not path.is_dir()]
        if not found:
            raise PictureError(
                f"{option} {name} names no picture: expected a file, a pattern in quotes, or a "
                f"folder that holds {', '.join(sorted(PICTURE_SUFFIXES))} files.{_near(Path(name))}"
            )
        files += found
    return files


def _near(path: Path) -> str:
    beside = path.parent
    known = beside.is_dir() and not path.exists()
    return did_you_mean(path.name, os.listdir(beside)) if known else ""


def _frames(source: Any) -> Iterator[Read]:
    with source if isinstance(source, Video) else Video(source) as video:
        for number, frame in enumerate(video):
            picture = Picture(frame, f"frame {number} of {video.name}", video.name, number)
            yield partial(_same, picture)


def _same(picture: Picture) -> Picture:
    return picture


def _from_file(path: str, value_range: Sequence[float] | None) -> Picture:
    if not path or path.lower().startswith(("ftp:", "ftps:")):
        raise PictureError(
            f"{shown(path) or repr(path)} is no place that a picture is read from: name a file, or "
            "an address that begins with https://."
        )
    return Picture(read_image(path, "RGB", value_range), path, path)


def _from_web(url: str, value_range: Sequence[float] | None) -> Picture:
    name = shown(url)
    with opened(name, fetch_picture(url)) as image:
        return Picture(pixels_of(image, name, "RGB", value_range), name, name)


def _from_memory(image: Any, image_format: str, value_range: Sequence[float] | None) -> Picture:
    if isinstance(image, Image.Image):
        name = getattr(image, "filename", "") or "a picture of Pillow"
        return Picture(_from_pillow(image, name, value_range), name, None)
    if isinstance(image, Tensor):
        array = _from_tensor(image)
    elif isinstance(image, np.ndarray):
        array = image
    else:
        raise TypeError(
            f"a picture is a path, an address, an array, a tensor or a picture of Pillow, got "
            f"{type(image).__name__}: give one of these, or a list of them."
        )
    return Picture(_from_array(array, image_format), "an array")


def _from_pillow(image: Image.Image, name: str, value_range: Sequence[float] | None) -> np.ndarray:
    try:
        return pixels_of(image, name, "RGB", value_range)
    except PictureError:
        raise
    except Exception as error:  # Pillow's readers raise whatever a damaged file leads to
        raise PictureError(
            f"{name} cannot be read ({first_line(error).rstrip('.')}): open a whole picture."
        ) from error


def _from_tensor(tensor: Tensor) -> np.ndarray:
    """Bring ``(C, H, W)``, uint8 or floats from 0 to 1, to uint8 ``(H, W, C)``."""
    shape = tuple(tensor.shape)
    if tensor.ndim != 3 or shape[0] not in (1, 3):
        hint = ": put the channels first by tensor.permute(2, 0, 1)" if shape[-1:] == (3,) else ""
        raise PictureError(
            f"a tensor of shape {shape} is no picture, expected (3, H, W), (1, H, W) or a batch "
            f"(N, 3, H, W){hint}."
        )
    if tensor.layout != torch.strided or tensor.is_meta:
        kind = "on the meta device" if tensor.is_meta else f"of the layout {tensor.layout}"
        raise PictureError(f"a tensor {kind} holds no pixels: give a dense one with values.")
    tensor = tensor.detach().cpu()
    if tensor.dtype == torch.uint8:
        return tensor.permute(1, 2, 0).numpy()
    if not tensor.is_floating_point():
        raise PictureError(
            f"a tensor of {str(tensor.dtype).removeprefix('torch.')} says nothing of its range: "
            "give uint8 from 0 to 255, or floats from 0 to 1."
        )
    low, high = (float(value) for value in tensor.float().aminmax()) if tensor.numel() else (0, 0)
    if not (low >= 0 and high <= 1):
        raise PictureError(
            f"a tensor of floats holds values from 0 to 1, got {low:.3g} to {high:.3g}: divide "
            "0..255 by 255 or give uint8, and give pictures that are not normalised."
        )
    return (tensor.float() * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()


def _from_array(array: np.ndarray, image_format: str) -> np.ndarray:
    """Bring ``(H, W)`` or ``(H, W, C)`` of uint8 to RGB, in memory of its own.

    For a result keeps its picture, and a camera's buffer is written over by the next frame.
    """
    if array.dtype != np.uint8:
        raise PictureError(
            f"an array of {array.dtype} says nothing of its range, expected uint8 from 0 to 255: "
            "scale it and convert it by array.astype('uint8')."
        )
    pixels = array[..., None] if array.ndim == 2 else array
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3) or not pixels.size:
        raise PictureError(_about_shape(array.shape))
    if pixels.shape[2] == 1:
        return np.repeat(pixels, 3, axis=2)
    return np.array(pixels if image_format == "RGB" else pixels[:, :, ::-1], order="C")


def _about_shape(shape: tuple[int, ...]) -> str:
    hint = ""
    if len(shape) == 3 and shape[0] in (1, 3):
        hint = ": put the channels last by array.transpose(1, 2, 0)"
    elif len(shape) == 3 and shape[2] == 4:
        hint = ": leave the alpha channel out by array[..., :3]"
    return f"an array of shape {shape} is no picture, expected (H, W, 3) or (H, W){hint}."
