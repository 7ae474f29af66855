"""Save and resume training runs, so that a run killed at any moment can be continued.

A checkpoint is ``{"model", <checkpointables: "trainer", "ema_state", ...>, "iteration"}``, the
layout of detectron2 and the original detrex, and beside these ``"class_names"`` where they are
known. It is written beside its place, flushed to the disk and then renamed, so that under its own
name it is complete or absent; its digest (see `detrex.checkpoint.digests`) and the file
``last_checkpoint``, which names it, follow in the same way.
"""

import logging
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager
from fvcore.common.checkpoint import Checkpointer
from torch import nn

from detrex.checkpoint.digests import remove_orphans, write_with_digest
from detrex.checkpoint.download import shown
from detrex.checkpoint.finite import require_finite
from detrex.checkpoint.loading import fit_state_dict, load_init_checkpoint
from detrex.checkpoint.reading.state_dict import read_checkpoint, tensors_of
from detrex.checkpoint.report import LoadReport, examples
from detrex.errors import CheckpointError
from detrex.files import UNFINISHED, write_atomically

logger = logging.getLogger(__name__)

_TAG = "last_checkpoint"
_PERIODIC = re.compile(r"_(\d+|final)$")


class DetectionCheckpointer(Checkpointer):
    """Save, resume and load a detector together with the state of its training.

    It takes the place of detectron2's class of the same name, in its hooks too
    (``PeriodicCheckpointer``, ``BestCheckpointer``), and differs in that

    * saving is atomic;
    * resuming passes over a file that is damaged, is not what its digest says or holds NaN weights,
      with a warning, to the newest complete one;
    * weights of other libraries are matched by their names, and too poor a match is an error
      (`detrex.checkpoint.load_init_checkpoint`);
    * what is in `notes`, plain numbers, strings and lists, is saved with every checkpoint;
    * `on_weights`, where it is set, is called with what a file of weights holds and the report on
      it, when `load` has loaded it.
    """

    def __init__(
        self,
        model: nn.Module,
        save_dir: str | os.PathLike[str] = "",
        *,
        save_to_disk: bool | None = None,
        **checkpointables: Any,
    ) -> None:
        """Bind the checkpointer to what it saves.

        Args:
            model: the detector; a wrapper such as DistributedDataParallel is taken off.
            save_dir: the local folder of the checkpoints, made when the first is saved; nothing
                is saved when it is empty.
            save_to_disk: whether this process writes; by default the main process does.
            checkpointables: objects with ``state_dict()`` and ``load_state_dict()``, by the names
                that they have in the file.
        """
        writes = comm.is_main_process() if save_to_disk is None else save_to_disk
        super().__init__(model, os.fspath(save_dir), save_to_disk=writes, **checkpointables)
        self.path_manager = PathManager
        self.notes: dict[str, Any] = {}
        self.on_weights: Callable[[Mapping[str, Any], LoadReport], None] | None = None

    def save(self, name: str, **kwargs: Any) -> None:
        """Write ``<save_dir>/<name>.pth`` and make it the one to resume from.

        Args:
            name: the file's name without its ending. A name that ends in ``best`` is not resumed
                from: it is where a run was best, not where it stopped.
            kwargs: what else to save, such as ``iteration``.

        Raises:
            ValueError: the name leads out of the folder.
        """
        if not self.save_dir or not self.save_to_disk:
            return
        if not name or name != os.path.basename(name):
            raise ValueError(f"the checkpoint's name {name!r} must be a bare file name")
        content = {**self.notes, "model": self.model.state_dict()}
        content |= {key: value.state_dict() for key, value in self.checkpointables.items()}
        folder = Path(self.save_dir)
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.glob(f"*{UNFINISHED}"):
            leftover.unlink()
        remove_orphans(folder)
        file = folder / f"{name}.pth"
        logger.info("Saving checkpoint to %s", file)
        write_with_digest(file, lambda stream: torch.save(content | kwargs, stream))
        if not name.endswith("best"):
            self.tag_last_checkpoint(file.name)

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Name, in the file ``last_checkpoint``, the checkpoint to resume from."""
        text = last_filename_basename.encode()
        write_atomically(Path(self.save_dir) / _TAG, lambda stream: stream.write(text))

    def has_checkpoint(self) -> bool:
        """Tell whether the folder holds a checkpoint to resume from, complete or not."""
        return bool(self._candidates())

    def get_checkpoint_file(self) -> str:
        """Name the checkpoint to resume from, without looking into it.

        Returns:
            The path of the one that ``last_checkpoint`` names, else of the newest; empty when
            there is none.
        """
        return next(iter(self._candidates()), "")

    def resume_or_load(
        self, path: str | os.PathLike[str], *, resume: bool = True
    ) -> dict[str, Any]:
        """Continue the run in the folder, or start one from a weights file.

        All processes of a distributed run continue from the file that the main process chose.

        Args:
            path: the weights to start from where there is nothing to continue; may be empty.
            resume: whether to continue with the newest complete checkpoint, if there is any.

        Returns:
            What the checkpoint holds beside the model and the checkpointables, such as
            ``iteration``.

        Raises:
            CheckpointError: every checkpoint in the folder is damaged, the one to resume is of
                another model, or the weights to start from do not fit (see `load`).
        """
        choose = resume and comm.is_main_process()
        file, checkpoint = self._newest_complete() if choose else ("", {})
        file = comm.all_gather(file)[0]
        if not file:
            return self.load(path, checkpointables=[])
        return self._resume(file, checkpoint or read_checkpoint(file))

    def load(
        self,
        path: str | os.PathLike[str],
        checkpointables: list[str] | None = None,
        *,
        new_heads: bool = True,
    ) -> dict[str, Any]:
        """Load a weights file of any kind into the model, and the checkpointables that it holds.

        Args:
            path: a file or an address; when empty nothing is loaded.
            checkpointables: the names of those to load; by default all that the file has.
            new_heads: whether tensors of another shape in the file, such as the heads of another
                number of classes, may keep the values that the model was built with.

        Returns:
            What a checkpoint holds beside the model and what was loaded.

        Raises:
            CheckpointError: the file cannot be read, or does not fit the model; with ``new_heads``
                False, a tensor has another shape.
        """
        if not path or not os.fspath(path):
            logger.info("No weights are given: the model keeps those that it was built with")
            return {}
        checkpoint = read_checkpoint(path)
        if not new_heads:
            self._require_heads(checkpoint, shown(os.fspath(path)))
        report = load_init_checkpoint(self.model, checkpoint, name=shown(os.fspath(path)))
        if self.on_weights is not None:
            self.on_weights(checkpoint, report)
        names = self.checkpointables if checkpointables is None else checkpointables
        return self._load_state(checkpoint, [name for name in names if name in checkpoint])

    def _require_heads(self, checkpoint: dict[str, Any], file: str) -> None:
        tensors = tensors_of(checkpoint.get("model", checkpoint), file)
        _, report = fit_state_dict(self.model, tensors, source=file)
        if report.mismatched:
            in_file, in_model = report.shapes[0]
            raise CheckpointError(
                f"{file} is of another model than the config describes: {report.mismatched[0]!r} "
                f"(first of {len(report.mismatched)}) has the shape {tuple(in_file)} there and "
                f"{tuple(in_model)} here: take the config of that run, model.num_classes above all"
            )

    def _resume(self, file: str, checkpoint: dict[str, Any]) -> dict[str, Any]:
        values, report = fit_state_dict(
            self.model, tensors_of(checkpoint.get("model", checkpoint), file), source=file
        )
        if report.missing or report.mismatched:
            raise CheckpointError(
                f"{file} is of another model than the config describes: it lacks "
                f"{examples(report.missing)}, and has another shape for "
                f"{examples(report.mismatched)}: resume with the config of that run, or start "
                "without --resume in another folder"
            )
        self.model.load_state_dict(values, strict=False)
        logger.info("Resuming from %s", report.summary())
        for name in self.checkpointables.keys() - checkpoint.keys():
            logger.warning("%s holds no %r, which starts afresh", file, name)
        return self._load_state(checkpoint, self.checkpointables.keys() & checkpoint.keys())

    def _load_state(self, checkpoint: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
        if "model" not in checkpoint:
            return {}
        rest = {name: value for name, value in checkpoint.items() if name != "model"}
        for name in names:
            self.checkpointables[name].load_state_dict(rest.pop(name))
        return rest

    def _newest_complete(self) -> tuple[str, dict[str, Any]]:
        candidates = self._candidates()
        for file in candidates:
            try:
                checkpoint = read_checkpoint(file)
                for table in (checkpoint.get("model", checkpoint), checkpoint.get("ema_state", {})):
                    require_finite(table, file, self.model.state_dict())
                return file, checkpoint
            except CheckpointError as error:
                logger.warning("Passing over a checkpoint: %s", error)
        if candidates:
            raise CheckpointError(
                f"none of the {len(candidates)} checkpoints in {self.save_dir} can be read, so "
                "there is nothing to resume: remove them, or start without --resume"
            )
        return "", {}

    def _candidates(self) -> list[str]:
        """List the checkpoints to resume from, the one that was tagged first, then new to old."""
        folder = Path(self.save_dir)
        if not self.save_dir or not folder.is_dir():
            return []
        periodic = (file for file in folder.glob("*.pth") if _PERIODIC.search(file.stem))
        files = sorted(periodic, key=lambda f: (f.stat().st_mtime_ns, f.name), reverse=True)
        tag = folder / _TAG
        if tag.is_file():
            tagged = folder / tag.read_text(errors="replace").strip()
            if os.path.isfile(tagged):  # False for any name that cannot be, too
                files = [tagged, *(file for file in files if file != tagged)]
        return [str(file) for file in files]
