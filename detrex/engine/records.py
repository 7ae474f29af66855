"""What a run writes down: losses and metrics every so often, each once, whenever it was killed.

A checkpoint is written before the evaluation and the lines of its iteration, so that neither can
cost it. It holds the scalars that the next lines are made of, and a run that goes on from it first
does what was left to do: the evaluation, the line.
"""

import logging
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from detectron2.engine import HookBase, hooks
from detectron2.utils import comm
from detectron2.utils.events import EventStorage, EventWriter, TensorboardXWriter

from detrex.engine.distributed import broadcast_from_main
from detrex.files import writing
from detrex.utils.dist import exchange, failing_together
from detrex.utils.metrics_file import cut_metrics

logger = logging.getLogger(__name__)

_CLOCKS = {"time", "data_time", "eta_seconds"}  # of this process; no other goes on with them


class Evaluate(hooks.EvalHook):
    """Evaluate every ``eval_period`` iterations, and after the last where the run got there."""

    def is_due(self) -> bool:
        """Whether `after_step` evaluates in this iteration."""
        following = self.trainer.iter + 1
        return (
            self._period > 0
            and not following % self._period
            and following != (self.trainer.max_iter)
        )

    def after_train(self) -> None:
        """Evaluate, unless an error ended the run."""
        if self.trainer.iter >= self.trainer.max_iter:
            super().after_train()


class TensorboardWriter(TensorboardXWriter):
    """Write scalars and images for TensorBoard, and leave nothing in memory that a kill loses."""

    def start_at(self, iteration: int) -> None:
        """Let TensorBoard hide what an earlier process wrote from this iteration on."""
        if iteration > 0:
            self._writer_args["purge_step"] = iteration

    def write(self) -> None:
        """Write what is new since the last call.

        Raises:
            RunError: it cannot be written.
        """
        with writing(Path(self._writer_args["log_dir"]) / "events.out.tfevents"):
            super().write()
            self._writer.flush()


class Records(HookBase):
    """Let writers write every so often, after evaluations, and what a kill kept from being written.

    It is on all ranks, after the hook that evaluates; the writers are on the main one.
    """

    part = "records"

    def __init__(
        self,
        writers: Sequence[EventWriter],
        period: int,
        evaluate: Evaluate,
        metrics: Path,
        has_evaluator: bool = True,
    ) -> None:
        """Bind the hook to what it calls.

        Args:
            writers: called in this order; empty on other ranks.
            period: iterations between their calls.
            evaluate: the hook that evaluates.
            metrics: the file of `MetricsWriter`, which tells what was written.
            has_evaluator: whether evaluating gives anything.
        """
        self.writers = list(writers)
        self.period = period
        self.evaluate = evaluate
        self.metrics = metrics
        self.has_evaluator = has_evaluator
        self._written = -1
        self._resumed: dict[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        """Return what the next lines are made of: scalars, and what of them is written."""
        storage = getattr(self.trainer, "storage", None)
        if storage is None:
            return {}
        hints = storage.smoothing_hints()
        scalars = {
            name: [hints[name], _window(storage, name, self.period)]
            for name in storage.histories()
            if name not in _CLOCKS
        }
        return {
            "iteration": int(self.trainer.iter),
            "due": self._is_due(),
            "written": self._written,
            "scalars": scalars,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Keep what `state_dict` returned until the run starts."""
        self._resumed = state

    def before_train(self) -> None:
        """Take up the records at the checkpoint, and write what was left to write."""
        start, last = self.trainer.start_iter, self.trainer.start_iter - 1
        state, self._resumed = self._resumed, None
        with failing_together():
            there = self._lines_until(last, state) if comm.is_main_process() else False
        exchange()
        self._written = last
        if state is None or state["iteration"] != last:
            self._announce(start)
            return
        left = broadcast_from_main(bool(state["due"] and not there))
        if left or not state["due"]:
            self._written = state["written"]
        _restore(self.trainer.storage, state["scalars"], self._written)
        self._announce(last if left else start)
        if left:
            logger.info("The checkpoint was the last of iteration %d: its records follow.", last)
            self._finish(last, start)

    def _lines_until(self, last: int, state: dict[str, Any] | None) -> bool:
        """Cut the lines after the checkpoint; say whether its own is there, or isn't missed."""
        own = state is None or state["due"]
        missed = self.metrics.exists()
        lines = cut_metrics(self.metrics, lambda i: i < last or (i == last and own))
        return last in lines or not missed

    def _announce(self, start: int) -> None:
        for writer in self.writers:
            if isinstance(writer, TensorboardWriter):
                writer.start_at(start)

    def _finish(self, last: int, start: int) -> None:
        """Do what was left of the iteration that the checkpoint is of."""
        self.trainer.iter = self.trainer.storage.iter = last
        self.evaluate.after_step()
        self._write()
        self.trainer.iter = self.trainer.storage.iter = start

    def after_step(self) -> None:
        """Write, where it is time to.

        Raises:
            RunError: something cannot be written; raised on all ranks.
        """
        if self._is_due():
            self._write()

    def _is_due(self) -> bool:
        following = self.trainer.iter + 1
        return (
            following % self.period == 0
            or following == self.trainer.max_iter
            or (self.has_evaluator and self.evaluate.is_due())
        )

    def _write(self) -> None:
        with failing_together():
            for writer in self.writers:
                writer.write()
        exchange()
        self._written = int(self.trainer.iter)

    def after_train(self) -> None:
        """Write what came of the last evaluation, or came before an error, and close.

        Raises:
            RunError: it cannot be written, and no other error ended the run.
        """
        finished = self.trainer.iter >= self.trainer.max_iter
        # A line that a run that goes on has to write as a whole is not begun.
        begun = not finished and self._is_due() and self._written < self.trainer.iter
        try:
            for writer in [] if begun else self.writers:
                writer.write()
        except OSError as error:
            if finished:
                raise
            logger.warning("%s", error)
        finally:
            for writer in self.writers:
                with suppress(OSError):
                    writer.close()


def _window(storage: EventStorage, name: str, size: int) -> torch.Tensor:
    """The values of the last iterations: float64 ``(count, 2)``, value and iteration."""
    values = storage.history(name).values()[-storage.count_samples(name, size) :]
    return torch.tensor([[v, i] for v, i in values], dtype=torch.float64)


def _restore(storage: EventStorage, scalars: dict[str, Any], written: int) -> None:
    """Fill a fresh storage; what was written by then is no news to the writers."""
    for name, (smoothed, values) in scalars.items():
        for value, iteration in values.tolist():
            storage.put_scalar(name, value, smoothing_hint=smoothed, cur_iter=int(iteration))
    latest = storage.latest()
    for name in [name for name, (_, iteration) in latest.items() if iteration <= written]:
        del latest[name]
