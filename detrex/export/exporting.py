"""From a model to a file that was run and gave the same, or to no file."""

import copy
import logging
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import detrex
from detrex.errors import ConfigError
from detrex.export.formats import Run, require
from detrex.export.program import EXAMPLE, first_line, quiet, trace
from detrex.export.reference import Reference
from detrex.export.tensor_modules import TensorBackbone, TensorDetector, tensor_module
from detrex.modeling import optimize_for_inference
from detrex.modeling.backbone.features.coverage import Size

logger = logging.getLogger(__name__)

_LONGEST_NAME = 240  # bytes, what file systems take less what is put before a name
SIZES: tuple[Size, ...] = ((96, 128), (259, 347), (416, 384))
"""Heights and widths at which a file is compared with the model."""


@dataclass(frozen=True)
class ExportReport:
    """What was written.

    Attributes:
        files: the file, and those that it needs beside it.
        description: what the file says of itself: input, outputs, statistics, classes.
        differences: the largest difference from the model at each size, as
            `detrex.export.comparison` measures it.
    """

    files: tuple[Path, ...]
    description: dict[str, Any]
    differences: dict[Size, float]


class Exportable:
    """A model as a graph of its folded weights, with what the model itself gives for a few images.

    Args:
        model: a detector with ``forward_tensors``, such as DINO, or a backbone. It is not changed.
        part: ``"detector"``, or ``"backbone"`` for the backbone of a detector.
        sizes: heights and widths at which files are compared with the model.
        uint8: whether a detector's image is uint8 and not float32.

    Raises:
        ConfigError: the model cannot be exported, or does not run on images of these sizes.
    """

    def __init__(
        self,
        model: nn.Module,
        part: str = "detector",
        sizes: Sequence[Size] = SIZES,
        uint8: bool = False,
    ) -> None:
        model = copy.deepcopy(model).cpu().eval().requires_grad_(False)
        module = tensor_module(model, part)
        if uint8 and isinstance(module, TensorBackbone):
            raise ConfigError(
                "a backbone takes normalised float32 images: leave uint8 out, or export a "
                "detector, which normalises its image."
            )
        if not sizes or min(map(min, sizes)) < 1:
            raise ConfigError(
                "sizes must be one or more pairs of height and width, at least 1 each, got "
                f"{list(sizes)}."
            )
        logger.info("running the model at %s", ", ".join(f"{h} x {w}" for h, w in sizes))
        self.references = [Reference(module, _image(module, size, uint8)) for size in sizes]
        self.description: dict[str, Any] = {
            **{"detrex": detrex.__version__, "dtype": "uint8" if uint8 else "float32"},
            **module.describe(),
            "outputs": list(self.references[0].outputs),
        }
        logger.info("making the graph, which takes minutes for a large detector")
        folded = optimize_for_inference(model, channels_last=False)
        self.program = trace(tensor_module(folded, part), _image(module, EXAMPLE, uint8))

    def write(
        self, file: str | os.PathLike[str], format: str, class_names: Sequence[str] = ()
    ) -> ExportReport:
        """Write a file that is compared with the model, or none; see `export_model`."""
        kind, target = require(format), target_of(file, format)
        description = {**self.description, "class_names": list(class_names)}
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".detrex-export-") as folder:
            trial = Path(folder) / target.name
            try:
                logger.info("writing %s", target.name)
                with quiet():
                    kind.write(self.program, trial, description)
                    run = kind.load(trial)
                differences = _compare(run, self.references)
            except ConfigError as error:
                raise ConfigError(f"{target} is not written: {error}.") from error
            except Exception as error:  # converters and runtimes can fail in any way
                raise ConfigError(
                    f"{target} is not written: {format} fails with {type(error).__name__}: "
                    f"{first_line(error)}"
                ) from error
            files = _move(Path(folder), target)
        return ExportReport(files, description, differences)


def export_model(
    model: nn.Module,
    file: str | os.PathLike[str],
    format: str = "onnx",
    *,
    part: str = "detector",
    sizes: Sequence[Size] = SIZES,
    uint8: bool = False,
    class_names: Sequence[str] = (),
) -> ExportReport:
    """Write a model to a file that takes images of any height and width.

    The file is run at several sizes and compared with the model; one that differs is not kept.

    Args:
        model: a detector with ``forward_tensors``, such as DINO, or a backbone. It is not changed.
        file: where to; it must not be there. Weights above 2 GB go to a file beside it.
        format: ``"onnx"``, ``"torch-export"`` or ``"openvino"``.
        part: ``"detector"``, or ``"backbone"`` for the backbone of a detector.
        sizes: heights and widths to compare at.
        uint8: whether a detector's image is uint8 and not float32.
        class_names: written into the file.

    Returns:
        What was written, and how far it is from the model.

    Raises:
        ConfigError: an unknown format or one whose packages are missing, a file that is there
            already, a model that cannot be exported, or one whose file gives something else.
    """
    target_of(file, format)  # before anything that takes time
    return Exportable(model, part, sizes, uint8).write(file, format, class_names)


def target_of(file: str | os.PathLike[str], format: str) -> Path:
    """Say where a file of a format can be written.

    Args:
        file: what was asked for.
        format: as for `export_model`.

    Raises:
        ConfigError: the format cannot be written, or not there.
    """
    path, suffix = Path(file), require(format).suffix
    if path.suffix != suffix:
        raise ConfigError(f"the file must end in {suffix}, got {str(path)!r}.")
    if (length := len(os.fsencode(path.name))) > _LONGEST_NAME:
        raise ConfigError(
            f"the file's name {path.name[:30]}... has {length} bytes, expected at most "
            f"{_LONGEST_NAME}: choose a shorter one."
        )
    _refuse_existing(path)
    if not os.path.isdir(path.parent):
        raise ConfigError(f"there is no folder {path.parent} to write {path.name} to: make it.")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise ConfigError(f"the folder {path.parent} cannot be written to: name another output.")
    return path


def _refuse_existing(file: Path) -> None:
    if os.path.exists(file):
        raise ConfigError(
            f"{file} exists and is not written over: name another output, or remove the file."
        )


def _image(module: TensorBackbone | TensorDetector, size: Size, uint8: bool) -> Tensor:
    """Draw an image of a size, or as much of it as the square holds that the backbone takes."""
    square = module.rule.square
    height, width = (min(side, square) if square else side for side in size)
    generator = torch.Generator().manual_seed(height * 10007 + width)
    if isinstance(module, TensorBackbone):
        return torch.randn(1, module.channels, height, width, generator=generator)
    image = torch.randint(256, (1, module.channels, height, width), generator=generator)
    return image.to(torch.uint8 if uint8 else torch.float32)


def _compare(run: Run, references: Sequence[Reference]) -> dict[Size, float]:
    differences = {}
    for reference in references:
        with torch.no_grad():
            apart = reference.difference(*run(reference.image))
        height, width = reference.size
        logger.info("at %d x %d it differs from the model by at most %.1e", height, width, apart)
        differences[reference.size] = apart
        if not apart <= reference.tolerance:
            raise ConfigError(
                f"at {height} x {width} it differs from the model by {apart:.2g}, where "
                f"{reference.tolerance:.2g} is allowed for rounding"
            )
    return differences


def _move(folder: Path, target: Path) -> tuple[Path, ...]:
    """Move a file and those beside it to where they belong, that which names the others last."""
    names = sorted((path.name for path in folder.iterdir()), key=lambda name: name == target.name)
    files = [target.with_name(name) for name in names]
    for file in files:
        _refuse_existing(file)
    for file in files:
        (folder / file.name).replace(file)
    return tuple(reversed(files))
