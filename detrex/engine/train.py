"""From a config to a trained model: build the parts, hang the hooks around the steps, run."""

import argparse
import logging
import signal
from collections.abc import Callable
from typing import Any

from detectron2.utils import comm
from omegaconf import DictConfig

from detrex.checkpoint.detection_checkpoint import DetectionCheckpointer
from detrex.checkpoint.reading.state_dict import read_checkpoint
from detrex.config import require_keys, resolve_pixel_statistics, try_get_key
from detrex.config.validation import settle
from detrex.data.bad_pictures import ReadableBatches
from detrex.data.class_names import CHECKPOINT_KEY, checkpoint_class_names, config_class_names
from detrex.data.preparation import prepared_data
from detrex.engine import signals
from detrex.engine.checkpoints import Checkpoints, build_checkpointer
from detrex.engine.distributed import agree_on, broadcast_from_main
from detrex.engine.evaluation import Evaluation, Metrics, amp_dtype, build_evaluation, build_loader
from detrex.engine.fsdp import check_fsdp, spread_over_ranks
from detrex.engine.model_building import build_model
from detrex.engine.optimizer import build_optimizer
from detrex.engine.reporting import recorded, report_on
from detrex.engine.run_folder.identity import Run, enter_run, follow, read_run
from detrex.engine.run_folder.lock import locked_together
from detrex.engine.run_hooks import build_hooks
from detrex.engine.stopping import StopWhenAsked
from detrex.engine.trainer import Trainer
from detrex.utils.dist import exchange, failing_together
from detrex.utils.presence import waited_for
from detrex.utils.seeding import draw_seed
from detrex.utils.timeline import Timeline

logger = logging.getLogger(__name__)


def do_train(
    args: argparse.Namespace, cfg: DictConfig, begin: Callable[[], None] | None = None
) -> Metrics:
    """Train a detector as its config says, with periodic evaluation, checkpoints and logs.

    Read from the config; the parts with a default may be left out or null, and are filled in (see
    `detrex.config.schema`):

    * ``model``: the detector, batch in, dict of losses out (training) or list of
      ``{"instances": ...}`` (evaluation). Its ``pixel_mean`` and ``pixel_std`` may be ``"auto"``;
      see `detrex.config.resolve_pixel_statistics`.
    * ``optimizer``: a torch optimizer; ``optimizer.params.model`` is filled in here.
    * ``lr_multiplier``: a ``ParamScheduler`` of fvcore, the learning rate's factor over the run.
    * ``dataloader.train``: an endless iterable over batches, resumed exactly if it has ``seek``.
    * ``dataloader.on_bad_image``: ``"error"`` (default) ends the run at a picture that cannot be
      read, ``"skip"`` leaves it out and counts it.
    * ``dataloader.test``, ``dataloader.evaluator``: test loader and detectron2 evaluator; without
      an evaluator nothing is evaluated.
    * ``train.output_dir``: gets checkpoints (with the training set's class names),
      ``metrics.json`` and TensorBoard's events.
    * ``train.init_checkpoint``: a detector's checkpoint or a bare backbone's file; default none.
    * ``train.max_iter``: optimizer steps of the whole run; a resumed run may lower it.
    * ``train.device``: ``cpu``, ``cuda``, ``cuda:<n>`` or ``mps``.
    * ``train.deformable_attention_kernel``: see
      :func:`detrex.layers.deform_sampling.set_deformable_attention_kernel`; null (default) leaves
      it as it is.
    * ``train.seed``: negative (default) draws one; the checkpoint keeps it, and resumes with it.
    * ``train.amp.enabled``, ``train.amp.dtype``: mixed precision in training and evaluation, in
      ``float16`` (default, with loss scaling) or ``bfloat16``; default off.
    * ``train.accumulate_steps``: batches per optimizer step; default 1.
    * ``train.clip_grad.enabled``, ``train.clip_grad.params``: clip to ``max_norm`` by
      ``norm_type``; default off.
    * ``train.ddp``: keywords of ``DistributedDataParallel``, and ``fp16_compression``.
    * ``train.fsdp``: see :mod:`detrex.engine.fsdp`; ``enabled``, default off,
      ``reshard_after_forward`` and ``async_checkpoint``, both on by default.
    * ``train.model_ema``: see :mod:`detrex.modeling.ema`; default off.
    * ``train.inference``: evaluate a copy by :func:`detrex.modeling.optimize_for_inference`, made
      anew of the weights of each evaluation; ``enabled``, default off, and that function's
      keywords, ``dtype`` by name; null for that of ``train.amp``, where it is enabled.
    * ``train.checkpointer``: ``period``, default 5000, and ``max_to_keep``, default all.
    * ``train.timeouts``: seconds to wait, 0 for ever: ``collective``, default 1800, for other
      processes of the run, and ``data``, default 600, for a batch of the loader's workers;
      ``lock``, default 300, above 0: of silence after which a run on another machine that has
      ``output_dir`` counts as dead.
    * ``train.eval_period``: iterations between evaluations; 0 (default) after the last one only.
    * ``train.log_period``: iterations between lines of log and ``metrics.json``; default 20.
    * ``train.wandb.enabled``, ``train.wandb.params``: keywords of ``wandb.init``; default off.
    * ``train.report``: ``report.html`` in ``train.output_dir`` at the end, see `detrex.report`;
      ``enabled``, on by default, and how many of the worst ``pictures`` it shows, default 12.
    * ``train.fast_dev_run.enabled``: see :func:`apply_fast_dev_run`; default off.

    Scalars in ``metrics.json`` are medians over the ``log_period`` iterations up to theirs.

    Args:
        args: the command line; ``resume`` continues from the last complete checkpoint in
            ``train.output_dir``, or starts afresh where there is none.
        cfg: the config.
        begin: called on each process when nothing of the config or the folder can refuse the run
            any more: before a fresh one takes the folder, and after a resumed one has loaded its
            checkpoint.

    Returns:
        The metrics of the last evaluation (see :func:`detrex.engine.do_test`).

    Raises:
        ConfigError: a part of the config is missing or cannot work here.
        DataError: training or test data have a mistake; see :mod:`detrex.data.preparation`.
        CheckpointError: ``train.init_checkpoint`` fits neither the detector nor its backbone.
        NonFiniteLossError: a loss became NaN or infinite.
        LostRankError: another process of the run is gone, or did not come in time.
        StoppedBySignal: the run was asked to stop, and wrote a checkpoint; see
            :mod:`detrex.engine.signals`.
    """
    require_keys(cfg, "model", "optimizer", "lr_multiplier", "dataloader.train", "train.max_iter")
    apply_fast_dev_run(settle(cfg))
    check_fsdp(cfg)
    resolve_pixel_statistics(cfg)
    timeline = Timeline()
    with signals.heeded(signal.SIGINT), locked_together(cfg):
        return _train(args, cfg, timeline, begin or (lambda: None))


