"""From what a user names to a detector with its trained weights, as its run evaluates it."""

import copy
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from omegaconf import DictConfig
from torch import nn

from detrex.config import require_keys, try_get_key
from detrex.config.building import build_part
from detrex.config.validation import settle
from detrex.data.class_names import CHECKPOINT_KEY, choose_metadata
from detrex.engine.distributed import resolve_device
from detrex.engine.evaluation import amp_dtype
from detrex.engine.overrides import apply_overrides
from detrex.errors import ConfigError
from detrex.inference.data_facts import data_facts, unregistered
from detrex.inference.detector import Detector
from detrex.inference.filling import fill, read_first
from detrex.inference.finding import Config, find_source
from detrex.inference.portable import evaluation_augmentation, image_format, make_portable
from detrex.inference.source import Source
from detrex.modeling.inference.number_format import settle_dtype
from detrex.utils.seeding import seeded

logger = logging.getLogger(__name__)


def load(
    source: Config,
    *,
    config: Config | None = None,
    weights: str | os.PathLike[str] | None = None,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype | None = None,
    threshold: float | None = None,
    optimize: bool = True,
    overrides: str | Sequence[str] = (),
    trust: str | Sequence[str] = (),
) -> Detector:
    """Load a trained detector, to find objects in pictures.

    The weights are those that the run's evaluation (``--eval-only``) takes: the moving average
    where ``train.model_ema.use_ema_weights_for_eval_only`` says so, else the model's own. Nothing
    is fetched but what ``source`` and ``weights`` name, and neither the training data nor the
    backbone's pretrained weights need to be here.

    Args:
        source: one of

            * a run's folder, which holds ``config.yaml`` and checkpoints: the one where the run was
              best (``*best.pth``) if it kept that, else the last;
            * a folder that ``save_pretrained`` wrote, or ``hf-hub:owner/name[@revision]``, where
              ``push_to_hub`` has put one; its tensors are those that were saved, to the last bit;
            * a checkpoint, a file or an address, whose config lies beside it or is given;
            * a config: a ``.py`` or ``.yaml`` file, the place of one of the package's such as
              ``"dino/dino_r50_4scale_12ep.py"``, or an object; with ``weights`` or its own
              ``train.init_checkpoint``.

        config: the config of a checkpoint, in the place of the one that lies beside it.
        weights: a checkpoint, file or address; ``"random"`` for a detector that has learnt nothing.
        device: ``"auto"`` for the first GPU, or the processor where there is none; or as PyTorch
            names it.
        dtype: number format of convolutions and matrix products: ``"float32"``, ``"bfloat16"``,
            ``"float16"``, ``"auto"`` for the fastest of a short trial; None for that of the run's
            evaluation (``train.inference``, ``train.amp``), but no float16 on a processor.
        threshold: least score of what is found, from 0 to 1; each call can ask for another. By
            default that of a shared detector, else 0.5.
        optimize: whether pictures go through `detrex.modeling.optimize_for_inference`'s copy.
        overrides: ``key=value`` for the config, as for training; one or several.
        trust: packages that YAML and overrides may call beside those of `detrex.config.trust`.

    Returns:
        The detector, in evaluation mode on its device.

    Raises:
        ConfigError: there is no such source, it has no weights, or an option is wrong.
        CheckpointError: the weights are damaged, of another detector, or of a backbone alone.
        DownloadError: an address cannot be fetched.

    Example:
        >>> import numpy as np
        >>> detector = load("dino/demo_shapes.py", weights="random")
        >>> len(detector.predict(np.zeros((64, 96, 3), np.uint8), threshold=0.0)) > 0
        True
    """
    overrides, trust = _texts("overrides", overrides), _texts("trust", trust)
    found = find_source(source, config=config, weights=weights, trusted=trust)
    return build_detector(
        found,
        device=device,
        dtype=dtype,
        threshold=threshold,
        optimize=optimize,
        overrides=overrides,
        trust=trust,
    )


def build_detector(
    found: Source,
    *,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype | None = None,
    threshold: float | None = None,
    optimize: bool = True,
    overrides: Sequence[str] = (),
    trust: Sequence[str] = (),
    dataset: str | None = None,
) -> Detector:
    """Build a detector of a config and its weights; see `load`.

    Args:
        found: the two.
        device: see `load`, as the other options.
        dtype: the number format.
        threshold: the least score.
        optimize: whether a faster copy is used.
        overrides: of the config.
        trust: packages.
        dataset: a registered data set whose class names are taken.
    """
    cfg = apply_overrides(copy.deepcopy(found.config), overrides, trust)
    require_keys(cfg, "model")
    place = choose_device(device)
    if not isinstance(cfg.get("train"), DictConfig):
        cfg.train = {}
    cfg.train.device = str(place)
    settle(cfg)
    checkpoint, name = read_first(found.weights)
    facts, shared = found.facts, found.shared
    named = {CHECKPOINT_KEY: list(facts.class_names)} if facts.class_names else {}
    with unregistered():
        metadata = choose_metadata(cfg, checkpoint | named, dataset)
        class_names = tuple(map(str, metadata.get("thing_classes", ())))
        from_data = data_facts(cfg, class_names)
    make_portable(cfg)
    with seeded(0):
        model = build_part(cfg.model, "model")
    if not isinstance(model, nn.Module):
        raise ConfigError(
            f"model makes a {type(model).__name__}, expected a detector: a torch.nn.Module."
        )
    model = model.to(place).eval()
    if shared:
        shared.fill(model)
    elif name:
        fill(model, checkpoint, name, cfg)
    else:
        logger.warning("The detector's weights are random: it has learnt nothing.")
    return Detector(
        model,
        cfg,
        class_names=class_names,
        category_ids=facts.category_ids or from_data.category_ids,
        input_format=image_format(cfg),
        augmentation=evaluation_augmentation(cfg),
        value_range=try_get_key(cfg, "dataloader.test.mapper.value_range"),
        threshold=facts.threshold if threshold is None else threshold,
        dtype=_dtype(cfg, place) if dtype is None and optimize else dtype,
        optimize=optimize,
        origin=found.origin,
        checkpoint=name,
        metadata={**from_data.metadata, **facts.drawing, **metadata.as_dict()},
        iteration=_iteration(checkpoint),
        facts=facts if shared else None,
    )


def _texts(option: str, texts: str | Sequence[str]) -> list[str]:
    several: Any = [texts] if isinstance(texts, str) else texts
    if not isinstance(several, Iterable) or not all(isinstance(each, str) for each in several):
        raise TypeError(f"{option} is a text or a list of texts, got {texts!r:.60}.")
    return list(several)


def _iteration(checkpoint: Mapping[str, Any]) -> int:
    iteration = checkpoint.get("iteration")
    return iteration if isinstance(iteration, int) and iteration >= 0 else -1


def choose_device(device: str | torch.device) -> torch.device:
    """Choose where to compute.

    Args:
        device: a name, or ``"auto"``.

    Raises:
        ConfigError: there is no such device here.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return resolve_device(device, "device")


def _dtype(cfg: DictConfig, device: torch.device) -> torch.dtype | None:
    """The number format of the run's evaluation, as far as the device has it."""
    dtype = try_get_key(cfg, "train.inference.dtype")
    if not try_get_key(cfg, "train.inference.enabled", default=False):
        dtype = None
    if dtype is None and try_get_key(cfg, "train.amp.enabled", default=False):
        dtype = amp_dtype(cfg)
    settled = settle_dtype(dtype, device)
    return None if settled == torch.float16 and device.type == "cpu" else settled
