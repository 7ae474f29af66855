"""A trained detector that finds objects in pictures of any kind."""

import os
import threading
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from numbers import Integral
from pathlib import Path
from typing import Any

import detectron2.data.transforms as T
import numpy as np
import torch
from detectron2.structures import Instances
from omegaconf import DictConfig
from PIL import Image
from torch import Tensor, nn

from detrex.data.pictures import as_uint8, augment, checked_value_range
from detrex.errors import ConfigError, PictureError, printable
from detrex.inference.classes import wanted_labels
from detrex.inference.facts import Facts
from detrex.inference.inputs import Picture, Read, are_several, pictures
from detrex.inference.portable import MAX_SIZE, MIN_SIZE, sides_of
from detrex.inference.result import Result, checked_threshold
from detrex.modeling import optimize_for_inference
from detrex.modeling.inference.number_format import settle_dtype

_WINDOW = 4  # batches that are looked at together, for pictures of equal size

OnError = Callable[[PictureError], object]


class Detector:
    """A detector with its weights; `detrex.load` makes one.

    Calls leave it as it is, so that several threads may use one detector.

    Attributes:
        model: the module, in evaluation mode on its device; what is saved and shared. A faster copy
            is made of it at the first picture, and after its tensors were changed or moved, unless
            ``optimize`` is off.
        config: the resolved config.
        class_names: by class index; empty where nothing tells them.
        category_ids: the data set's id of each class; empty where they are not known.
        input_format: the order of channels that the model takes: ``"RGB"``, ``"BGR"``, or ``"L"``.
        min_size: the shorter side that pictures are resized to, in pixels; 0 where they stay.
        max_size: the most of the longer side, or 0.
        threshold: the least score of what is given out, where a call does not say.
        dtype: number format of convolutions and matrix products; None for float32.
        origin: what it was loaded from.
        checkpoint: the file or address of its weights; empty for a shared detector and for random
            ones.
        iteration: the last one that it was trained for, counted from 0; -1 where that is not known.
        facts: what a shared detector's folder said of it; None for one of a run.
    """

    def __init__(
        self,
        model: nn.Module,
        config: DictConfig,
        *,
        class_names: Sequence[str] = (),
        category_ids: Sequence[int] = (),
        input_format: str = "RGB",
        augmentation: Sequence[T.Augmentation] | None = None,
        value_range: Sequence[float] | None = None,
        threshold: float = 0.5,
        dtype: str | torch.dtype | None = None,
        optimize: bool = True,
        origin: str | Path = "",
        checkpoint: str = "",
        metadata: Mapping[str, Any] | None = None,
        iteration: int = -1,
        facts: Facts | None = None,
    ) -> None:
        """Bind a model to what its pictures and classes are.

        Args:
            model: a detector that takes detectron2's list of dicts, on its device; it is put into
                evaluation mode.
            config: its whole config.
            class_names: by class index.
            category_ids: the data set's id of each class.
            input_format: the order of channels that the model takes.
            augmentation: what the evaluation does to a picture; by default the resize of COCO.
            value_range: see `detrex.data.pictures.read_image`.
            threshold: the least score.
            dtype: see `detrex.modeling.optimize_for_inference`.
            optimize: whether pictures go through that function's copy.
            origin: what it is from.
            checkpoint: the file or address of its weights.
            metadata: what drawing takes from the data set's, such as the names of keypoints.
            iteration: the last one that it was trained for.
            facts: what its folder said of it.

        Raises:
            ConfigError: the threshold is no number from 0 to 1, ``value_range`` is none, the order
                or the number format is unknown, or there is a format without ``optimize``.
        """
        if input_format not in ("RGB", "BGR", "L"):
            raise ConfigError(f"input_format is RGB, BGR or L, got {input_format!r:.60}.")
        self.model = model.eval()
        self.config = config
        self.class_names = tuple(class_names)
        self.category_ids = tuple(category_ids)
        self.input_format = input_format
        self.augmentation = (
            [T.ResizeShortestEdge(MIN_SIZE, MAX_SIZE)]
            if augmentation is None
            else list(augmentation)
        )
        self.min_size, self.max_size = sides_of(self.augmentation)
        try:
            self.value_range = checked_value_range(value_range)
        except ValueError as error:
            raise ConfigError(str(error)) from None
        self.threshold = checked_threshold(threshold)
        self.dtype = settle_dtype(dtype, self.device)
        if self.dtype is not None and not optimize:
            raise ConfigError(
                f"dtype={dtype} is for the faster copy, and optimize=False asks for none: leave "
                "one of the two out."
            )
        self.optimize = optimize
        self.origin = origin
        self.checkpoint = checkpoint
        self.iteration = iteration
        self.facts = facts
        self.metadata = dict(metadata or {})
        self._lock = threading.Lock()
        self._faster: nn.Module | None = None
        self._copied: tuple[list[Tensor], Hashable] = ([], ())

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    def predict(
        self,
        images: Any,
        *,
        threshold: float | None = None,
        classes: Iterable[str | int] | str | int | None = None,
        batch_size: int = 1,
        image_format: str = "RGB",
    ) -> Any:
        """Find the objects in pictures.

        Pictures of equal size share a batch, so that none is padded because of another and the
        results are those of one picture at a time, up to the rounding of floating-point sums.

        Args:
            images: a path, a folder, a pattern, an address, an array, a picture of Pillow, a
                tensor, or several of these; see `detrex.inference.inputs`.
            threshold: the least score, from 0 to 1; by default the detector's.
            classes: names or indices of the classes that are wanted; None for all.
            batch_size: the most pictures that go through the model together.
            image_format: the order of channels of arrays and tensors, ``"RGB"`` or ``"BGR"``.

        Returns:
            A `Result` for one picture, a list of them for a list, a folder, a pattern or a stack.

        Raises:
            PictureError: a picture cannot be read or resized.
            ConfigError: an option is wrong, or the detector finds no objects but something else.
            TypeError: something is no picture.
        """
        check = self._checked(threshold, classes, batch_size)
        reads = pictures(images, image_format, self.value_range)
        results = list(self._results(reads, *check, None))
        return results if are_several(images) else results[0]

    def stream(
        self,
        source: Any,
        *,
        threshold: float | None = None,
        classes: Iterable[str | int] | str | int | None = None,
        batch_size: int = 1,
        image_format: str = "RGB",
        on_error: OnError | None = None,
    ) -> Iterator[Result]:
        """Find the objects in videos, cameras or many pictures, with few in memory at a time.

        Args:
            source: all that `predict` takes; also a video's file or address, and the number of a
                camera.
            threshold: as for `predict`.
            classes: likewise.
            batch_size: likewise. At most four batches of pictures are in memory.
            image_format: likewise.
            on_error: called with the error of a picture that cannot be read, which is then left
                out; by default the error is raised.

        Yields:
            A `Result` for each picture or frame, in their order.

        Raises:
            ConfigError: as `predict`, at once.
        """
        check = self._checked(threshold, classes, batch_size)
        reads = pictures(source, image_format, self.value_range, videos=True)
        return self._results(reads, *check, on_error)

    def save_pretrained(
        self,
        folder: str | os.PathLike[str],
        *,
        licence: str = "",
        datasets: str | Sequence[str] = (),
    ) -> Path:
        """Write it with all that belongs to it to a folder, which `detrex.load` reads.

        Args:
            folder: see `detrex.inference.pretrained.save_pretrained`, as the other arguments.
            licence: under which the weights are given on.
            datasets: what it was trained on.

        Returns:
            The folder.
        """
        from detrex.inference.pretrained import save_pretrained

        return save_pretrained(self, folder, licence=licence, datasets=datasets)

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Put it on the Hugging Face hub.

        Args:
            repo_id: ``owner/name``.
            **options: those of `detrex.inference.hub.push_to_hub`: ``private``, ``revision``,
                ``message``, ``licence``, ``datasets``, ``token``.

        Returns:
            The address to load it by.
        """
        from detrex.inference.hub import push_to_hub

        return push_to_hub(self, repo_id, **options)

    def _checked(
        self, threshold: float | None, classes: Any, batch_size: int
    ) -> tuple[float, frozenset[int] | None, int]:
        is_whole = isinstance(batch_size, Integral) and not isinstance(batch_size, bool)
        if not is_whole or batch_size < 1:
            raise ConfigError(f"batch_size={batch_size!r:.60} is no whole number of at least 1.")
        least = self.threshold if threshold is None else checked_threshold(threshold)
        return least, wanted_labels(classes, self.class_names), int(batch_size)

    def _results(
        self,
        reads: Iterator[Read],
        threshold: float,
        labels: frozenset[int] | None,
        batch_size: int,
        on_error: OnError | None,
    ) -> Iterator[Result]:
        samples = self._samples(reads, on_error)
        ahead = 1 if batch_size == 1 else _WINDOW * batch_size
        while window := list(islice(samples, ahead)):
            found = self._run_window([sample for _, sample in window], batch_size)
            for (picture, _), instances in zip(window, found, strict=True):
                result = self._result(picture, instances)
                yield result.filter(threshold, labels)

    def _samples(
        self, reads: Iterator[Read], on_error: OnError | None
    ) -> Iterator[tuple[Picture, dict[str, Any]]]:
        for read in reads:
            try:
                picture = read()
                sample = self._sample(picture)
            except PictureError as error:
                if on_error is None:
                    raise
                on_error(error)
            else:
                yield picture, sample

    def _sample(self, picture: Picture) -> dict[str, Any]:
        """Bring a picture into the form of the evaluation's loader."""
        height, width = picture.pixels.shape[:2]
        image, _ = augment(self.augmentation, self._channels(picture.pixels), picture.name)
        tensor = torch.from_numpy(np.require(image.transpose(2, 0, 1), requirements=["C", "W"]))
        sample = {"image": tensor, "height": height, "width": width}
        return sample if picture.path is None else sample | {"file_name": picture.path}

    def _channels(self, image_rgb: np.ndarray) -> np.ndarray:
        if self.input_format == "BGR":
            return image_rgb[:, :, ::-1]
        if self.input_format == "RGB":
            return image_rgb
        if image_rgb.dtype != np.uint8:  # levels of a grey file, three times
            return image_rgb[:, :, :1]
        return np.asarray(Image.fromarray(image_rgb).convert("L"))[..., None]

    def _run_window(self, samples: list[dict[str, Any]], batch_size: int) -> list[Instances]:
        """Run the pictures of equal size together, and give the results in the pictures' order."""
        of_size: dict[torch.Size, list[int]] = {}
        for index, sample in enumerate(samples):
            of_size.setdefault(sample["image"].shape, []).append(index)
        found: dict[int, Instances] = {}
        for indices in of_size.values():
            for start in range(0, len(indices), batch_size):
                batch = indices[start : start + batch_size]
                found |= zip(batch, self._run([samples[i] for i in batch]), strict=True)
        return [found[index] for index in range(len(samples))]

    @torch.no_grad()
    def _run(self, samples: list[dict[str, Any]]) -> list[Instances]:
        outputs = self._network()(samples)
        for output in outputs:
            if "instances" not in output:
                raise ConfigError(
                    f"The detector gives {', '.join(output)}, not instances: only detectors of "
                    "objects can be used here."
                )
        return [output["instances"].to("cpu") for output in outputs]

    def _network(self) -> nn.Module:
        if not self.optimize:
            return self.model
        with self._lock:
            tensors = [*self.model.parameters(), *self.model.buffers()]
            state = _state_of(tensors)
            if self._faster is None or self._copied[1] != state:
                self._copied = tensors, state  # the tensors, so that none gets another's id
                self._faster = optimize_for_inference(self.model, dtype=self.dtype)
            return self._faster

    def _result(self, picture: Picture, instances: Instances) -> Result:
        order = instances.scores.argsort(descending=True, stable=True)
        found = instances[order]
        masks = found.get("pred_masks") if found.has("pred_masks") else None
        points = found.get("pred_keypoints") if found.has("pred_keypoints") else None
        return Result(
            boxes=found.pred_boxes.tensor.float(),
            scores=found.scores.float(),
            labels=found.pred_classes.to(torch.int64),
            image=as_uint8(picture.pixels),
            class_names=self.class_names,
            path=picture.path,
            masks=None if masks is None else getattr(masks, "tensor", masks) > 0,
            keypoints=None if points is None else points.float(),
            category_ids=self.category_ids,
            frame=picture.frame,
            metadata=self.metadata,
        )

    def __repr__(self) -> str:
        names = printable(", ".join(self.class_names[:3])) + (
            ", ..." if len(self.class_names) > 3 else ""
        )
        known = f"{len(self.class_names)} classes: {names}" if names else "classes without names"
        source = self.checkpoint or os.fspath(self.origin)
        where = f", from {source}" if source else ""
        return f"Detector({type(self.model).__name__}, {known}, on {self.device}{where})"


def _state_of(tensors: Iterable[Tensor]) -> Hashable:
    """Tell one state of tensors from the next, without reading them."""
    return tuple((id(t), t.data_ptr(), 0 if t.is_inference() else t._version) for t in tensors)
