"""The end of a run that was asked to stop: a checkpoint of its last step, on all ranks alike."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from detectron2.engine import HookBase

from detrex.engine.checkpoints import Checkpoints
from detrex.engine.signals import StoppedBySignal, asked, finishing, name_of, stopped_by
from detrex.utils.presence import LostRankError, doing, wait_for_all

logger = logging.getLogger(__name__)

_PATIENCE = 10.0


class StopWhenAsked(HookBase):
    """Write a checkpoint at the end of a step in which any rank was asked to stop, and end.

    It is on all ranks, after the hook that writes checkpoints and before the one that evaluates.

    Args:
        checkpoints: the hook that writes checkpoints.
    """

    part = "checkpoints"

    def __init__(self, checkpoints: Checkpoints) -> None:
        self.checkpoints = checkpoints

    def after_step(self) -> None:
        """Stop, where it was asked for and there are steps left to take.

        Raises:
            StoppedBySignal: the checkpoint is written.
        """
        signum = self.trainer.stop_signal
        if signum and self.trainer.iter + 1 < self.trainer.max_iter:
            raise self._stopped(signum)

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Stop likewise in a block between two steps, which a signal may leave at once.

        Raises:
            StoppedBySignal: it came, and the checkpoint is written.
        """
        try:
            yield
        except StoppedBySignal:
            raise self._stopped(asked()) from None

    def _stopped(self, signum: int) -> StoppedBySignal:
        # Where all steps are taken, the trainer counts one more, and the last one is saved.
        last = min(self.trainer.iter, self.trainer.max_iter - 1)
        with finishing(), doing("writing its last checkpoint"):
            self.checkpoints.save_now()
            try:
                # Whichever process ends first, its parent ends the others. A signal may have come
                # to one rank before a meeting of the evaluation, and to another within it.
                wait_for_all(_PATIENCE, "stopped")
            except LostRankError as error:
                logger.debug("%s", error)
        stopped = stopped_by(
            signum,
            f"Stopped by {name_of(signum)} after iteration {last}: --resume continues from its "
            f"checkpoint in {self.checkpoints.checkpointer.save_dir}.",
        )
        logger.warning("%s", stopped)
        return stopped
