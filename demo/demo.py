r"""Run a detector on images, folders of images or video, and draw what it finds.

    python demo/demo.py --config-file CONFIG --input a.jpg 'more/*.png' a_folder --output found \
        --opts train.init_checkpoint=model_final.pth
    python demo/demo.py --config-file CONFIG --video-input a.mp4 --output found.mp4 \
        --opts train.init_checkpoint=model_final.pth

Without --output the pictures are shown one by one. Class names are those of the checkpoint, else of
the config's data set. Nothing is written over but what was drawn before; a picture that cannot be
read is named at the end, with exit status 1.
"""

from detrex.threads import prepare_threads

if __name__ == "__main__":
    prepare_threads()  # before torch is imported, which reads them once

import argparse
import glob
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import detectron2.data.transforms as T
import numpy as np
import torch
from detectron2.data import Metadata
from detectron2.structures import Instances
from omegaconf import DictConfig
from PIL import Image
from torch import nn
from tqdm import tqdm

from detrex.checkpoint import load_init_checkpoint, read_checkpoint
from detrex.config import load_config, require_keys, resolve_pixel_statistics, try_get_key
from detrex.config.building import build_part
from detrex.data.class_names import choose_metadata
from detrex.data.drawing import draw_instances
from detrex.data.pictures import augment, read_image
from detrex.engine.distributed import resolve_device
from detrex.engine.evaluation import inference_keywords
from detrex.engine.overrides import apply_overrides
from detrex.errors import ConfigError, run_tool
from detrex.modeling import optimize_for_inference
from detrex.options import add_trust_option
from detrex.utils.outputs import (
    Failures,
    make_folder,
    plan_outputs,
    positive,
    refuse_to_replace,
    save_drawn,
)

logger = logging.getLogger("demo")

IMAGE_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}


class Predictor:
    """Detect objects in one picture after another.

    Args:
        model: a detector that takes detectron2's list of dicts, on its device.
        min_size: of the picture's shorter side in pixels, as the detector is given it.
        max_size: the most of its longer side.
        img_format: "RGB" or "BGR", as the detector was trained.

    Raises:
        ConfigError: at a picture, if the detector finds no objects but something else.
    """

    def __init__(self, model: nn.Module, min_size: int, max_size: int, img_format: str) -> None:
        self.model = model.eval()
        self.resize = T.ResizeShortestEdge(min_size, max_size)
        self.img_format = img_format

    @torch.inference_mode()
    def __call__(self, image_rgb: np.ndarray, name: str = "the picture") -> Instances:
        """Return what is found in ``(height, width, 3)``, in pixels of it and on the CPU.

        Raises:
            PictureError: the picture, called ``name``, cannot be resized.
        """
        height, width = image_rgb.shape[:2]
        image = image_rgb if self.img_format == "RGB" else image_rgb[:, :, ::-1]
        image, _ = augment([self.resize], image, name)
        tensor = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
        sample = {"image": tensor, "height": height, "width": width}
        found = self.model([sample])[0]
        if "instances" not in found:
            raise ConfigError(
                f"The detector gives {', '.join(found)}, not instances: the demo draws objects."
            )
        return found["instances"].to("cpu")


def build_predictor(cfg: DictConfig, args: argparse.Namespace) -> tuple[Predictor, Metadata]:
    """Build the config's model and load ``train.init_checkpoint`` into it.

    Returns:
        The predictor, and metadata with the names of its classes.
    """
    require_keys(cfg, "model")
    device = resolve_device(str(try_get_key(cfg, "train.device", default="cpu")))
    path = try_get_key(cfg, "train.init_checkpoint", default="")
    checkpoint = read_checkpoint(path) if path else {}
    metadata = choose_metadata(cfg, checkpoint, args.metadata_dataset)
    resolve_pixel_statistics(cfg)
    model = build_part(cfg.model, "model").to(device)
    if path:
        load_init_checkpoint(model, checkpoint, name=path)
    else:
        logger.warning("No train.init_checkpoint is given: the detector's weights are random.")
    if (keywords := inference_keywords(cfg)) is not None:
        model = optimize_for_inference(model, **keywords)
    img_format = args.img_format or image_format(cfg)
    return Predictor(model, args.min_size_test, args.max_size_test, img_format), metadata


