"""Evaluate a detector on the config's test set, with its own weights and with the EMA's."""

import contextlib
import logging
import sys
from collections.abc import Iterable, Iterator, Sequence, Sized
from typing import Any

import torch
from detectron2.evaluation import DatasetEvaluator, inference_on_dataset, print_csv_format
from detectron2.utils import comm
from omegaconf import DictConfig
from torch import nn

from detrex.config import resolve_pixel_statistics, try_get_key
from detrex.config.building import build_part
from detrex.config.schema import Timeouts
from detrex.data.bad_pictures import MarkBadPictures, ReadableBatches, checked_policy
from detrex.data.preparation import prepared_data
from detrex.data.shared_sets import named_missing_files, shared_dataset
from detrex.data.worker_notes import NotedMapper, WorkerNotes, set_timeout
from detrex.engine import signals
from detrex.engine.distributed import sync_buffers, unwrap_ddp
from detrex.engine.evaluators import build_evaluator, coco_metrics, source_of
from detrex.engine.fsdp import is_sharded, whole_copy
from detrex.engine.trainer import AMP_DTYPES
from detrex.errors import ConfigError, DetrexError, RunError, did_you_mean
from detrex.modeling import optimize_for_inference
from detrex.modeling.modes import set_modes
from detrex.report.coco_scores import Scores
from detrex.utils.presence import doing, wait_for_all

Metrics = dict[str, Any]

EMA_PREFIX = "ema/"
"""What the tasks of the EMA's metrics are prefixed with: ``bbox`` and ``ema/bbox``."""


def do_test(cfg: DictConfig, model: nn.Module, eval_only: bool = False) -> Metrics:
    """Evaluate a model as its config says.

    Reads ``dataloader.test``, ``dataloader.on_bad_image`` (where it is ``"skip"``, a picture that
    cannot be read counts as one in which nothing was found), ``dataloader.evaluator``,
    ``train.amp``, ``train.inference``, ``train.model_ema.enabled`` and
    ``train.model_ema.use_ema_weights_for_eval_only``. The model comes back in the mode (training or
    evaluation, module by module) that it had, and all ranks evaluate the weights of the main
    process.

    Args:
        cfg: the config.
        model: the detector on its device, with or without DDP; with EMA on, it carries an
            ``ema_state``.
        eval_only: whether this is all the run does. Then an evaluator must be there, and one
            evaluation is made: of the EMA weights if ``use_ema_weights_for_eval_only``, else of the
            model's own.

    Returns:
        ``{task: {metric: number}}`` on the main process, e.g. ``{"bbox": {"AP": 49.0, ...}}``, and
        an empty dict on the others. In training with EMA on, its metrics stand beside the plain
        ones as ``{"ema/bbox": {...}}``. Empty too where the config has no evaluator.

    Raises:
        ConfigError: ``eval_only`` without an evaluator, or a dataset that is not there.
        DataError: a dataset has a mistake; see `detrex.data.preparation`.
    """
    resolve_pixel_statistics(cfg)
    evaluation = build_evaluation(cfg, eval_only)
    return evaluation(model, eval_only) if evaluation else {}


def build_evaluation(
    cfg: DictConfig, required: bool, classes: Sequence[str] | None = None, source: str = ""
) -> "Evaluation | None":
    """Look at the test data, and build the loader and the evaluator over them.

    Args:
        cfg: see :func:`do_test`.
        required: whether an evaluator must be there.
        classes: the names in the order in which the model numbers them; by default those of the
            training set.
        source: where ``classes`` are from, to be named.

    Returns:
        The evaluation, None where there is no evaluator.

    Raises:
        ConfigError: ``required`` without an evaluator, or a dataset that is not there.
        DataError: a dataset has a mistake.
    """
    if try_get_key(cfg, "dataloader.evaluator") is None:
        if required:
            raise ConfigError(
                "--eval-only needs dataloader.evaluator in the config, got none: add for example "
                "dataloader.evaluator = L(COCOEvaluator)(dataset_name=...)."
            )
        return None
    with prepared_data(cfg, train=False, classes=classes, source=source):
        return Evaluation(cfg)


