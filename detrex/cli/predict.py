"""``detrex predict``: what a trained detector finds in pictures and videos, drawn and counted."""

import argparse
import os
import sys
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from detrex.cli import terminal
from detrex.cli.arguments import add_detector_arguments, complete_configs, parse_count, typed
from detrex.cli.runs import tell_choice
from detrex.errors import printable

_EXAMPLES = """
detrex predict output/run pictures/
detrex predict output/run 'photos/*.jpg' street.mp4 --output found --threshold 0.6
detrex predict output/run street.mp4 --output street_found.mp4 --classes person,dog
detrex predict dino/dino_r50_4scale_12ep.py a.jpg --weights dino.pth --json found.json --no-draw
"""
_MOST_ROWS = 40
# What OpenCV would write of damaged videos, beside the sentence.
_SILENT = {"OPENCV_FFMPEG_LOGLEVEL": "-8", "OPENCV_LOG_LEVEL": "SILENT"}


def add_parser(commands: Any) -> None:
    """Add the command to the command line.

    Args:
        commands: argparse's subparsers.
    """
    parser = commands.add_parser(
        "predict",
        help="find objects in pictures, folders, addresses and videos, and draw them",
        description="Find objects with a trained detector, draw them, and say how many there are "
        "of each class. Nothing is written over but what was drawn before.",
        examples=_EXAMPLES,
    )
    source = parser.add_argument(
        "source",
        metavar="SOURCE",
        help="a run's folder, a checkpoint, a config with weights, or hf-hub:owner/name",
    )
    source.completer = complete_configs
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="pictures and videos: files, folders, patterns, addresses, a camera's number",
    )
    add_detector_arguments(parser)
    parser.add_argument(
        "--output",
        default="predictions",
        metavar="PLACE",
        help="a folder, or a file for a single picture or video (%(default)s)",
    )
    parser.add_argument("--no-draw", action="store_true", help="draw nothing")
    parser.add_argument("--json", metavar="FILE", help="write all that is found, in COCO's format")
    parser.add_argument(
        "--classes", metavar="NAMES", help="names or indices, such as person,dog (all)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 (%(default)s)")
    parser.add_argument("--dtype", help="auto, float32, bfloat16, float16 (the run's)")
    parser.add_argument(
        "--batch-size",
        type=typed(parse_count, "4"),
        default=1,
        metavar="N",
        help="pictures of equal size that are run together (%(default)s)",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="key=value",
        help="a change of the config, as for training; may be given repeatedly",
    )
    parser.set_defaults(run=run, parser=parser)


def run(arguments: argparse.Namespace) -> int:
    """Find objects, draw them and print how many there are.

    Args:
        arguments: as parsed.

    Returns:
        Exit status: 1 where a picture could not be read; the others are drawn.

    Raises:
        DetrexError: the source, an input or an option is wrong.
    """
    from detrex.inference.coco_file import CocoFile
    from detrex.inference.loading import load
    from detrex.inference.planning import plan_jobs
    from detrex.inference.result import checked_threshold, require_own_json
    from detrex.utils.outputs import make_folder

    for name, level in _SILENT.items():
        os.environ.setdefault(name, level)
    if arguments.threshold is not None:
        checked_threshold(arguments.threshold)
    if arguments.json:
        require_own_json(Path(arguments.json))
        make_folder(Path(arguments.json).parent, "--json")
    jobs = plan_jobs(arguments.inputs, None if arguments.no_draw else arguments.output)
    with terminal.status("loading the detector"):
        detector = load(
            arguments.source,
            config=arguments.config,
            weights=arguments.weights,
            device=arguments.device,
            dtype=arguments.dtype,
            overrides=arguments.set,
            trust=arguments.trust,
        )
    options = {
        "threshold": arguments.threshold,
        "batch_size": arguments.batch_size,
        "classes": _named(arguments.classes, detector.class_names),
    }
    detector.stream([], **options)  # refuses wrong ones
    tell_choice(detector, arguments.weights)
    file = CocoFile(Path(arguments.json), detector) if arguments.json else None
    work = _Work(detector, options, file)
    try:
        work.pictures([job for job in jobs if not job.is_video])
        for job in jobs:
            if job.is_video:
                work.video(job)
    finally:  # also after Ctrl-C, by which a camera ends
        if file:
            file.write()
    return work.end(arguments.json)


