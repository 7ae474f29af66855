"""The checkpointer of a run, when it saves, and what is said of the weights that it starts from."""

import functools
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from detectron2.engine import hooks
from detectron2.utils import comm
from omegaconf import DictConfig
from torch import nn

from detrex.checkpoint.detection_checkpoint import DetectionCheckpointer
from detrex.checkpoint.finite import non_finite
from detrex.checkpoint.reading.state_dict import tensors_of
from detrex.checkpoint.report import LoadReport, examples
from detrex.config import try_get_key
from detrex.config.pixel_statistics import takes_auto, unlike_weights
from detrex.detectors import published_statistics
from detrex.engine.fsdp import is_sharded
from detrex.engine.run_folder.lock import require_own
from detrex.errors import CheckpointError, NonFiniteLossError, RunError
from detrex.modeling import ema
from detrex.modeling.backbone.weights.origins import find_origin
from detrex.utils.dist import exchange, failing_together

logger = logging.getLogger(__name__)


class Checkpoints(hooks.PeriodicCheckpointer):
    """Save a run every so often and after its last iteration; it is a hook of all ranks.

    Of the run's checkpoints on the disk, whichever process wrote them, the newest are kept.
    """

    part = "checkpoints"

    def __init__(
        self,
        checkpointer: DetectionCheckpointer,
        period: int,
        max_to_keep: int | None = None,
        file_prefix: str = "model",
    ) -> None:
        """Bind the hook to what saves.

        Args:
            checkpointer: writes on the main process, or a part on each.
            period: iterations between checkpoints.
            max_to_keep: how many stay, beside the one of the end; None for all.
            file_prefix: how their names begin.
        """
        super().__init__(checkpointer, period, file_prefix=file_prefix)
        self.most = max_to_keep

    def after_step(self) -> None:
        """Save, where it is time to.

        Raises:
            NonFiniteLossError: the weights hold NaN or infinite values, so that nothing is saved.
            RunError: it cannot be written, or another run took the folder; raised on all ranks.
        """
        last = self.trainer.iter >= self.trainer.max_iter - 1
        if not last and (self.trainer.iter + 1) % self.period:
            return
        with failing_together():
            if comm.is_main_process():
                require_own(self.checkpointer.save_dir)
            if comm.is_main_process() or is_sharded(self.checkpointer.model):
                self._require_finite()
        exchange()  # what follows may be a call of all ranks
        with failing_together():
            self.step(self.trainer.iter)
            if self.most is not None and comm.is_main_process():
                self.checkpointer.keep_newest(self.most, self.file_prefix)
        exchange()

    def save_now(self) -> None:
        """Save after an iteration at which it is not time to; of a sharded model all ranks do.

        Raises:
            NonFiniteLossError: see `after_step`.
            RunError: likewise; raised here only.
        """
        last, main = self.trainer.iter, comm.is_main_process()
        saves = main or is_sharded(self.checkpointer.model)
        if saves and (last + 1) % self.period and last + 1 < self.max_iter:
            if main:
                require_own(self.checkpointer.save_dir)
            self._require_finite()
            self.checkpointer.save(f"{self.file_prefix}_{last:07d}", iteration=last)
            if main and self.most is not None:
                self.checkpointer.keep_newest(self.most, self.file_prefix)

    def after_train(self) -> None:
        """Save the final checkpoint that a kill prevented, and wait for what is being written.

        Raises:
            CheckpointError: it could not be written, and no other error ended the run.
            RunError: likewise.
        """
        self._make_up_for_final()
        try:
            self.checkpointer.finish()
        except (CheckpointError, RunError) as error:
            if self.trainer.iter >= self.trainer.max_iter:
                raise
            logger.warning("%s", error)

    def _make_up_for_final(self) -> None:
        """Save the end of a run that died after its last periodic checkpoint."""
        start, name = self.trainer.start_iter, f"{self.file_prefix}_final"
        resumed = Path(self.checkpointer.resumed)
        nothing_left = start == self.trainer.max_iter == self.trainer.iter
        if not nothing_left or resumed.stem in ("", name):
            return
        with failing_together():
            reached, self.trainer.iter = self.trainer.iter, start - 1
            try:
                self.checkpointer.save(name, iteration=start - 1)
            finally:
                self.trainer.iter = reached
        exchange()

    def _require_finite(self) -> None:
        if broken := non_finite(self.checkpointer.model.named_parameters()):
            raise NonFiniteLossError(
                f"Training stopped after iteration {self.trainer.iter}, whose step left NaN or "
                f"infinite values in the weights {examples(list(broken))}, so they are not saved: "
                "lower optimizer.lr, switch on train.clip_grad.enabled, or try "
                "train.amp.dtype=bfloat16 if mixed precision is on."
            )


def build_checkpointer(cfg: DictConfig, model: nn.Module, **parts: Any) -> DetectionCheckpointer:
    """Build what saves and loads a run.

    Args:
        cfg: ``train.output_dir``, ``train.model_ema`` and ``train.fsdp`` are read.
        model: the model, sharded by FSDP or not, and not wrapped in DDP.
        parts: what else is saved, by name.

    Returns:
        The checkpointer of the model, its EMA where that is on, and the parts.
    """
    parts |= ema.may_get_ema_checkpointer(cfg, model)
    checkpointer: DetectionCheckpointer
    if is_sharded(model):
        from detrex.checkpoint.sharded import ShardedCheckpointer

        asynchronous = bool(try_get_key(cfg, "train.fsdp.async_checkpoint", default=True))
        checkpointer = ShardedCheckpointer(
            model, cfg.train.output_dir, asynchronous=asynchronous, **parts
        )
    else:
        checkpointer = DetectionCheckpointer(model, cfg.train.output_dir, **parts)
    checkpointer.on_weights = functools.partial(_warn_of_origin, cfg, checkpointer.model)
    return checkpointer


def _warn_of_origin(
    cfg: DictConfig, model: nn.Module, content: Mapping[str, Any], report: LoadReport
) -> None:
    """Warn where weights were trained on other images or by other layers than the detector's."""
    file = report.source
    origin = find_origin(content, tensors_of(content, file))
    if origin is None and report.part and not takes_auto(cfg.model):
        for warning in unlike_weights(cfg, published_statistics(model.backbone)):
            logger.warning("train.init_checkpoint %s: %s", file, warning)
    if origin is not None and (differs := origin.differences_of_detector(model)):
        logger.warning("train.init_checkpoint %s was %s: %s", file, origin.name, differs)
