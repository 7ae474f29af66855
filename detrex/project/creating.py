"""From a folder of labelled pictures to a project that can be trained."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from detrex.config import load_config
from detrex.config.references import refuse_reference
from detrex.data.coco import inspect
from detrex.data.coco.classes import class_names
from detrex.data.coco.document import Document
from detrex.data.coco.reading import document_of
from detrex.data.picture_files import shown
from detrex.data.preparation import require_objects
from detrex.errors import ConfigError, DataError, DetrexError, did_you_mean
from detrex.files import unfinished_name, write_atomically, writing_to
from detrex.project.backbones import Choice, choose
from detrex.project.formats import read_data
from detrex.project.parts import CONFIG, Data, Part
from detrex.project.schedule import Machine, Schedule, Statistics, plan
from detrex.project.splits import hold_out
from detrex.project.template import DETECTORS, Side, config_text

_MANY = 100  # iterations, from which on training without a GPU may take hours
_TRIAL_SIZE, _TRIAL_EPOCHS = 128, 5
_CURE = "make room, or name another folder for the project."


@dataclass(frozen=True)
class Project:
    """What was written.

    Attributes:
        folder: as it was named.
        form: the format of the data: ``"coco"``, ``"yolo"`` or ``"voc"``.
        classes: their names, in the order of their numbers.
        backbone: what was chosen.
        schedule: the numbers in the config.
        machine: that they were chosen for.
        pictures: the folder of the pictures to validate with.
        notes: what the user should know, one line each.
    """

    folder: Path
    form: str
    classes: tuple[str, ...]
    backbone: Choice
    schedule: Schedule
    machine: Machine
    pictures: Path
    notes: tuple[str, ...]

    @property
    def config(self) -> Path:
        """The config's file."""
        return self.folder / CONFIG


def create_project(
    folder: str | os.PathLike[str],
    data: str | os.PathLike[str],
    *,
    val: str | os.PathLike[str] | None = None,
    images: str | os.PathLike[str] | None = None,
    form: str = "auto",
    backbone: str = "resnet50",
    weights: str = "auto",
    detector: str = "dino",
    size: int | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    seed: int = 0,
) -> Project:
    """Write a folder with a config, and with annotations where they are not in COCO's format yet.

    The data stay where and as they are. The folder is there when all is right, and not before.

    Args:
        folder: to be made.
        data: a folder or file in COCO's, YOLO's or Pascal VOC's format.
        val: the same for validation; without one, or a part for it in ``data``, 15 % are held back.
        images: folder of the pictures, where annotations in COCO's format do not lead to it.
        form: ``"coco"``, ``"yolo"``, ``"voc"``, or ``"auto"``.
        backbone: a network of timm or torchvision; see `detrex.project.backbones.choose`.
        weights: of the backbone; see there.
        detector: ``"dino"``, ``"mask_rcnn"``, ``"retinanet"`` or ``"fcos"``.
        size: shorter side of the pictures in pixels.
        epochs: passes over the pictures.
        batch_size: pictures to an iteration.
        seed: chooses which pictures are held back.

    Returns:
        What was written.

    Raises:
        BackboneError: there is no such backbone, or the detector cannot take it.
        ConfigError: an argument is wrong, or the folder is there already.
        DataError: the data cannot be trained on.
        RunError: the folder cannot be written.
    """
    target = Path(folder)
    _check_target(target)
    refuse_reference(target.resolve(), "the project")
    if detector not in DETECTORS:
        raise ConfigError(
            f"there is no detector {detector!r:.60}: expected {', '.join(DETECTORS)}."
            f"{did_you_mean(detector, DETECTORS)}"
        )
    chosen = choose(backbone, weights)
    refuse_reference(str(chosen.weights), "the file of weights")
    paths = [None if path is None else Path(path) for path in (val, images)]
    found = read_data(Path(data), paths[0], form, paths[1])
    with _made_whole(target) as unfinished:
        masks = detector == "mask_rcnn"
        sides, documents = _prepare(found, unfinished, masks, seed, target)
        classes = tuple(class_names(documents["train"]))
        machine = Machine.here()
        numbers: dict[str, Any] = {"size": size, "epochs": epochs, "batch_size": batch_size}
        schedule = plan(
            _statistics(documents["train"]),
            detector,
            machine,
            pretrained=chosen.weights is not None,
            gflops=chosen.entry.gflops,
            **numbers,
        )
        name = target.resolve().name
        text = config_text(name, detector, chosen, schedule, sides, classes)
        _write(unfinished / CONFIG, text)
        load_config(unfinished / CONFIG)  # which asks whether the detector takes the backbone
    return Project(
        *(target, found.form, classes, chosen, schedule, machine),
        pictures=sides["test"].image_root,
        notes=(*found.notes, *_slowness(detector, chosen, schedule, machine)),
    )


def _slowness(
    detector: str, backbone: Choice, schedule: Schedule, machine: Machine
) -> Iterator[str]:
    """Say what makes a training long, and how to have a shorter one."""
    has_equal = detector in ("dino", "retinanet")  # FCOS finds boxes, as they do
    if backbone.weights is None:
        have = (
            "leave out --weights none"
            if backbone.entry.tags
            else "take one of `detrex backbones --pretrained`"
        )
        yield (
            "a backbone with random weights has all to learn from these pictures, which takes many "
            f"more passes: {have}, or name a file by --weights"
            f"{', or take --detector fcos, which learns soonest' * has_equal}"
        )
    if machine.device == "cpu" and schedule.iterations >= _MANY:
        shorter = {
            "--detector fcos": has_equal or detector == "mask_rcnn",
            f"--size {_TRIAL_SIZE}": schedule.size > _TRIAL_SIZE,
            f"--epochs {_TRIAL_EPOCHS}": schedule.epochs > _TRIAL_EPOCHS,
        }
        words = [word for word, helps in shorter.items() if helps]
        yield (
            f"PyTorch sees no GPU here, and {schedule.iterations:,} iterations of "
            f"{schedule.batch_size} pictures, made for one, may take hours"
            + (f": for a trial, {', '.join(words)}" if words else "")
        )