class Evaluation:
    """The test loader and evaluator of a config, built once for any number of evaluations.

    Args:
        cfg: a config that has ``dataloader.test`` and ``dataloader.evaluator``; see
            :func:`do_test`.

    Attributes:
        scores: the figures by class and size of the last evaluation, by task as in its metrics, on
            the main process; see `detrex.report.coco_scores`.

    Raises:
        ConfigError: a dataset is not there, the evaluator is none, or ``train.amp.dtype`` is
            unknown.
    """

    def __init__(self, cfg: DictConfig) -> None:
        self.loader = build_loader(cfg, "dataloader.test")
        self.evaluator = build_evaluator(cfg)
        self.scores: dict[str, Scores] = {}
        self.amp = bool(try_get_key(cfg, "train.amp.enabled", default=False))
        self.amp_dtype = amp_dtype(cfg)
        self.ema = bool(try_get_key(cfg, "train.model_ema.enabled", default=False))
        self.inference = inference_keywords(cfg)
        self.only_ema = bool(
            try_get_key(cfg, "train.model_ema.use_ema_weights_for_eval_only", default=False)
        )

    def __call__(self, model: nn.Module, eval_only: bool = False) -> Metrics:
        """Evaluate; see :func:`do_test` for arguments and result."""
        self.scores.clear()
        if not self.ema or (eval_only and not self.only_ema):
            return self._evaluate(model)
        if eval_only:
            return self._evaluate_ema(model)
        metrics = self._evaluate(model)
        plain = dict(self.scores)
        for task, values in self._evaluate_ema(model).items():
            metrics[EMA_PREFIX + task] = values
        averaged = {EMA_PREFIX + task: scores for task, scores in self.scores.items()}
        self.scores = {**plain, **averaged}
        return metrics

    @property
    def sources(self) -> dict[str, str | None]:
        """What is compared; see `detrex.engine.evaluators.source_of`."""
        return source_of(self.evaluator)

    def _evaluate_ema(self, model: nn.Module) -> Metrics:
        from detrex.modeling import ema

        logging.getLogger(__name__).info("Evaluating with the EMA weights.")
        if is_sharded(model):
            averages = ema.get_model_ema_state(model).state_dict()
            return self._evaluate(whole_copy(model, averages))
        with ema.apply_model_ema_and_restore(unwrap_ddp(model)):
            return self._evaluate(model)

    def _evaluate(self, model: nn.Module) -> Metrics:
        model = whole_copy(model) if is_sharded(model) else unwrap_ddp(model)
        sync_buffers(model)
        device_type = next(model.parameters()).device.type
        with evaluation_mode(model), coco_metrics(self.evaluator) as scores:
            if self.inference is None:
                evaluated, amp = model, self.amp
            else:  # of the present weights; it knows its number format itself
                evaluated, amp = optimize_for_inference(model, **self.inference), False
            with torch.amp.autocast(device_type, self.amp_dtype, enabled=amp), signals.at_once():
                batches = progress_bar(self.loader)
                with doing("in evaluation"):
                    metrics = inference_on_dataset(evaluated, batches, _Together(self.evaluator))
                wait_for_all()  # the main process computes the metrics, which may take long
            self.scores = scores
        if self.inference is not None and self.inference["compile"]:
            del evaluated
            torch.compiler.reset()  # compiled code holds weights
        if isinstance(self.loader, ReadableBatches):
            self.loader.report("they count as pictures in which nothing was found.")
        if comm.is_main_process():
            print_csv_format(metrics)
        return dict(metrics)


class _Together(DatasetEvaluator):
    """An evaluator whose ranks wait for each other where a signal reaches them, before they gather.

    Args:
        evaluator: what evaluates.
    """

    def __init__(self, evaluator: DatasetEvaluator) -> None:
        self.reset, self.process = evaluator.reset, evaluator.process
        self.evaluator = evaluator

    def evaluate(self) -> Any:
        """Compute the metrics.

        Raises:
            RunError: a file of the evaluator cannot be read or written.
        """
        wait_for_all()
        try:
            return self.evaluator.evaluate()
        except DetrexError:  # some are OSErrors, and say themselves what is wrong
            raise
        except OSError as error:
            raise RunError(
                f"{error.filename or 'a file'} of the evaluation cannot be read or written "
                f"({error.strerror or error}): make room or mend the folder, and continue with "
                "--resume"
            ) from error


