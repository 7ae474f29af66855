"""One optimizer step: seed, forward, backward, agree on the losses, clip, step.

Whatever stops one rank while it loads a batch or computes its losses stops all ranks, with one
sentence: in every step they make the same calls of `exchange`, and gather the losses once.

Mixed precision, gradient accumulation and exact resumption live here; everything that happens
around the steps (schedules, checkpoints, evaluation, logs) is a hook of detectron2.
"""

import logging
import math
import time
import zlib
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from detectron2.engine import SimpleTrainer
from detectron2.utils import comm
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from detrex.data.worker_notes import explain_worker
from detrex.engine import signals
from detrex.engine.distributed import unwrap_ddp
from detrex.engine.fsdp import is_sharded, unfit_model
from detrex.engine.optimizer import in_implementation_of, require_settings
from detrex.errors import ConfigError, DetrexError, NonFiniteLossError
from detrex.utils.dist import came_by_exchange, exchange, failing_together
from detrex.utils.presence import LostRankError, explain, is_of_group, present
from detrex.utils.seeding import seed_everything
from detrex.utils.timeline import Timeline

AMP_DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}

_NORMALIZER = "loss_normalizer"  # RetinaNet and FCOS keep it out of their own state

logger = logging.getLogger(__name__)


class Trainer(SimpleTrainer):
    """A detectron2 trainer with mixed precision, clipping and accumulation, on any device.

    One iteration is one optimizer step. It takes ``accumulate_steps`` batches from the loader and
    averages their losses, so that for losses that are means over images it equals a step on one
    batch ``accumulate_steps`` times as large. (DINO normalizes by the number of objects in a batch,
    so there the two agree up to how evenly the objects are spread.)

    With a ``seed``, every iteration seeds all generators from ``(seed, iteration, rank)``: a run
    that is resumed from a checkpoint repeats the undisturbed run exactly.

    Args:
        model: takes a batch and returns a dict of scalar losses (or one scalar); on its device, and
            wrapped in DDP where there are several processes.
        dataloader: an endless iterable over batches.
        optimizer: a torch optimizer over the model's parameters.
        amp: run forward passes under autocast.
        clip_grad_params: keywords of ``torch.nn.utils.clip_grad_norm_`` (``max_norm``,
            ``norm_type``); None does not clip.
        grad_scaler: replaces the loss scaler that float16 autocast gets by default.
        amp_dtype: ``torch.float16`` (with loss scaling) or ``torch.bfloat16`` (without).
        accumulate_steps: batches per iteration.
        seed: the run's seed, at least 0; None leaves the generators alone.
        timeline: told what the time goes to; a new one by default.

    Raises:
        ConfigError: ``accumulate_steps`` is below 1.
    """

    def __init__(
        self,
        model: nn.Module,
        dataloader: Iterable[Any],
        optimizer: torch.optim.Optimizer,
        amp: bool = False,
        clip_grad_params: Mapping[str, Any] | None = None,
        grad_scaler: torch.amp.GradScaler | None = None,
        *,
        amp_dtype: torch.dtype = torch.float16,
        accumulate_steps: int = 1,
        seed: int | None = None,
        timeline: Timeline | None = None,
    ) -> None:
        if accumulate_steps < 1:
            raise ConfigError(
                f"train.accumulate_steps={accumulate_steps} is too small: expected at least 1."
            )
        super().__init__(model, dataloader, optimizer)
        self.amp = amp
        self.amp_dtype = amp_dtype
        self.clip_grad_params = dict(clip_grad_params) if clip_grad_params is not None else None
        self.accumulate_steps = accumulate_steps
        self.seed = seed
        self.stop_signal = 0
        self.timeline = timeline or Timeline()
        self.device_type = next(model.parameters()).device.type
        self.grad_scaler = grad_scaler or torch.amp.GradScaler(
            self.device_type, enabled=amp and amp_dtype is torch.float16
        )

    def train(self, start_iter: int, max_iter: int) -> None:
        """Run the loop; the package's own errors are logged as the sentences that they are.

        Args:
            start_iter: the first iteration.
            max_iter: one more than the last.

        Raises:
            LostRankError: another rank is gone, or did not come in time.
            DataError: a worker of the loader gave no batch in time, or was ended.
            StoppedBySignal: the run was asked to stop.
        """
        loop_logger = logging.getLogger("detectron2.engine.train_loop")
        loop_logger.addFilter(_needs_its_traceback)
        try:
            with signals.noted():
                super().train(start_iter, max_iter)
        except (DetrexError, RuntimeError) as error:
            sentence = explain(error) or explain_worker(error)
            if sentence is None and not isinstance(error, DetrexError):
                raise
            logger.error("%s", sentence or error)
            if isinstance(sentence, LostRankError) and signals.asked():
                raise signals.stopped_by(
                    signals.asked(),
                    f"Stopped by {signals.name_of(signals.asked())} within iteration {self.iter}, "
                    "of which other ranks are gone: --resume continues from the last checkpoint.",
                ) from None
            raise sentence or error from None
        finally:
            loop_logger.removeFilter(_needs_its_traceback)

    def run_step(self) -> None:
        """Take one optimizer step.

        Raises:
            NonFiniteLossError: a loss is NaN or infinite, on any rank; raised on all ranks, before
                the optimizer steps.
        """
        with self.timeline.during("step"):
            self._run_step()

    def _run_step(self) -> None:
        if here := present():
            here.doing = f"in iteration {self.iter}"
        with failing_together(), self.timeline.during("data"):
            batches = self._data_loader_iter  # starting it draws random numbers: before the seed
        if self.seed is not None:
            seed_everything(self.seed, self.iter, comm.get_rank())
        self.optimizer.zero_grad(set_to_none=True)
        sums: dict[str, Tensor] = {}
        data_seconds = 0.0
        for step in range(self.accumulate_steps):
            start = time.perf_counter()
            with failing_together(), self.timeline.during("data"):
                batch = next(batches)
            data_seconds += time.perf_counter() - start
            exchange()
            for name, loss in self._forward_backward(batch, step).items():
                sums[name] = sums[name] + loss if name in sums else loss
        self.after_backward()
        self._gather_and_record(sums, data_seconds)
        if self.clip_grad_params is not None:
            self.grad_scaler.unscale_(self.optimizer)
            self.clip_grads(self.model.parameters())
        self.grad_scaler.step(self.optimizer)
        self.grad_scaler.update()

    def _forward_backward(self, batch: Any, step: int) -> dict[str, Tensor]:
        """Add the gradients of one batch; ranks exchange them at the last batch only."""
        is_last = step == self.accumulate_steps - 1
        ddp = isinstance(self.model, DistributedDataParallel)
        autocast = torch.amp.autocast(self.device_type, self.amp_dtype, enabled=self.amp)
        with self.model.no_sync() if ddp and not is_last else nullcontext():
            # Of a sharded model the others gather weights and hear nothing: this rank ends alone.
            with nullcontext() if is_sharded(self.model) else failing_together(), autocast:
                losses = self._losses_of(batch)
            self._check_names(losses)
            total = torch.stack([loss.float() for loss in losses.values()]).sum()
            self.grad_scaler.scale(total / self.accumulate_steps).backward()
        return {name: loss.detach().float() for name, loss in losses.items()}

    def _losses_of(self, batch: Any) -> dict[str, Tensor]:
        try:
            losses = self.model(batch)
        except NonFiniteLossError as error:
            if came_by_exchange(error):
                raise
            raise NonFiniteLossError(
                f"Training stopped at iteration {self.iter}, whose losses cannot be computed on "
                f"rank {comm.get_rank()}: {error}"
            ) from error
        except RuntimeError as error:
            if is_sharded(self.model) and "DTensor" in str(error):
                raise unfit_model(self.model, error) from error
            raise
        return {"total_loss": losses} if isinstance(losses, Tensor) else losses

    def _check_names(self, losses: Iterable[str]) -> None:
        """Stop all ranks where they do not have the same losses: what they gather must fit."""
        if comm.get_world_size() == 1:
            return
        names = sorted(losses)
        digests = exchange(zlib.crc32(" ".join(names).encode()))
        if len(set(digests)) == 1:
            return
        first, *others = comm.all_gather(names)
        rank, other = next((r, other) for r, other in enumerate(others, 1) if other != first)
        differing = sorted(set(first) ^ set(other))
        raise DetrexError(
            f"Training stopped at iteration {self.iter}: ranks 0 and {rank} have different losses, "
            f"{', '.join(differing[:3])} on one of them only; let the model return the same losses "
            "in every step, 0 where there is nothing to score."
        )

    def _gather_and_record(self, sums: Mapping[str, Tensor], data_seconds: float) -> None:
        """Store the losses' means over the ranks; stop all ranks where one has a bad loss.

        With them the ranks learn which of them were asked to stop.
        """
        names = sorted(sums)
        own = torch.stack([sums[name] for name in names]) / self.accumulate_steps
        own = torch.cat([own, own.new_full((1,), signals.asked())])
        by_rank = [own]
        if comm.get_world_size() > 1:
            by_rank = [torch.empty_like(own) for _ in range(comm.get_world_size())]
            distributed.all_gather(by_rank, own)
        values = torch.stack(by_rank).tolist()
        self.stop_signal = max(int(row.pop()) for row in values)
        bad = [
            (rank, name, value)
            for rank, row in enumerate(values)
            for name, value in zip(names, row, strict=True)
            if not math.isfinite(value)
        ]
        if bad:
            raise NonFiniteLossError(self._describe_bad_losses(bad))
        columns = zip(*values, strict=True)
        means = {name: sum(of) / len(of) for name, of in zip(names, columns, strict=True)}
        means["total_loss"] = sum(means.values())
        self.storage.put_scalars(data_time=data_seconds, **means)

    def _describe_bad_losses(self, bad: list[tuple[int, str, float]]) -> str:
        rank, name, value = bad[0]
        others = list(dict.fromkeys(other for _, other, _ in bad if other != name))
        shown = ", ".join(others[:3]) + (", ..." if len(others) > 3 else "")
        also = f" (and {len(others)} more: {shown})" if others else ""
        return (
            f"Training stopped at iteration {self.iter}: the loss {name} became {value} on rank "
            f"{rank}{also}, expected finite numbers; lower optimizer.lr, switch on "
            "train.clip_grad.enabled, try train.amp.dtype=bfloat16 if mixed precision is on, or "
            "look for broken boxes in the data."
        )

    def clip_grads(self, params: Iterable[nn.Parameter]) -> Tensor | None:
        """Scale gradients down to ``clip_grad_params``.

        Args:
            params: the parameters; those without a gradient are passed over.

        Returns:
            The norm before clipping, or None where no parameter has a gradient.
        """
        with_grad = [p for p in params if p.requires_grad and p.grad is not None]
        if not with_grad:
            return None
        return nn.utils.clip_grad_norm_(with_grad, **(self.clip_grad_params or {}))

    def before_train(self) -> None:
        """Run the hooks' first part."""
        self._begun = False
        super().before_train()
        self._begun = True
        self.timeline.enter("rest")

    def after_step(self) -> None:
        """Run the hooks' parts after a step; a hook may say which ``part`` of the time it takes."""
        for hook in self._hooks:
            with self.timeline.during(getattr(hook, "part", "rest")):
                hook.after_step()

    def after_train(self) -> None:
        """Run the hooks' last part, and let go of the loader's worker processes."""
        # One more where nothing was left to train; the end of no run where it did not begin.
        self.iter: int = min(self.iter, self.max_iter) if self._begun else -1
        super().after_train()
        self._data_loader_iter_obj = None

    def state_dict(self) -> dict[str, Any]:
        """Return iteration, hooks, optimizer, loss scaler and seed: plain types and tensors.

        With a dense detector of detectron2 also the running mean that its losses are divided by, of
        this rank.
        """
        state = super().state_dict()
        if self.grad_scaler.is_enabled():
            state["grad_scaler"] = self.grad_scaler.state_dict()
        if self.seed is not None:
            state["seed"] = self.seed
        normalizer = getattr(unwrap_ddp(self.model), _NORMALIZER, None)
        if isinstance(normalizer, float):
            state[_NORMALIZER] = normalizer
        return state

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned; parts that this run does not use are left out.

        Args:
            state_dict: of this class or of the original detrex's trainer.
        """
        if "optimizer" in state_dict:
            optimizer = in_implementation_of(self.optimizer, state_dict["optimizer"])
            state_dict = {**state_dict, "optimizer": optimizer}
        super().load_state_dict(state_dict)
        require_settings(self.optimizer, self.optimizer.defaults)
        if self.grad_scaler.is_enabled() and "grad_scaler" in state_dict:
            self.grad_scaler.load_state_dict(state_dict["grad_scaler"])
        self.seed = state_dict.get("seed", self.seed)
        if _NORMALIZER in state_dict:
            setattr(unwrap_ddp(self.model), _NORMALIZER, state_dict[_NORMALIZER])


def _needs_its_traceback(record: logging.LogRecord) -> bool:
    """Whether a log record is to be kept: not if it is the traceback of what a sentence says."""
    error = record.exc_info[1] if record.exc_info else None
    return not (isinstance(error, DetrexError) or is_of_group(error) or explain_worker(error))
