"""Checkpoints of which each rank writes and reads its part, while the training goes on.

``model_0000099.dcp`` is a folder of `torch.distributed.checkpoint` (its layout is in
`detrex.checkpoint.reading.sharded_folders`), written under another name and renamed when all ranks
are done. Whatever reads weights files reads it too, with any number of processes; the last
checkpoint of a run is one file.
"""

import logging
import os
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from detectron2.utils import comm
from torch import Tensor, nn
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.tensor import DTensor
from torch.distributed.tensor import empty as empty_sharded

from detrex.checkpoint.detection_checkpoint import IN_PARTS, DetectionCheckpointer, remove
from detrex.checkpoint.digests import write_with_digest
from detrex.checkpoint.finite import require_finite
from detrex.checkpoint.placement import is_sharded, whole_tensor
from detrex.checkpoint.reading.sharded_folders import (
    METADATA,
    REST,
    Part,
    ShardedFolder,
    is_sharded_folder,
    split_sharded,
)
from detrex.checkpoint.reading.state_dict import read_checkpoint
from detrex.errors import CheckpointError
from detrex.files import UNFINISHED, sync_folder, writing

logger = logging.getLogger(__name__)


class ShardedCheckpointer(DetectionCheckpointer):
    """Save and resume a sharded model; `save` and `resume_or_load` are called by all ranks.

    A checkpoint is written by a thread, from a copy in the memory of each rank's machine. One is
    written at a time: the next waits for it, and `finish` does.
    """

    def __init__(
        self,
        model: nn.Module,
        save_dir: str | os.PathLike[str] = "",
        *,
        asynchronous: bool = True,
        **options: Any,
    ) -> None:
        """Bind the checkpointer to what it saves.

        Args:
            model: a model whose parameters are sharded.
            save_dir: as of `DetectionCheckpointer`, on a disk that all ranks share.
            asynchronous: whether training goes on while a checkpoint is written.
            options: see `DetectionCheckpointer`.
        """
        super().__init__(model, save_dir, **options)
        self.asynchronous = asynchronous
        self._mesh = next(p.device_mesh for p in model.parameters() if isinstance(p, DTensor))
        self._pending: tuple[Path, Future[Any]] | None = None
        self._group: Any = None

    def save(self, name: str, **kwargs: Any) -> None:
        """Write ``<save_dir>/<name>.dcp``; of a name that ends in ``final`` or ``best`` one file.

        Args:
            name: the checkpoint's name without its ending.
            kwargs: what else to save, such as ``iteration``.

        Raises:
            CheckpointError: this checkpoint, or the one before, cannot be written.
            RunError: likewise, for a reason of the disk's.
            ConfigError: the name leads out of the folder.
        """
        self.finish()
        if not self.save_dir:
            return
        file = self.named(name, IN_PARTS)
        content = self.content() | kwargs
        if name.endswith(("final", "best")):
            whole = _gathered(content)
            if self.save_to_disk:
                self.write(file.with_suffix(".pth"), whole)
            return
        tensors, left = split_sharded(content, is_sharded)
        rest = BytesIO()
        if comm.is_main_process():
            logger.info("Saving checkpoint to %s", file)
            torch.save(left, rest)  # a copy: the training goes on
        writer = _FolderWriter(file, rest.getvalue(), self._make_place, self.tag_last_checkpoint)
        if self._group is None:  # of its own: its messages mix with those of the training
            self._group = dist.new_group(backend="gloo")
        saved: Any = dcp.async_save(tensors, storage_writer=writer, process_group=self._group)
        self._pending = file, getattr(saved, "upload_completion", saved)
        if not self.asynchronous:
            self.finish()

    def finish(self) -> None:
        """Wait until the checkpoint that is being written is in its place; all ranks call it.

        Raises:
            CheckpointError: it could not be written.
            RunError: likewise, for a reason of the disk's.
        """
        if self._pending is None:
            return
        (file, future), self._pending = self._pending, None
        try:
            future.result()
        except (Exception, dcp.CheckpointException) as error:  # of a disk, or a rank that is gone
            cause = _cause_of(error)
            with writing(file):
                if isinstance(cause, OSError):
                    raise cause from error
            raise CheckpointError(f"{file} could not be written: {_said(cause)}") from error

    def _make_place(self, file: Path) -> None:
        """Take a checkpoint away that is in the place of another, on the main process."""
        self.make_room(file)
        if file.exists():
            remove(file)

    def read(self, file: str) -> dict[str, Any]:
        """Read a checkpoint without what `_resume` loads by parts; the main process checks it."""
        if not is_sharded_folder(Path(file)):
            return read_checkpoint(file)
        folder = ShardedFolder(Path(file))
        if comm.is_main_process():
            for name in folder.entries:
                require_finite({name: folder.read(name)}, file, {})
        return folder.rest()

    def _resume(self, file: str, checkpoint: dict[str, Any]) -> dict[str, Any]:
        if is_sharded_folder(Path(file)):
            folder = ShardedFolder(Path(file))
            checkpoint = folder.rest()
            for name, tensor in self._load_parts(folder).items():
                folder.put(checkpoint, name, tensor)
        return super()._resume(file, checkpoint)

    def _load_parts(self, folder: ShardedFolder) -> dict[str, Tensor]:
        """Load each rank's part of every tensor, cut as FSDP cuts a parameter."""
        from torch.distributed.tensor import Shard

        tensors: dict[str, Any] = {
            name: empty_sharded(
                entry.shape, dtype=entry.dtype, device_mesh=self._mesh, placements=[Shard(0)]
            )
            for name, entry in folder.entries.items()
        }
        try:
            dcp.load(tensors, storage_reader=_SafeReader(folder))
        except (Exception, dcp.CheckpointException) as error:  # of any rank
            said = _said(_cause_of(error))
            raise CheckpointError(f"{folder.folder} cannot be loaded: {said}") from error
        return tensors