def _named(text: str | None, class_names: Sequence[str]) -> list[str] | None:
    """Read classes with commas between them, or one whose name has a comma."""
    if text is None:
        return None
    return [text] if text in class_names else [part.strip() for part in text.split(",")]


class _Work:
    """Goes through pictures and videos, and prints what became of each.

    Args:
        detector: a `detrex.inference.Detector`.
        options: of its `stream`.
        file: a `CocoFile` that takes all results, or None.
    """

    def __init__(self, detector: Any, options: dict[str, Any], file: Any) -> None:
        from detrex.utils.outputs import Failures

        self.detector, self.options, self.file = detector, options, file
        self.failures = Failures()
        self.rows: list[tuple[str, str, str]] = []
        self.objects: Counter[str] = Counter()
        self.found_in: Counter[str] = Counter()

    def pictures(self, jobs: Sequence[Any]) -> None:
        """Draw what is found in pictures; one that cannot be read is passed over."""
        waiting: deque[Any] = deque()  # those that were read, until their result comes

        def sources() -> Iterator[str]:
            for job in terminal.progress(jobs, "predicting"):
                waiting.append(job)
                yield job.source

        def note(error: Any) -> None:
            waiting.pop()
            self.failures.note(error)

        for result in self.detector.stream(sources(), on_error=note, **self.options):
            job = waiting.popleft()
            if job.target:
                result.save(job.target)
            self._take(result)
            self._tell(job, "", result.counts)

    def video(self, job: Any) -> None:
        """Draw what is found in the frames of a video."""
        from detrex.errors import PictureError

        try:
            counts, frames = self._frames(job)
        except PictureError as error:
            self.failures.note(error)
        else:
            self._tell(job, f"{frames} frames, ", counts)

    def _frames(self, job: Any) -> tuple[Counter[str], int]:
        import numpy as np

        from detrex.inference.video import Video, VideoWriter

        counts: Counter[str] = Counter()
        frames = 0
        with Video(job.source) as video, ExitStack() as stack:
            writer = VideoWriter(job.target, video.frames_per_second) if job.target else None
            if writer:
                stack.enter_context(writer)
            results = self.detector.stream(video, **self.options)
            for result in terminal.progress(results, job.name, video.count):
                if writer:
                    writer.write(np.asarray(result.plot()))
                counts.update(self._take(result))
                frames += 1
        return counts, frames

    def _take(self, result: Any) -> dict[str, int]:
        counts: dict[str, int] = result.counts
        self.objects.update(counts)
        self.found_in.update(counts.keys())
        if self.file:
            self.file.add(result)
        return counts

    def _tell(self, job: Any, before: str, counts: dict[str, int]) -> None:
        from detrex.inference.showing import counted

        row = (
            printable(job.name),
            before + counted(counts),
            printable(job.target or ""),
        )
        self.rows.append(row)
        self.failures.total += 1
        if not terminal.is_rich():
            print(f"{row[0]}: {row[1]}" + (f" -> {row[2]}" if row[2] else ""))

    def end(self, json_file: str | None) -> int:
        """Print the tables, and name what could not be read."""
        if terminal.is_rich() and len(self.rows) <= _MOST_ROWS:
            terminal.table(("input", "found", "drawn"), self.rows)
        if len(self.rows) > 1 and self.objects:
            counts = self.objects.most_common()
            rows = [(printable(name), count, self.found_in[name]) for name, count in counts]
            columns = ("class", "objects", "pictures")
            terminal.table(columns, rows, right=columns[1:])
        if json_file:
            print(f"all of it: {json_file}")
        if sentence := self.failures.sentence():
            if len(self.failures.reasons) > 1:  # of which the sentence has room for some
                print("\n".join(self.failures.reasons), file=sys.stderr)
            print(f"detrex: {sentence}", file=sys.stderr)
            return 1
        return 0