def image_format(cfg: DictConfig) -> str:
    """The order of channels that a config's detector takes: its own word, its mapper's, or RGB."""
    mapper = "dataloader.test.mapper"
    keys = ("model.input_format", f"{mapper}.img_format", f"{mapper}.image_format")
    said = {key: order for key in keys if (order := try_get_key(cfg, key)) in ("RGB", "BGR")}
    if len(set(said.values())) > 1:
        orders = ", ".join(f"{key}={order}" for key, order in said.items())
        logger.warning(
            "The config names several orders of channels (%s), of which the first is taken: name "
            "that of training by --img_format.",
            orders,
        )
    return next(iter(said.values()), "RGB")


def image_files(inputs: Sequence[str]) -> list[Path]:
    """Find the pictures that files, patterns and folders name.

    Args:
        inputs: paths of files, glob patterns, and folders (whose pictures are taken, not deeper).

    Returns:
        The files in the order of ``inputs``, those of a folder or pattern sorted.

    Raises:
        FileNotFoundError: when one of the inputs names no picture.
    """
    files: list[Path] = []
    for name in inputs:
        if Path(name).is_dir():
            found = [p for p in sorted(Path(name).iterdir()) if p.suffix.lower() in IMAGE_SUFFIXES]
        elif Path(name).is_file():
            found = [Path(name)]
        else:
            found = [Path(match) for match in sorted(glob.glob(name, recursive=True))]
        if not found:
            raise FileNotFoundError(
                f"--input {name} names no picture: expected a file, a pattern in quotes, or a "
                f"folder that holds {', '.join(sorted(IMAGE_SUFFIXES))} files."
            )
        files += found
    return files


def planned_outputs(files: Sequence[Path], output: str | None) -> list[Path | None]:
    """Find a place for the picture of each file: none where it is shown, ``--output`` or below it.

    Raises:
        ConfigError: something of the user's would be written over, or ``output`` is one file for
            several pictures.
    """
    if output is None:
        return [None for _ in files]
    if Path(output).suffix.lower() not in IMAGE_SUFFIXES or Path(output).is_dir():
        planned: list[Path | None] = [*plan_outputs(files, output)]
        make_folder(output, "--output")
        return planned
    if len(files) > 1:
        raise ConfigError(
            f"--output {output} is one file, but --input names {len(files)} pictures: name "
            "a folder."
        )
    refuse_to_replace([output], files)
    return [Path(output)]


def run_on_images(
    predictor: Predictor,
    metadata: Metadata,
    args: argparse.Namespace,
    value_range: Sequence[float] | None = None,
) -> None:
    """Draw the predictions on every picture of ``--input``.

    Raises:
        SystemExit: status 1 when a picture could not be read; the others are drawn.
    """
    named = {os.path.abspath(path): path for path in reversed(image_files(args.input))}
    files = list(reversed(named.values()))  # what is named twice is drawn once
    failures = Failures()

    def draw(path: Path, target: Path | None) -> None:
        image_rgb = read_image(path, "RGB", value_range)
        found = predictor(image_rgb, str(path))
        picture = draw_instances(image_rgb, found, metadata, args.confidence_threshold)
        if target is None:
            Image.fromarray(picture).show(title=path.name)
            return
        save_drawn(picture, target)
        count = int((found.scores >= args.confidence_threshold).sum())
        tqdm.write(f"{path}: {count} objects -> {target}")

    pairs = list(zip(files, planned_outputs(files, args.output), strict=True))
    for path, target in tqdm(pairs, unit="picture"):
        failures.attempt(draw, path, target)
    failures.end()