def _train(
    args: argparse.Namespace, cfg: DictConfig, timeline: Timeline, begin: Callable[[], None]
) -> Metrics:
    """Train in a folder that is this run's alone."""
    with prepared_data(cfg):
        loader = build_loader(cfg, "dataloader.train")
        evaluation = Evaluation(cfg) if try_get_key(cfg, "dataloader.evaluator") else None
    seed = _run_seed(cfg)
    model = build_model(cfg, seed)
    optimizer = build_optimizer(cfg, model)
    trainer = Trainer(
        spread_over_ranks(cfg, model, optimizer),
        loader,
        optimizer,
        amp=bool(try_get_key(cfg, "train.amp.enabled", default=False)),
        amp_dtype=amp_dtype(cfg),
        clip_grad_params=_clip_grad_params(cfg),
        accumulate_steps=int(try_get_key(cfg, "train.accumulate_steps", default=1)),
        seed=seed,
        timeline=timeline,
    )
    checkpointer = build_checkpointer(cfg, model, trainer=trainer)
    if names := config_class_names(cfg):
        checkpointer.notes[CHECKPOINT_KEY] = names
    results: Metrics = {}

    stop = StopWhenAsked(Checkpoints(checkpointer, **cfg.train.checkpointer))

    def evaluate() -> Metrics:
        results.clear()
        with timeline.during("evaluation"), stop.saving():
            results.update(evaluation(trainer.model) if evaluation else {})
        return results

    trainer.register_hooks(build_hooks(cfg, model, trainer, evaluate, stop))
    if not args.resume:
        _together(begin)
    run = _enter_run(args, cfg, checkpointer)
    start_iter = _start(args, cfg, trainer, checkpointer)
    if args.resume:
        _together(begin)
    _seek(trainer, start_iter)
    if start_iter > cfg.train.max_iter:
        logger.warning(
            "The checkpoint has taken %d iterations, and train.max_iter is %d: nothing is left to "
            "train, and the checkpoint is evaluated.",
            start_iter,
            cfg.train.max_iter,
        )
    with recorded(args, cfg, run.id if run else "", trainer, evaluation, start_iter):
        trainer.train(start_iter, max(start_iter, int(cfg.train.max_iter)))
    if isinstance(loader, ReadableBatches):
        loader.report("others were drawn for them.")
    report_on(cfg)
    return results


