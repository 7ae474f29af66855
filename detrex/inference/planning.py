"""Which picture or video is read for a program, and which file it is drawn into."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from detrex.checkpoint.download import shown
from detrex.data.picture_files import PICTURE_SUFFIXES
from detrex.errors import ConfigError
from detrex.inference.inputs import image_files
from detrex.inference.video import SUFFIXES as VIDEOS
from detrex.inference.video import is_video
from detrex.inference.web_pictures import is_web_address
from detrex.utils.outputs import DRAWN, make_folder, plan_outputs, refuse_to_replace


@dataclass(frozen=True)
class Job:
    """One picture or video.

    Attributes:
        source: a path, an address, or a camera's number.
        target: the file to draw into; None where nothing is drawn.
    """

    source: str | int
    target: Path | None = None

    @property
    def is_video(self) -> bool:
        """Whether it has frames."""
        return is_video(self.source)

    @property
    def name(self) -> str:
        """How to call it."""
        return f"camera {self.source}" if isinstance(self.source, int) else shown(self.source)


def plan_jobs(inputs: Sequence[str], output: str | None) -> list[Job]:
    """Find what inputs name, each once, and a file for each; nothing of the user's is replaced.

    Args:
        inputs: files, folders (searched deeply, but for ``output`` in them), patterns, addresses,
            and numbers of cameras.
        output: a folder, or a file for a single picture or video; None to draw nothing.

    Raises:
        PictureError: an input names no picture and no video.
        ConfigError: a file of the user's would be written over, or ``output`` is one file for
            several.
    """
    sources = _sources(inputs, os.path.abspath(output or "."))
    if output is None:
        return [Job(source) for source in sources]
    suffix = Path(output).suffix.lower()
    if suffix in VIDEOS | PICTURE_SUFFIXES and not os.path.isdir(output):
        return [_single(sources, output, suffix)]
    targets: dict[str | int, Path] = {}
    for are_files in (True, False):  # of whose folders those of the others must be none
        for videos, suffix_of in ((False, None), (True, ".mp4")):
            group = [s for s in sources if is_video(s) == videos and _is_path(s) == are_files]
            name = "" if are_files else "streams" if videos else "web"
            folder = _free_folder(Path(output), name, targets.values())
            planned = plan_outputs([_place(source) for source in group], folder, suffix_of)
            targets |= zip(group, planned, strict=True)
    refuse_to_replace(targets.values(), [s for s in sources if isinstance(s, str)])
    make_folder(output, "--output")
    return [Job(source, targets[source]) for source in sources]


def _free_folder(output: Path, name: str, taken: Iterable[Path]) -> Path:
    """Name a folder in the output that holds none of the files that are planned already."""
    used = {path.relative_to(output).parts[0].lower() for path in taken}
    while name and name in used:
        name += "-addresses"
    return output / name


def _sources(inputs: Sequence[str], output: str) -> list[str | int]:
    found: dict[str | int, str | int] = {}  # by what tells whether it is the same
    for name in inputs:
        if name.isascii() and name.isdecimal() and not os.path.exists(name):
            found.setdefault(int(name), int(name))
        elif is_web_address(name) or (is_video(name) and "://" in name):
            found.setdefault(name, name)
        else:
            around = os.path.abspath(name)
            for path in image_files([name], "The input", deep=True, videos=True):
                place = os.path.abspath(path)
                if not (_is_in(place, output) and _is_in(output, around)):
                    found.setdefault(place, str(path))
    return list(found.values())


def _is_in(place: str, folder: str) -> bool:
    return place.startswith(os.path.join(folder, ""))


def _single(sources: Sequence[str | int], output: str, suffix: str) -> Job:
    if len(sources) != 1:
        raise ConfigError(
            f"--output {output} is one file, but the inputs name {len(sources)} pictures and "
            "videos: name a folder."
        )
    (source,) = sources
    if suffix not in (VIDEOS if is_video(source) else DRAWN):
        kind = "a video" if is_video(source) else "a picture"
        endings = (".mp4", ".avi") if is_video(source) else sorted(DRAWN)
        raise ConfigError(
            f"--output {output} is no name for {kind}: end it in {', '.join(endings)}, or name a "
            "folder."
        )
    refuse_to_replace([output], [source] if isinstance(source, str) else [])
    return Job(source, Path(output))


def _is_path(source: str | int) -> bool:
    return isinstance(source, str) and "://" not in source


def _place(source: str | int) -> Path:
    """A path whose last part names the drawn file."""
    if isinstance(source, int):
        return Path("/", f"camera-{source}.mp4")
    if "://" not in source:
        return Path(source)
    name = PurePosixPath(unquote(urlsplit(source).path)).name
    plain = "".join(sign if sign.isalnum() or sign in "._-" else "_" for sign in name)[-80:]
    is_named = Path(plain).suffix.lower() in PICTURE_SUFFIXES | VIDEOS
    return Path("/", plain if is_named else f"{plain or 'picture'}.png")