@contextlib.contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode, and each of its modules back into its own mode afterwards.

    Args:
        model: any module; parts that were frozen in evaluation mode stay so.
    """
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        set_modes(modes.items())


def progress_bar(loader: Iterable[Any]) -> Iterable[Any]:
    """Show a bar over a loader where somebody watches; log files keep detectron2's sparse lines.

    Args:
        loader: an iterable with a length.

    Returns:
        The loader, under a tqdm bar on the main process of a terminal.
    """
    watched = comm.is_main_process() and sys.stderr.isatty()
    if not watched or not isinstance(loader, Sized):
        return loader
    from tqdm import tqdm

    return tqdm(loader, desc="evaluation", unit="batch", leave=False, dynamic_ncols=True)


def inference_keywords(cfg: DictConfig) -> dict[str, Any] | None:
    """Read ``train.inference``: the copy that is evaluated in the place of the model.

    Args:
        cfg: the config.

    Returns:
        Keywords of :func:`detrex.modeling.optimize_for_inference`, None where it is not enabled.
        A ``dtype`` of null is that of ``train.amp``, where it is enabled.

    Raises:
        ConfigError: ``train.amp.dtype`` is unknown.
    """
    if not try_get_key(cfg, "train.inference.enabled", default=False):
        return None
    keywords = {
        name: bool(try_get_key(cfg, f"train.inference.{name}", default=default))
        for name, default in (("channels_last", True), ("fold_norms", True), ("compile", False))
    }
    dtype = try_get_key(cfg, "train.inference.dtype", default=None)
    if dtype is None and try_get_key(cfg, "train.amp.enabled", default=False):
        dtype = amp_dtype(cfg)
    return {"dtype": dtype, **keywords}


def amp_dtype(cfg: DictConfig) -> torch.dtype:
    """Read ``train.amp.dtype``, float16 where it is not set.

    Args:
        cfg: the config.

    Raises:
        ConfigError: it is neither float16 nor bfloat16.
    """
    name = str(try_get_key(cfg, "train.amp.dtype", default="float16"))
    if name not in AMP_DTYPES:
        raise ConfigError(
            f"train.amp.dtype={name} is unknown: choose float16 (with loss scaling) or bfloat16."
            + did_you_mean(name, AMP_DTYPES)
        )
    return AMP_DTYPES[name]


def build_loader(cfg: DictConfig, key: str) -> Iterable[Any]:
    """Build a loader, and say in one sentence which dataset is not there.

    Args:
        cfg: the config.
        key: the loader's place in it, such as ``"dataloader.train"``.

    Returns:
        What the loader's config builds; where it has a ``mapper``, inside a
        :class:`detrex.data.bad_pictures.ReadableBatches` that does as ``dataloader.on_bad_image``
        says.

    Raises:
        ConfigError: a name under ``dataset.names`` is not registered with detectron2, one of the
            dataset's files does not exist, or ``dataloader.on_bad_image`` is unknown.
    """
    node = try_get_key(cfg, key)
    dataset = try_get_key(node, "dataset")
    names = dataset.get("names", []) if isinstance(dataset, DictConfig) else []
    if isinstance(dataset, DictConfig) and "names" in dataset and not names:
        raise ConfigError(
            f"{key}.dataset.names={names} names no data set: give a registered name, or a call "
            "such as detrex.data.datasets.register_coco_json."
        )
    if not isinstance(names, DictConfig):  # a call registers its dataset when it is built
        _require_registered([names] if isinstance(names, str) else names, key)
    policy = checked_policy(try_get_key(cfg, "dataloader.on_bad_image", default="error"))
    if not isinstance(node, DictConfig):
        return build_part(node, key)
    # Its items keep their places in the config, and with them what they refer to.
    call = dict(node.items())
    with named_missing_files(key):
        dataset = shared_dataset(cfg, key)
        if dataset is not None:
            call["dataset"] = dataset
        if node.get("mapper") is None:
            return build_part(call, key)
        seconds = float(try_get_key(cfg, "train.timeouts.data", default=Timeouts.data))
        notes = WorkerNotes(key, seconds)
        mapper = MarkBadPictures(build_part(node.mapper, f"{key}.mapper"))
        call["mapper"] = NotedMapper(mapper, notes)
        loader = build_part(call, key)
        set_timeout(loader, seconds)
        return ReadableBatches(loader, key, policy, notes)


def _require_registered(names: Iterable[Any], key: str) -> None:
    from detectron2.data import DatasetCatalog

    for name in names:
        if isinstance(name, str) and name not in DatasetCatalog.list():
            raise ConfigError(
                f"{key}.dataset.names={name} is not a registered dataset: register it first, e.g. "
                "with detrex.data.datasets.register_coco_json(name, json_file, image_root)."
                + did_you_mean(name, DatasetCatalog.list())
            )