def evaluate_only(args: argparse.Namespace, cfg: DictConfig) -> Metrics:
    """Evaluate ``train.init_checkpoint``, or with ``resume`` the last checkpoint.

    Args:
        args: the command line; ``resume`` is read.
        cfg: the config; see :func:`do_train` for ``model`` and ``train.*``, :func:`do_test` for the
            rest.

    Returns:
        See :func:`do_test`.

    Raises:
        ConfigError: no evaluator.
        DataError: the test data have a mistake.
        CheckpointError: the weights do not fit, heads of another number of classes included, or
            hold no EMA where it is to be evaluated.
    """
    settle(cfg)
    resolve_pixel_statistics(cfg)
    path = str(try_get_key(cfg, "train.init_checkpoint", default="") or "")
    names = checkpoint_class_names(read_checkpoint(path)) if path and not args.resume else None
    evaluation = build_evaluation(cfg, required=True, classes=names, source=path)
    model = build_model(cfg, _run_seed(cfg))
    checkpointer = build_checkpointer(cfg, model)
    follow(checkpointer, broadcast_from_main(read_run(cfg.train.output_dir)))
    if _resumes(args, checkpointer):
        checkpointer.resume_or_load("", resume=True)
    elif path:
        checkpointer.load(path, new_heads=False)
    else:
        logger.warning(
            "Evaluating initial weights: neither is train.init_checkpoint set nor does --resume "
            "find a checkpoint in %s.",
            cfg.train.output_dir,
        )
    return evaluation(model, eval_only=True) if evaluation else {}


def apply_fast_dev_run(cfg: DictConfig) -> None:
    """Shorten a run to see whether everything fits, where ``train.fast_dev_run.enabled`` says so.

    Args:
        cfg: changed in place: 20 iterations, an evaluation after 10, a log line for each.
    """
    if try_get_key(cfg, "train.fast_dev_run.enabled", default=False):
        cfg.train.max_iter = 20
        cfg.train.eval_period = 10
        cfg.train.log_period = 1


def _run_seed(cfg: DictConfig) -> int:
    seed = int(try_get_key(cfg, "train.seed", default=-1))
    return broadcast_from_main(seed if seed >= 0 else draw_seed())


def _clip_grad_params(cfg: DictConfig) -> dict[str, Any] | None:
    if not try_get_key(cfg, "train.clip_grad.enabled", default=False):
        return None
    return dict(cfg.train.clip_grad.params)


def _resumes(args: argparse.Namespace, checkpointer: DetectionCheckpointer) -> bool:
    """Whether there is something to resume, for all ranks alike."""
    return bool(args.resume and agree_on(checkpointer.get_checkpoint_file, "train.output_dir"))


def _enter_run(
    args: argparse.Namespace, cfg: DictConfig, checkpointer: DetectionCheckpointer
) -> Run | None:
    """Agree on the run that goes on or begins, after all else that could stop it."""
    run = None
    with failing_together():
        if comm.is_main_process():
            run = enter_run(checkpointer, cfg, args.resume)
    exchange()
    follow(checkpointer, broadcast_from_main(run))
    return run


def _together(begin: Callable[[], None]) -> None:
    with failing_together():
        begin()
    exchange()


def _start(
    args: argparse.Namespace,
    cfg: DictConfig,
    trainer: Trainer,
    checkpointer: DetectionCheckpointer,
) -> int:
    """Load what the run starts from, and say with which iteration it does."""
    resumes = _resumes(args, checkpointer)
    if args.resume and not resumes:
        logger.info(
            "%s holds no checkpoint of this run, which starts from the beginning.",
            cfg.train.output_dir,
        )
    weights = try_get_key(cfg, "train.init_checkpoint", default="")
    trainer.iter = -1
    with failing_together(), waited_for():
        rest = checkpointer.resume_or_load(weights, resume=resumes)
    exchange()
    if not resumes:
        return 0
    if trainer.iter < 0:  # a checkpoint of detectron2's DefaultTrainer
        trainer.iter = int(rest.get("iteration", -1))
        for group in trainer.optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
    return trainer.iter + 1


def _seek(trainer: Trainer, start_iter: int) -> None:
    """Point the loader at the batch that an undisturbed run would take next."""
    seek = getattr(trainer.data_loader, "seek", None)
    if seek is not None:
        seek(start_iter * trainer.accumulate_steps, trainer.seed)
    elif start_iter:
        logger.warning(
            "dataloader.train has no seek(batch, seed), so this resumed run sees other batches "
            "than an undisturbed one would: detrex.data.loader.build_train_loader resumes exactly."
        )
