"""Frames of videos and cameras, in and out, by OpenCV, which is imported when it is needed."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from detrex.checkpoint.download import shown
from detrex.errors import ConfigError, MissingPackageError, PictureError
from detrex.utils.outputs import mark_video, refuse_to_replace

logger = logging.getLogger(__name__)

SUFFIXES = {".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm", ".wmv"}
_WHOLE = 0.95
"""The least share of the frames that a whole video has: some files tell an estimate."""
_MOST_CAMERAS = 100  # from there on OpenCV reads a number as a kind of camera, too
_STREAMS = ("rtsp://", "rtsps://", "rtmp://", "udp://")


def is_video(source: object) -> bool:
    """Tell what is read as a video: a camera's number, a stream's address, or a file by its name.

    Args:
        source: anything that pictures may come from; a `Video` is one.
    """
    if isinstance(source, Video) or type(source) is int:
        return True
    if not isinstance(source, str | os.PathLike):
        return False
    name = os.fspath(source)
    if not isinstance(name, str):
        return False
    return name.lower().startswith(_STREAMS) or (
        Path(name.partition("?")[0]).suffix.lower() in SUFFIXES and not os.path.isdir(name)
    )


def require_opencv(what: str = "video") -> ModuleType:
    """Import OpenCV, or say what needs it.

    Args:
        what: is read or written through it.

    Raises:
        MissingPackageError: it is not installed.
    """
    try:
        import cv2
    except ImportError as error:
        raise MissingPackageError(
            f"{what} goes through OpenCV, which is not installed: `pip install "
            "opencv-python-headless`, or opencv-python where windows are to be shown."
        ) from error
    return cv2


class Video:
    """The frames of a video, one at a time; to be used in a ``with`` block.

    Attributes:
        name: what messages call it.
        frames_per_second: as the file says; 25 where it does not.
        count: how many frames there are, as the file says; None for a camera.
    """

    def __init__(self, source: str | os.PathLike[str] | int) -> None:
        """Open a video.

        Args:
            source: a file, an address that OpenCV can open, or a camera's number from 0.

        Raises:
            PictureError: it cannot be opened, or the number is not from 0 to 99.
            MissingPackageError: OpenCV is not installed.
        """
        if isinstance(source, int) and not 0 <= source < _MOST_CAMERAS:  # OpenCV may crash
            raise PictureError(f"there is no camera {source}: they are numbered from 0 to 99.")
        cv2 = require_opencv()
        self._cv2 = cv2
        opened: Any = source if isinstance(source, int) else os.fspath(source)
        is_camera = isinstance(source, int)
        self.name = f"camera {source}" if is_camera else shown(str(opened))
        if not is_camera and "://" not in opened and not Path(opened).is_file():
            kind = "is no file" if Path(opened).exists() else "does not exist"
            raise PictureError(f"The video {self.name} {kind}: correct the path.")
        self._video = cv2.VideoCapture(opened)
        if not self._video.isOpened():
            self._video.release()
            what = "the camera is there and free" if is_camera else "it is a whole video"
            raise PictureError(f"OpenCV cannot open the video {self.name}: see whether {what}.")
        rate = self._video.get(cv2.CAP_PROP_FPS)
        self.frames_per_second = float(rate) if 0 < rate < 1000 else 25.0
        count = int(self._video.get(cv2.CAP_PROP_FRAME_COUNT))
        self.count = None if is_camera or count <= 0 else count

    def __enter__(self) -> "Video":
        return self

    def __exit__(self, *_: object) -> None:
        self._video.release()

    def __iter__(self) -> Iterator[np.ndarray]:
        """Go through the frames, uint8 ``(H, W, 3)``, RGB.

        Raises:
            PictureError: there is none. Of a video that ends early a warning is logged.
        """
        frames = 0
        while True:
            read, frame_bgr = self._video.read()
            if not read:
                break
            frames += 1
            yield self._cv2.cvtColor(frame_bgr, self._cv2.COLOR_BGR2RGB)
        if not frames:
            raise PictureError(f"No frame of the video {self.name} can be read: copy it again.")
        if self.count and frames < _WHOLE * self.count:
            logger.warning(
                "%s ends after %d of %d frames: the rest is missing or damaged, or its head is "
                "wrong.",
                *(self.name, frames, self.count),
            )


class VideoWriter:
    """Writes frames to a video, which is opened with the first; to be used in a ``with`` block."""

    def __init__(self, path: str | os.PathLike[str], frames_per_second: float) -> None:
        """Name the file.

        Args:
            path: ends in ``.mp4``, ``.avi`` or another ending that OpenCV knows.
            frames_per_second: how fast it plays.

        Raises:
            ConfigError: the file exists, and this package did not write it.
        """
        self.path, self.rate = Path(path), frames_per_second
        self._cv2 = require_opencv()
        self._writer: Any = None
        self._size: tuple[int, ...] = ()
        refuse_to_replace([self.path])

    def __enter__(self) -> "VideoWriter":
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.release()
            mark_video(self.path)

    def write(self, frame_rgb: np.ndarray) -> None:
        """Add a frame.

        Args:
            frame_rgb: uint8 ``(H, W, 3)``, of the size of the first.

        Raises:
            ConfigError: OpenCV cannot write such a file there.
        """
        if self._writer is None:
            self._open(frame_rgb.shape[:2])
        if frame_rgb.shape[:2] != self._size:
            frame_rgb = self._cv2.resize(frame_rgb, self._size[::-1])
        self._writer.write(np.ascontiguousarray(frame_rgb[:, :, ::-1]))

    def _open(self, size: tuple[int, ...]) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"{self.path.parent} cannot be a folder to write to ({error.strerror}): name "
                "another output."
            ) from error
        is_mp4 = self.path.suffix.lower() in (".mp4", ".m4v", ".mov")
        codec = self._cv2.VideoWriter_fourcc(*("mp4v" if is_mp4 else "MJPG"))
        self._writer = self._cv2.VideoWriter(str(self.path), codec, self.rate, size[::-1])
        self._size = tuple(size)
        if not self._writer.isOpened():
            self._writer = None
            raise ConfigError(
                f"OpenCV cannot write video to {self.path}: try a name that ends in .mp4 or .avi."
            )
