r"""Run a detector on images, folders of images or video, and draw what it finds.

    python demo/demo.py --config-file CONFIG --input a.jpg 'more/*.png' a_folder --output found \
        --opts train.init_checkpoint=model_final.pth
    python demo/demo.py --config-file CONFIG --video-input a.mp4 --output found.mp4 \
        --opts train.init_checkpoint=model_final.pth

Without --output the pictures are shown one by one. Class names are those of the checkpoint, else of
the config's data set. Nothing is written over but what was drawn before; a picture that cannot be
read is named at the end, with exit status 1.
"""

from detrex.quiet import quiet_libraries
from detrex.threads import prepare_threads

if __name__ == "__main__":  # before torch is imported
    prepare_threads()
    quiet_libraries()

import argparse
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import detectron2.data.transforms as T
import numpy as np
from omegaconf import DictConfig
from tqdm import tqdm

from detrex.config import load_config, require_keys, try_get_key
from detrex.engine.distributed import resolve_device
from detrex.engine.overrides import apply_overrides
from detrex.errors import ConfigError, run_tool
from detrex.inference import Detector
from detrex.inference.inputs import image_files
from detrex.inference.loading import build_detector
from detrex.inference.source import Source
from detrex.inference.video import Video, VideoWriter, require_opencv
from detrex.options import add_trust_option, positive
from detrex.utils.outputs import (
    DRAWN,
    Failures,
    make_folder,
    plan_outputs,
    refuse_to_replace,
)


def load(cfg: DictConfig, args: argparse.Namespace) -> Detector:
    """Build the config's detector with the weights of ``train.init_checkpoint``."""
    require_keys(cfg, "model")
    device = resolve_device(str(try_get_key(cfg, "train.device", default="cpu")))
    weights = try_get_key(cfg, "train.init_checkpoint", default="")
    detector = build_detector(
        Source(cfg, (weights,) if weights else (), args.config_file),
        device=device,
        threshold=args.confidence_threshold,
        optimize=bool(try_get_key(cfg, "train.inference.enabled", default=False)),
        dataset=args.metadata_dataset,
    )
    detector.augmentation = [T.ResizeShortestEdge(args.min_size_test, args.max_size_test)]
    detector.input_format = args.img_format or detector.input_format
    return detector


def planned_outputs(files: Sequence[Path], output: str | None) -> list[Path | None]:
    """Find a place for the picture of each file: none where it is shown, ``--output`` or below it.

    Raises:
        ConfigError: something of the user's would be written over, or ``output`` is one file for
            several pictures.
    """
    if output is None:
        return [None for _ in files]
    if Path(output).suffix.lower() not in DRAWN or Path(output).is_dir():
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


def run_on_images(detector: Detector, args: argparse.Namespace) -> None:
    """Draw the predictions on every picture of ``--input``.

    Raises:
        SystemExit: status 1 when a picture could not be read; the others are drawn.
    """
    named = {os.path.abspath(path): path for path in reversed(image_files(args.input))}
    files = list(reversed(named.values()))  # what is named twice is drawn once
    failures = Failures()

    def draw(path: Path, target: Path | None) -> None:
        result = detector.predict(path)
        if target is None:
            result.plot().show(title=path.name)
            return
        result.save(target)
        tqdm.write(f"{path}: {len(result)} objects -> {target}")

    pairs = list(zip(files, planned_outputs(files, args.output), strict=True))
    for path, target in tqdm(pairs, unit="picture"):
        failures.attempt(draw, path, target)
    failures.end()


def run_on_video(detector: Detector, args: argparse.Namespace) -> None:
    """Draw the predictions on every frame of ``--video-input`` or of the webcam.

    Raises:
        ConfigError: ``--output`` exists.
    """
    cv2 = require_opencv("--video-input and --webcam: video")
    if args.output:
        refuse_to_replace([video_file(args)], [args.video_input] if args.video_input else [])
    with Video(0 if args.webcam else args.video_input) as video:
        drawn = (np.asarray(result.plot()) for result in detector.stream(video))
        frames = tqdm(drawn, total=video.count, unit="frame")
        if args.output:
            with VideoWriter(video_file(args), video.frames_per_second) as writer:
                for frame in frames:
                    writer.write(frame)
            return
        for frame in frames:
            cv2.imshow("demo", np.ascontiguousarray(frame[:, :, ::-1]))
            if cv2.waitKey(1) == 27:
                break


def video_file(args: argparse.Namespace) -> Path:
    """Find the file to write: ``--output``, or in that folder ``<name of the video>.mp4``."""
    path = Path(args.output)
    if path.suffix and not path.is_dir():
        return path
    stem = "webcam" if args.webcam else Path(args.video_input).stem
    return path / f"{stem}.mp4"


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
    detector = load(cfg, args)
    if args.input:
        run_on_images(detector, args)
    else:
        run_on_video(detector, args)


if __name__ == "__main__":
    run_tool(main, OSError, ImportError)
