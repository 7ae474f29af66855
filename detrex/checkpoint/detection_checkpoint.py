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
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager
from fvcore.common.checkpoint import Checkpointer
from torch import nn

from detrex.checkpoint import digests
from detrex.checkpoint.download import shown
from detrex.checkpoint.finite import require_finite
from detrex.checkpoint.loading import fit_state_dict, load_init_checkpoint
from detrex.checkpoint.placement import load_values
from detrex.checkpoint.plain_values import plain
from detrex.checkpoint.reading.state_dict import read_checkpoint, tensors_of
from detrex.checkpoint.report import LoadReport, examples
from detrex.checkpoint.runs import PERIODIC, RUN_KEY, earlier_name, origin_of, written_at
from detrex.errors import CheckpointError, ConfigError
from detrex.files import UNFINISHED, write_atomically, writing

logger = logging.getLogger(__name__)

IN_PARTS = ".dcp"
"""How the name of a folder ends that is a checkpoint in parts; see `detrex.checkpoint.sharded`."""

_TAG = "last_checkpoint"
# What `load_state_dict` of the many kinds of state raises for another's.
_UNFIT = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


class DetectionCheckpointer(Checkpointer):
    """Save, resume and load a detector together with the state of its training.

    It takes the place of detectron2's class of the same name, in its hooks too
    (``PeriodicCheckpointer``, ``BestCheckpointer``), and differs in that

    * saving is atomic;
    * resuming passes over a file that is damaged, is not what its digest says or holds NaN in its
      weights, their average or the optimizer, with a warning, to the newest complete one;
    * after `follow` it resumes from the checkpoints of one run, and no other's is written over;
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
            save_dir: the local folder of the checkpoints; nothing is saved when it is empty.
            save_to_disk: whether this process writes; by default the main process does.
            checkpointables: objects with ``state_dict()`` and ``load_state_dict()``, by the names
                that they have in the file.
        """
        writes = comm.is_main_process() if save_to_disk is None else save_to_disk
        super().__init__(model, os.fspath(save_dir), save_to_disk=writes, **checkpointables)
        self.path_manager = PathManager
        self.notes: dict[str, Any] = {}
        self.on_weights: Callable[[Mapping[str, Any], LoadReport], None] | None = None
        self._takes_unnamed = True
        self.resumed = ""  # the file, once there is one
        self._damaged: set[str] = set()

    def follow(self, run: Mapping[str, Any], takes_unnamed: bool = False) -> None:
        """Belong to one run from now on, whose identity every checkpoint gets.

        Args:
            run: plain numbers and strings, ``"id"`` and ``"started"`` (seconds since 1970) among
                them.
            takes_unnamed: whether checkpoints without an identity count as that run's.
        """
        self.notes[RUN_KEY] = dict(run)
        self._takes_unnamed = takes_unnamed

    def save(self, name: str, **kwargs: Any) -> None:
        """Write ``<save_dir>/<name>.pth`` and make it the one to resume from.

        Args:
            name: the file's name without its ending. A name that ends in ``best`` is not resumed
                from: it is where a run was best, not where it stopped.
            kwargs: what else to save, such as ``iteration``.

        Raises:
            ConfigError: the name leads out of the folder.
            RunError: the file cannot be written.
        """
        if not self.save_dir or not self.save_to_disk:
            return
        self.write(self.named(name, ".pth"), self.content() | kwargs)

    def named(self, name: str, ending: str) -> Path:
        """Give the path of a checkpoint.

        Args:
            name: the checkpoint's name.
            ending: what comes behind it.

        Raises:
            ConfigError: the name leads out of the folder.
        """
        if not name or name != os.path.basename(name):
            raise ConfigError(
                f"the checkpoint's name {name!r} must be a bare file name: set "
                "train.checkpointer.file_prefix to one without a folder"
            )
        return Path(self.save_dir) / f"{name}{ending}"

    def content(self) -> dict[str, Any]:
        """Give what a checkpoint of now holds: notes, model and checkpointables."""
        state = {key: plain(value.state_dict()) for key, value in self.checkpointables.items()}
        return {**self.notes, "model": self.model.state_dict(), **state}

    def write(self, file: Path, content: dict[str, Any]) -> None:
        """Write a checkpoint as one file, and make it the one to resume from; see `save`.

        Args:
            file: see `named`.
            content: whole tensors and plain values.
        """
        file.parent.mkdir(parents=True, exist_ok=True)
        digests.remove_orphans(file.parent)
        logger.info("Saving checkpoint to %s", file)
        with writing(file):
            self.make_room(file)
            digests.write_with_digest(file, lambda stream: torch.save(content, stream))
        if not file.stem.endswith("best"):
            self.tag_last_checkpoint(file.name)

    def finish(self) -> None:
        """Wait for what is being written in the background: here, nothing is."""

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Name, in the file ``last_checkpoint``, the checkpoint to resume from."""
        text, file = last_filename_basename.encode(), Path(self.save_dir) / _TAG
        with writing(file):
            write_atomically(file, lambda stream: stream.write(text))

    def keep_newest(self, count: int, prefix: str = "model") -> None:
        """Remove all periodic checkpoints of this run but the newest, and their digests.

        Args:
            count: how many stay, at least 1; the one to resume from always does.
            prefix: how their names begin.
        """
        name = re.compile(rf"{re.escape(prefix)}_\d{{7,}}")
        files = [f for f in self._files() if name.fullmatch(f.stem) and self._is_own(f)]
        for file in [f for f in files if str(f) not in self._damaged][count:]:
            if origin_of(file).readable and str(file) != self.get_checkpoint_file():
                try:
                    remove(file)
                except OSError as error:
                    logger.warning("%s cannot be removed (%s)", file, error.strerror)

    def has_checkpoint(self) -> bool:
        """Tell whether the folder holds a checkpoint to resume from, complete or not."""
        return bool(self.checkpoint_files())

    def get_checkpoint_file(self) -> str:
        """Name the checkpoint to resume from, without looking into it.

        Returns:
            The path of the one that ``last_checkpoint`` names, else of the newest; empty when
            there is none.
        """
        return next(iter(self.checkpoint_files()), "")

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
        file, told = "", ""
        checkpoint: dict[str, Any] = {}
        mistake: Exception | None = None
        if resume and comm.is_main_process():
            try:
                file, checkpoint = self._newest_complete()
            except Exception as error:  # the others wait for the file
                mistake, told = error, str(error) or type(error).__name__
        file, told = comm.all_gather((file, told))[0]
        if told:
            raise mistake or CheckpointError(told)
        self.resumed = file
        if not file:
            return self.load(path, checkpointables=[])
        return self._resume(file, checkpoint or self.read(file))

    def read(self, file: str) -> dict[str, Any]:
        """Read a checkpoint of the folder, for `resume_or_load`."""
        return read_checkpoint(file)

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
        known = [name for name in names if name in checkpoint]
        return self._load_state(checkpoint, known, shown(os.fspath(path)))

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
        load_values(self.model, values)
        logger.info("Resuming from %s", report.summary())
        for name in self.checkpointables.keys() - checkpoint.keys():
            logger.warning("%s holds no %r, which starts afresh", file, name)
        known = self.checkpointables.keys() & checkpoint.keys()
        rest = self._load_state(checkpoint, known, file)
        if not isinstance(iteration := rest.get("iteration", -1), int):
            raise CheckpointError(
                f"{file} holds a {type(iteration).__name__} as its 'iteration', expected an "
                "integer: resume from another checkpoint, or start without --resume"
            )
        return rest

    def _load_state(
        self, checkpoint: dict[str, Any], names: Iterable[str], file: str
    ) -> dict[str, Any]:
        if "model" not in checkpoint:
            return {}
        rest = {name: value for name, value in checkpoint.items() if name != "model"}
        for name in names:
            try:
                self.checkpointables[name].load_state_dict(rest.pop(name))
            except CheckpointError:
                raise
            except _UNFIT as error:
                reason = " ".join(f"{type(error).__name__}: {error}".split())[:160]
                raise CheckpointError(
                    f"the {name} in {file} does not fit this run ({reason}): resume with the "
                    "config of that run, optimizer above all, or start from its weights alone by "
                    "train.init_checkpoint in another train.output_dir"
                ) from error
        return rest

    def _newest_complete(self) -> tuple[str, dict[str, Any]]:
        candidates = self.checkpoint_files()
        if others := [f.name for f in self._files() if f.exists() and str(f) not in candidates]:
            logger.warning(
                "Passing over what is no checkpoint of this run in %s (%d): %s",
                *(self.save_dir, len(others), examples(others)),
            )
        for file in candidates:
            try:
                checkpoint = self.read(file)
                self._require_finite(checkpoint, file)
                return file, checkpoint
            except CheckpointError as error:
                logger.warning("Passing over a checkpoint: %s", error)
                self._damaged.add(file)
        if candidates:
            raise CheckpointError(
                f"none of the {len(candidates)} checkpoints in {self.save_dir} can be read, so "
                "there is nothing to resume: remove them, or start without --resume"
            )
        return "", {}

    def _require_finite(self, checkpoint: Mapping[str, Any], file: str) -> None:
        trainer, built = checkpoint.get("trainer"), self.model.state_dict()
        optimizer = trainer.get("optimizer", {}) if isinstance(trainer, Mapping) else {}
        average = checkpoint.get("ema_state", {})
        for table in (checkpoint.get("model", checkpoint), average, {"optimizer": optimizer}):
            require_finite(table, file, built)

    def checkpoint_files(self) -> list[str]:
        """List the checkpoints to resume from, the one that was tagged first, then new to old."""
        files = [file for file in self._files() if self._is_own(file)]
        tag = Path(self.save_dir) / _TAG
        try:
            name = tag.read_text(errors="replace").strip() if tag.is_file() else ""
        except OSError as error:
            logger.warning("%s cannot be read (%s): the newest counts", tag, error.strerror)
            name = ""
        tagged = tag.parent / name
        # False for any name that cannot be, too
        there = os.path.isfile(tagged) or (tagged.suffix == IN_PARTS and tagged.is_dir())
        if self.save_dir and there and self._is_own(tagged, tagged=True):
            files = [tagged, *(file for file in files if file != tagged)]
        return [str(file) for file in files]

    def _files(self) -> list[Path]:
        """Files that are named like a checkpoint to resume from, new to old."""
        folder = Path(self.save_dir)
        if not self.save_dir or not folder.is_dir():
            return []
        named = (*folder.glob("*.pth"), *folder.glob(f"*{IN_PARTS}"))
        files = [file for file in named if PERIODIC.search(file.stem)]
        return sorted(files, key=lambda f: (written_at(f), f.name), reverse=True)

    def _is_own(self, file: Path, tagged: bool = False) -> bool:
        """Whether a file is a checkpoint of this run, as far as can be told; of any without one."""
        origin, run = origin_of(file), self.notes.get(RUN_KEY)
        if not origin.readable:  # a damaged one of this run, if it is not older
            return run is None or written_at(file) >= run.get("started", 0.0)
        if run is None or (self._takes_unnamed and not origin.run):
            return tagged or origin.of_run
        return origin.run == run["id"]

    def make_room(self, file: Path) -> None:
        """Give what is in the place of a checkpoint another name, unless it is of this run."""
        is_kind = file.is_dir() == (file.suffix == IN_PARTS)
        if not file.exists() or (is_kind and self._is_own(file)):
            return
        moved = earlier_name(file, origin_of(file).run)
        digests.move(file, moved)
        logger.warning("%s is no checkpoint of this run: it is named %s now", file, moved.name)


def remove(file: Path) -> None:
    """Remove a checkpoint, and its digest; of a folder no part is left under its name."""
    if file.is_symlink() or not file.is_dir():
        digests.remove(file)
        return
    moved = file.rename(file.with_name(f"{file.name}.removed{UNFINISHED}"))
    shutil.rmtree(moved)