class _FolderWriter(dcp.FileSystemWriter):
    """Writes a folder under another name, and in the end all that makes it a checkpoint."""

    def __init__(
        self,
        file: Path,
        rest: bytes,
        make_place: Callable[[Path], None],
        tag: Callable[[str], None],
    ) -> None:
        self._unfinished = file.with_name(f"{file.name}{UNFINISHED}")
        super().__init__(self._unfinished)
        self._file, self._rest, self._make_place, self._tag = file, rest, make_place, tag

    def prepare_global_plan(self, plans: list[Any]) -> list[Any]:
        """Remove what killed processes have left, on the main process, before any rank writes."""
        for leftover in self._file.parent.glob(f"*{IN_PARTS}*{UNFINISHED}"):
            if leftover != self._unfinished:
                shutil.rmtree(leftover)
        for leftover in self._unfinished.iterdir():
            leftover.unlink()
        return super().prepare_global_plan(plans)

    def finish(self, metadata: Metadata, results: Any) -> None:
        """Write the index and the rest, on the main process when all ranks have written."""
        super().finish(metadata, results)
        index = self._unfinished / METADATA
        content = index.read_bytes()
        write_with_digest(index, lambda stream: stream.write(content))
        write_with_digest(self._unfinished / REST, lambda stream: stream.write(self._rest))
        self._make_place(self._file)
        self._unfinished.rename(self._file)
        sync_folder(self._file.parent)
        self._tag(self._file.name)


class _SafeReader(dcp.StorageReader):
    """Lets PyTorch plan what each rank reads, and reads it as data and nothing else."""

    def __init__(self, folder: ShardedFolder) -> None:
        self._folder = folder

    def read_metadata(self, *_args: Any, **_kwargs: Any) -> Metadata:
        """Describe the tensors."""
        table = {
            name: TensorStorageMetadata(
                TensorProperties(entry.dtype),
                torch.Size(entry.shape),
                [
                    ChunkStorageMetadata(torch.Size(part.offsets), torch.Size(part.sizes))
                    for part in entry.parts
                ],
            )
            for name, entry in self._folder.entries.items()
        }
        return Metadata(table)  # type: ignore[arg-type]

    def set_up_storage_reader(self, *_args: Any, **_kwargs: Any) -> None:
        """Do nothing: the folder is known."""

    def prepare_local_plan(self, plan: Any) -> Any:
        """Give a plan as it is."""
        return plan

    def prepare_global_plan(self, plans: Any) -> Any:
        """Give plans as they are."""
        return plans

    def read_data(self, plan: dcp.LoadPlan, planner: dcp.LoadPlanner) -> Any:
        """Read the parts that a rank needs."""
        for item in plan.items:
            name = item.storage_index.fqn
            value = self._folder.read_part(name, self._part(item.storage_index))
            for axis, (offset, size) in enumerate(
                zip(item.storage_offsets, item.lengths, strict=True)
            ):
                value = value.narrow(axis, offset, size)
            target = planner.resolve_tensor(item).detach()
            target.copy_(value)
            planner.commit_tensor(item, target)
        done = torch.futures.Future()  # type: ignore[var-annotated]
        done.set_result(None)
        return done

    def _part(self, index: MetadataIndex) -> Part:
        parts = self._folder.entries[index.fqn].parts
        return next(part for part in parts if part.offsets == tuple(index.offset or ()))

    def reset(self, *_args: Any) -> None:
        """Do nothing: a reader is for one folder."""

    @classmethod
    def validate_checkpoint_id(cls, _checkpoint_id: Any) -> bool:
        """Say that any folder is taken."""
        return True


@torch.no_grad()
def _gathered(content: Mapping[Any, Any]) -> dict[Any, Any]:
    """Gather all sharded tensors; they are kept on the main process only."""
    whole: dict[Any, Any] = {}
    for key, value in content.items():
        if isinstance(value, Mapping):
            whole[key] = _gathered(value)
        elif is_sharded(value):
            gathered = whole_tensor(value)
            whole[key] = gathered.cpu() if comm.is_main_process() else None
        else:
            whole[key] = value
    return whole


def _cause_of(error: BaseException) -> BaseException:
    """Take what a rank failed of out of what DCP raises."""
    failures = getattr(error, "failures", None)
    first: Any = next(iter(failures.values()), error) if failures else error
    return first[0] if isinstance(first, tuple) else first


def _said(cause: BaseException) -> str:
    return " ".join(str(cause).split())[:300] or type(cause).__name__
