"""What a run does about pictures that cannot be read: it ends, or leaves them out and counts them.

A mapper under `MarkBadPictures` gives a `BadPicture` in the place of a sample, and so carries the
sentence out of a worker process; `ReadableBatches`, around the loader, raises it or leaves it out.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from detectron2.data import DatasetMapper
from detectron2.utils import comm

from detrex.data.outlines import crop_without_shapely
from detrex.data.picture_files import require_file, shown, without_ghostscript
from detrex.data.pictures import check_image_size, read_image, refuse_wide
from detrex.data.worker_notes import WorkerNotes
from detrex.errors import ConfigError, DetrexError, PictureError, did_you_mean, first_line

logger = logging.getLogger(__name__)

POLICIES = ("error", "skip")
"""The values of ``dataloader.on_bad_image``."""

_MOST_NAMED = 5
_PICTURES = ("file_name", "sem_seg_file_name", "pan_seg_file_name")


class BadPicture(dict[str, Any]):
    """Stands for a sample whose picture cannot be used.

    Attributes:
        error: why not, as text.
    """

    def __init__(self, record: Mapping[str, Any], error: PictureError) -> None:
        """Keep of a record what tells which image it is.

        Args:
            record: a detectron2 dict.
            error: why its picture cannot be used.
        """
        kept = ("file_name", "image_id", "height", "width")
        super().__init__({key: record[key] for key in kept if key in record})
        self.error = str(error)


class MarkBadPictures:
    """A mapper that answers with a `BadPicture` where another one fails because of the picture.

    Args:
        mapper: any callable from a record to a sample. detectron2's own, which clips pictures of
            more than 8 bits, is kept from them, and crops masks without the package shapely.
    """

    def __init__(self, mapper: Callable[[dict[str, Any]], Any]) -> None:
        self.mapper = mapper

    def __call__(self, record: dict[str, Any]) -> Any:
        """Map a record.

        Returns:
            What the mapper returns, or a `BadPicture`.

        Raises:
            ConfigError: the mapper needs a package that is not installed.
        """
        try:
            without_ghostscript()
            for key in _PICTURES:
                if record.get(key):
                    require_file(record[key])
            if isinstance(self.mapper, DatasetMapper):
                refuse_wide(record["file_name"], "detectron2's DatasetMapper")
                crop_without_shapely()
            return self.mapper(record)
        except PictureError as error:
            return BadPicture(record, error)
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"{type(self.mapper).__name__} needs the package {error.name}, which is not "
                f"installed: pip install {error.name}."
            ) from error
        except Exception as error:
            reason = self._blame(record, error)
            if reason is None:
                raise
            return BadPicture(record, reason)

    def _blame(self, record: dict[str, Any], error: Exception) -> PictureError | None:
        """Find out by a second reading whether it was the picture that made a mapper fail."""
        if "file_name" not in record:
            return None
        try:
            image = read_image(record["file_name"])
            check_image_size(dict(record), image)
        except PictureError as reason:
            return reason
        if not isinstance(self.mapper, DatasetMapper):
            return None
        height, width = image.shape[:2]
        return PictureError(
            f"{shown(record['file_name'])}, {width} x {height} pixels (width x height), cannot be "
            f"augmented or resized ({type(error).__name__}: {first_line(error)})."
        )


class ReadableBatches:
    """A loader's batches without the pictures that cannot be read, or the error of the first.

    Attributes of the loader, such as ``seek``, are this object's too.

    Attributes:
        left_out: how often each file was left out since the last `report`.
        reasons: why, a sentence for each file.
        kept: how many samples were yielded since then.

    Args:
        loader: an iterable over batches, lists in which a `BadPicture` may stand.
        key: the loader's place in the config, for messages.
        on_bad_image: ``"error"`` or ``"skip"``.
        notes: what its workers read, to say so where one of them is stuck or ends.
    """

    def __init__(
        self,
        loader: Iterable[Any],
        key: str,
        on_bad_image: str = "error",
        notes: WorkerNotes | None = None,
    ) -> None:
        self.loader, self.key, self.on_bad_image = loader, key, on_bad_image
        self.notes = notes
        self.left_out: Counter[str] = Counter()
        self.reasons: dict[str, str] = {}
        self.kept = 0

    def __getattr__(self, name: str) -> Any:
        if name == "loader":  # not yet set: being unpickled or copied
            raise AttributeError(name)
        return getattr(self.loader, name)

    def __len__(self) -> int:
        """The number of the loader's batches, with those that may be left out."""
        return len(self.loader)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[list[Any]]:
        """Yield batches; one of which nothing is left is passed over.

        Raises:
            PictureError: a picture cannot be read, and ``on_bad_image`` is ``"error"``.
            DetrexError: any other of the package's errors, from a worker process too, in one
                sentence.
            DataError: a worker gave no batch in time, or was ended.
        """
        # Started here and not by the first next(), so that it sees where seek() points now.
        return self._readable([iter(self.loader)])

    def _readable(self, batches: list[Iterator[Any]]) -> Iterator[list[Any]]:
        """Filter the batches of the one iterator in a list, which is dropped when this ends.

        A traceback that kept it alive would keep worker processes waiting.
        """
        try:
            while (batch := _next(batches, self.notes)) is not None:
                bad = [sample for sample in batch if isinstance(sample, BadPicture)]
                if bad:
                    self._note(bad)
                    batch = [sample for sample in batch if not isinstance(sample, BadPicture)]
                self.kept += len(batch)
                if batch:
                    yield batch
        finally:
            batches.clear()

    def _note(self, bad: list[BadPicture]) -> None:
        if self.on_bad_image == "error":
            raise PictureError(
                f"{bad[0].error.rstrip('.')} (dataloader.on_bad_image=skip goes on without such "
                "pictures)."
            )
        for picture in bad:
            name = str(picture.get("file_name") or f"image id {picture.get('image_id')}")
            if name not in self.reasons and len(self.reasons) < _MOST_NAMED:
                logger.warning("Left out: %s", picture.error)
            self.reasons[name] = picture.error
            self.left_out[name] += 1

    def report(self, meaning: str) -> None:
        """Say in one line, on the main process, what all processes left out, and begin anew.

        Every process has to call it.

        Args:
            meaning: what leaving them out means, the line's end.

        Raises:
            PictureError: no picture could be read at all.
        """
        counts: Counter[str] = Counter()
        kept = 0
        for left_out, number in comm.all_gather((self.left_out, self.kept)):
            counts.update(left_out)
            kept += number
        self.left_out, self.kept = Counter(), 0
        if not counts:
            return
        names = ", ".join(shown(name) for name in list(counts)[:_MOST_NAMED])
        more = ", ..." if len(counts) > _MOST_NAMED else ""
        if not kept:
            raise PictureError(
                f"none of the {len(counts)} pictures of {self.key} could be used ({names}{more}): "
                "correct the data set's image_root, or copy the pictures again."
            )
        if not comm.is_main_process():
            return
        logger.warning(
            "dataloader.on_bad_image=skip: %s left out %d picture(s) that cannot be used, %d "
            "time(s) (%s%s); %s",
            *(self.key, len(counts), sum(counts.values()), names, more, meaning),
        )


def checked_policy(value: Any) -> str:
    """Check ``dataloader.on_bad_image``.

    Args:
        value: from the config.

    Returns:
        The same.

    Raises:
        ConfigError: it is none of `POLICIES`.
    """
    if value not in POLICIES:
        raise ConfigError(
            f"dataloader.on_bad_image={value} is unknown: choose error (the run ends) or skip (the "
            f"picture is left out and counted).{did_you_mean(str(value), POLICIES)}"
        )
    return value


def _next(batches: list[Iterator[Any]], notes: WorkerNotes | None) -> list[Any] | None:
    """Take the next batch, None at the end; raise an error of ours as one sentence."""
    try:
        return next(batches[0], None)
    except DetrexError as error:
        lines = str(error).strip().splitlines()
        if not lines or not lines[0].startswith("Caught "):
            raise
        # torch's text for an error in a worker is a traceback with the error's own at its end.
        sentence: Exception = type(error)(lines[-1].partition(": ")[2] or lines[-1])
        error.with_traceback(None)
    except (RuntimeError, ConnectionError, EOFError) as error:
        stuck = notes.explain(error) if notes else None
        if stuck is None:
            raise
        sentence = stuck
        error.with_traceback(None)
    raise sentence