def run_on_video(predictor: Predictor, metadata: Metadata, args: argparse.Namespace) -> None:
    """Draw the predictions on every frame of ``--video-input`` or of the webcam.

    Raises:
        ConfigError: ``--output`` exists.
    """
    if args.output:
        refuse_to_replace([video_file(args)])
    cv2 = require_opencv()
    source = 0 if args.webcam else args.video_input
    if not args.webcam and Path(source).is_fifo():
        raise FileNotFoundError(f"The video {source!r} is a named pipe: name a file.")
    video = cv2.VideoCapture(source)
    if not video.isOpened():
        raise FileNotFoundError(
            f"OpenCV cannot open the video {source!r}: name a file that it can read."
        )
    frames_per_second = video.get(cv2.CAP_PROP_FPS) or 25.0
    total = None if args.webcam else int(video.get(cv2.CAP_PROP_FRAME_COUNT)) or None
    writer = None
    try:
        for frame_rgb in tqdm(_frames(cv2, video), total=total, unit="frame"):
            picture = draw_instances(
                frame_rgb, predictor(frame_rgb), metadata, args.confidence_threshold
            )
            picture_bgr = np.ascontiguousarray(picture[:, :, ::-1])
            if args.output and writer is None:
                writer = _video_writer(cv2, args, frames_per_second, picture.shape)
            if writer is not None:
                writer.write(picture_bgr)
            else:
                cv2.imshow("demo", picture_bgr)
                if cv2.waitKey(1) == 27:
                    break
    finally:
        video.release()
        if writer is not None:
            writer.release()


def require_opencv() -> ModuleType:
    """Import OpenCV, or say what needs it."""
    try:
        import cv2
    except ImportError as error:
        raise ImportError(
            "--video-input and --webcam read video through OpenCV, which is not installed: "
            "`pip install opencv-python` (or opencv-python-headless where there is no screen)."
        ) from error
    return cv2


def _frames(cv2: ModuleType, video: Any) -> Iterator[np.ndarray]:
    while True:
        read, frame_bgr = video.read()
        if not read:
            return
        yield cv2.cvtColor(frame_bgr, cv2.COLOR_BGR2RGB)


def video_file(args: argparse.Namespace) -> Path:
    """Find the file to write: ``--output``, or in that folder ``<name of the video>.mp4``."""
    path = Path(args.output)
    if path.suffix and not path.is_dir():
        return path
    stem = "webcam" if args.webcam else Path(args.video_input).stem
    return path / f"{stem}.mp4"


def _video_writer(
    cv2: ModuleType,
    args: argparse.Namespace,
    frames_per_second: float,
    shape: tuple[int, ...],
) -> Any:
    """Open ``--output`` for writing."""
    path = video_file(args)
    path.parent.mkdir(parents=True, exist_ok=True)
    codec = cv2.VideoWriter_fourcc(*("mp4v" if path.suffix == ".mp4" else "MJPG"))
    writer = cv2.VideoWriter(str(path), codec, frames_per_second, (shape[1], shape[0]))
    if not writer.isOpened():
        raise OSError(f"OpenCV cannot write video to {path}: try a name that ends in .mp4 or .avi.")
    return writer


def argument_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--config-file",
        default="configs/dino/dino_r50_4scale_12ep.py",
        metavar="FILE",
        help="a lazy config (%(default)s)",
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--input", nargs="+", help="files, patterns in quotes, or folders")
    source.add_argument("--video-input", metavar="FILE", help="a video")
    source.add_argument("--webcam", action="store_true", help="the first camera of this machine")
    parser.add_argument("--output", help="a folder or file for the pictures or the video")
    parser.add_argument(
        "--min_size_test", type=positive, default=800, help="shorter side (%(default)s)"
    )
    parser.add_argument(
        "--max_size_test", type=positive, default=1333, help="longer side (%(default)s)"
    )
    parser.add_argument(
        "--img_format", choices=("RGB", "BGR"), help="channels of the detector (the config's)"
    )
    parser.add_argument(
        "--metadata_dataset",
        metavar="NAME",
        help="use a registered data set's class names (those of the checkpoint, else the config's)",
    )
    parser.add_argument(
        "--confidence-threshold", type=float, default=0.5, help="least score drawn (%(default)s)"
    )
    add_trust_option(parser)
    parser.add_argument(
        "--opts",
        nargs=argparse.REMAINDER,
        default=[],
        help="config overrides: key=value ...",
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Run on images or on video, as the arguments say."""
    args = argument_parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    cfg = apply_overrides(load_config(args.config_file, args.trust), args.opts, args.trust)
    predictor, metadata = build_predictor(cfg, args)
    if args.input:
        value_range = try_get_key(cfg, "dataloader.test.mapper.value_range")
        run_on_images(predictor, metadata, args, value_range)
    else:
        run_on_video(predictor, metadata, args)


if __name__ == "__main__":
    run_tool(main, OSError, ImportError)