def _check_target(target: Path) -> None:
    if (target / CONFIG).exists():
        raise ConfigError(
            f"{shown(target)} is a project already, and is left as it is: give another name, or "
            "remove it."
        )
    if os.path.lexists(target) and not (target.is_dir() and not any(target.iterdir())):
        raise ConfigError(
            f"{shown(target)} is there already and holds something else: name a folder that is to "
            "be made."
        )


@contextmanager
def _made_whole(target: Path) -> Iterator[Path]:
    """Make a folder under another name, which it has until all is in it; nothing of it else.

    An empty folder that is there, such as the one that the user is in, stays and gets the files.

    Yields:
        The folder to write to. Errors that name it, name the target.
    """
    place = Path(os.path.abspath(target))
    there = next(folder for folder in (place, *place.parents) if folder.exists())
    unfinished = unfinished_name(there / place.name)
    try:
        with writing_to(shown(target), _CURE):
            unfinished.mkdir()
        yield unfinished
        with writing_to(shown(target), _CURE):
            if there == place:
                for file in sorted(unfinished.iterdir(), key=lambda file: file.name == CONFIG):
                    file.rename(place / file.name)
            else:
                place.parent.mkdir(parents=True, exist_ok=True)
                unfinished.rename(place)
    except DetrexError as error:
        text = str(error).replace(str(unfinished.resolve()), str(target))
        raise type(error)(text.replace(str(unfinished), str(target))) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _prepare(
    found: Data, folder: Path, masks: bool, seed: int, target: Path
) -> tuple[dict[str, Side], dict[str, Document]]:
    """Check the data, hold back what is missing for validation, and write what has to be."""
    train, val = found.parts["train"], found.parts.get("val")
    whole = _inspected(train, folder / "train.json", masks)
    _require(whole, train, "train")
    if val is None:
        # Their files have what was mended, so that nothing is told of it again.
        found.notes += [
            f"mended: {f.message.replace(whole.path, train.source)}" for f in whole.findings
        ]
        first, second = hold_out(whole.content(), train.source, seed=seed)
        held, count = len(second["images"]), len(whole.images)
        found.notes.append(
            f"{held} of {count} pictures are held back for validation, the same at each try "
            f"({shown(target / 'val.json')}); name others by --val"
        )
        train = Part(train.image_root, content=first, source=train.source)
        val = Part(train.image_root, content=second, source=train.source)
        whole = _inspected(train, folder / "train.json", masks)
    held_back = _inspected(
        val, folder / "val.json", masks, classes=class_names(whole), source=train.source
    )
    _require(held_back, val, "test")
    if shared := sorted(_pictures(whole, train) & _pictures(held_back, val)):
        found.notes.append(
            f"{len(shared)} of {len(held_back.images)} pictures for validation are trained on, "
            f"too, such as {shown(shared[0])}: so its AP is too high for new pictures"
        )
    parts = {"train": train, "test": val}
    files = {"train": "train.json", "test": "val.json"}
    sides = {
        side: Side(files[side] if part.json_file is None else str(part.json_file), part.image_root)
        for side, part in parts.items()
    }
    for side in sides.values():
        refuse_reference(side.json_file, "the file of annotations")
        refuse_reference(side.image_root, "the folder of pictures")
    return sides, {"train": whole, "test": held_back}


def _inspected(part: Part, file: Path, masks: bool, **alike: Any) -> Document:
    """Read and check annotations, which are written first where there are none in COCO's format."""
    if part.content is not None:
        _write(file, json.dumps(part.content))
        part.document = document_of(str(file), part.content)
    document = inspect(part.document or file, part.image_root, masks=masks, **alike)
    if masks:
        _refuse_boxes(document, part)
    try:
        document.raise_errors()
    except DataError as error:
        raise DataError(str(error).replace(str(file), part.source)) from error
    return document


def _pictures(document: Document, part: Part) -> set[str]:
    return {os.path.normpath(part.image_root / image["file_name"]) for image in document.images}


def _refuse_boxes(document: Document, part: Part) -> None:
    """Refuse boxes without outlines for a detector of masks."""
    if document.annotations and not any(a.get("segmentation") for a in document.annotations):
        others = [name for name in DETECTORS if name != "mask_rcnn"]
        raise DataError(
            f"{part.source} has boxes and no masks, which Mask R-CNN learns: take --detector "
            f"{', '.join(others[:-1])} or {others[-1]}, or label outlines."
        )


def _require(document: Document, part: Part, side: Any) -> None:
    """Refuse what has nothing to learn or to evaluate against."""
    try:
        require_objects(document, side)
    except DataError as error:
        raise DataError(str(error).replace(document.path, part.source)) from error


def _statistics(document: Document) -> Statistics:
    shorter = np.array([min(i["width"], i["height"]) for i in document.images], dtype=float)
    objects = [i for i in np.flatnonzero(document.kept) if not document.annotations[i]["iscrowd"]]
    boxes = np.array([document.annotations[i]["bbox"][2:] for i in objects], dtype=float)
    sides = np.sqrt(boxes.prod(axis=1)) / shorter[document.image_index[objects]]
    return Statistics(len(document.images), shorter.tolist(), sides.tolist())


def _write(file: Path, text: str) -> None:
    with writing_to(shown(file), _CURE):
        write_atomically(file, lambda stream: stream.write(text.encode()))
