"""The mistakes of a run's config that show before anything is read or built.

A run and ``detrex check`` call `find_mistakes`, so that both say the same.
"""

import copy
import math
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, ListConfig, OmegaConf
from torch import nn

from detrex.checkpoint.download import is_address
from detrex.checkpoint.reading.entries import split_entry
from detrex.config.building import build_part
from detrex.config.lazy_call import is_call
from detrex.config.lint import check_targets, lazy_calls
from detrex.config.types import check_types
from detrex.config.validation import check_values, peek, read, settle, shown
from detrex.engine.distributed import resolve_device
from detrex.engine.evaluators import missing_packages
from detrex.engine.heads import head_mistakes
from detrex.errors import ConfigError, DetrexError, did_you_mean
from detrex.modeling.backbone.weights.source import WEIGHT_FILES

_ALWAYS = ("model", "train", "train.device", "train.output_dir")
_CALLS = ("model", "dataloader.test", "dataloader.evaluator")
_TRAINING = ("optimizer", "optimizer.params", "lr_multiplier", "dataloader.train")

_IMPORT = " Import it from the common configs, e.g. train = get_config('common/train.py').train."


def find_mistakes(cfg: Any, *, eval_only: bool = False, resume: bool = False) -> list[str]:
    """List the mistakes of a config; only optimizer and schedule are built, without a model.

    Args:
        cfg: the whole config, which is not changed.
        eval_only: whether training's parts are left alone.
        resume: whether the run goes on from a checkpoint of its own, so that
            ``train.init_checkpoint`` need not be there.

    Returns:
        One sentence each, the most telling first; empty where there is none.
    """
    cfg = copy.deepcopy(cfg)
    findings = [*_wrong_parts(cfg, eval_only), *check_values(cfg), *check_targets(cfg)]
    if not findings:
        settle(cfg)
    findings += check_types(cfg)
    findings += [*_bad_device(cfg), *_bad_output_dir(cfg), *_absent_weights(cfg, resume)]
    findings += [*_unknown_datasets(cfg), *_unlike_evaluator(cfg)]
    if not findings:
        findings += [*_bad_optimizer(cfg), *_bad_schedule(cfg), *_bad_mappers(cfg)]
        findings += [*head_mistakes(cfg), *missing_packages(cfg)]
    if eval_only:
        findings = [finding for finding in findings if not finding.startswith(_TRAINING)]
    return _one_for_each_key(findings)


def check_config(cfg: DictConfig, *, eval_only: bool = False, resume: bool = False) -> DictConfig:
    """Refuse a config that has a mistake, and settle one that has none.

    Args:
        cfg: the whole config; see `detrex.config.validation.settle` for what changes in it.
        eval_only: see `find_mistakes`.
        resume: see `find_mistakes`.

    Returns:
        ``cfg``.

    Raises:
        ConfigError: with the first mistake, and the number of the others.
    """
    mistakes = find_mistakes(cfg, eval_only=eval_only, resume=resume)
    if mistakes:
        others = len(mistakes) - 1
        more = f" ({others} more: `detrex check` lists all.)" if others else ""
        raise ConfigError(mistakes[0] + more)
    return settle(cfg)


def _one_for_each_key(findings: Iterable[str]) -> list[str]:
    """Of several sentences on one key keep the first; sentences begin with their key."""
    kept: dict[str, str] = {}
    for finding in findings:
        start = re.match(r"[A-Za-z_][\w\[\]]*(?:\.[\w\[\]]+)+(?=[= ])", finding)
        kept.setdefault(start.group() if start else finding, finding)
    return list(kept.values())


def _wrong_parts(cfg: DictConfig, eval_only: bool) -> Iterator[str]:
    """Parts that are missing, and parts that are something else than they must be."""
    for name in ("dataloader", "train"):
        node = peek(cfg, name)
        if _is_there(node) and not isinstance(node, DictConfig):
            yield f"{name}={shown(node)} cannot be used: expected a group of keys."
            cfg[name] = None
    training = () if eval_only else ("dataloader", *_TRAINING, "train.max_iter")
    for name in (*_ALWAYS, *training):
        holder = peek(cfg, name.rpartition(".")[0]) if "." in name else cfg
        if peek(cfg, name) is None and isinstance(holder, DictConfig):
            last = name.rpartition(".")[2]
            hint = did_you_mean(last, [str(other) for other in holder if other != last])
            yield f"the config has no {name!r}, which a run needs.{hint or _IMPORT}"
    for name in _CALLS if eval_only else (*_CALLS, *_TRAINING):
        node = peek(cfg, name)
        if _is_there(node) and not _is_call(node, name):
            yield f"{name}={shown(node)} cannot be used: expected a call, e.g. L(Class)(...)."
            OmegaConf.update(cfg, name, None, merge=False)
    if peek(cfg, "dataloader.evaluator") and not peek(cfg, "dataloader.test"):
        yield "the config has no 'dataloader.test', which dataloader.evaluator needs."


def _is_there(node: Any) -> bool:
    return node is not None and node is not ...


def _is_call(node: Any, name: str) -> bool:
    if isinstance(node, ListConfig) and name == "dataloader.evaluator":
        return all(_is_call(one, "") for one in node)
    if OmegaConf.is_config(node):
        return is_call(node)
    return not isinstance(node, str | int | float)  # an object that is there already


def _bad_device(cfg: DictConfig) -> Iterator[str]:
    keys = ["train.device"]
    if peek(cfg, "train.model_ema.enabled") is True and peek(cfg, "train.model_ema.device"):
        keys.append("train.model_ema.device")
    for key in keys:
        name = peek(cfg, key)
        if isinstance(name, str) and (mistake := _device_mistake(name)):
            yield mistake.replace("train.device", key)


def _device_mistake(name: str) -> str:
    """Say what is wrong with ``train.device``, nothing where it can be used."""
    try:
        device = resolve_device(name)
    except ConfigError as error:
        return str(error)
    if device.type not in ("cpu", "cuda", "mps"):
        try:
            torch.zeros(1, device=device).item()
        except (RuntimeError, NotImplementedError, AssertionError):
            return (
                f"train.device={name} holds no data that this PyTorch can compute with: use cpu, "
                "cuda, cuda:<n> or mps."
            )
    return ""


def _bad_output_dir(cfg: DictConfig) -> Iterator[str]:
    folder = peek(cfg, "train.output_dir")
    if not isinstance(folder, str):
        return
    if not folder.strip():
        yield f"train.output_dir={folder!r} names no folder: give one, e.g. ./output."
        return
    try:
        path = Path(folder).absolute()
        parent = next(p for p in [path, *path.parents] if p.exists())
    except (OSError, ValueError) as error:
        yield f"train.output_dir={shown(folder)} cannot be a folder: {error}."
        return
    if not parent.is_dir():
        yield f"train.output_dir {folder} cannot be a folder, for {parent} is a file: name another."
    elif not os.access(parent, os.W_OK):
        yield f"train.output_dir {folder} cannot be written to: {parent} is not yours to write."


def _absent_weights(cfg: DictConfig, resume: bool) -> Iterator[str]:
    named = {} if resume else {"train.init_checkpoint": peek(cfg, "train.init_checkpoint")}
    for path, call in lazy_calls(peek(cfg, "model"), "model"):
        named |= {f"{path}.{key}": call.get(key) for key in ("weights", "checkpoint_path")}
    for key, value in named.items():
        text = split_entry(value.partition("?")[0])[0] if isinstance(value, str) else ""
        is_weights = text.endswith(WEIGHT_FILES) or key == "train.init_checkpoint"
        if text and is_weights and not is_address(text) and not _exists(text):
            yield f"{key} is {text!r}, which does not exist: correct the path."


def _exists(path: str) -> bool:
    return os.path.exists(os.path.expanduser(path))  # False for a name that no file can have


def _unlike_evaluator(cfg: DictConfig) -> Iterator[str]:
    tested = _registered_name(peek(cfg, "dataloader.test.dataset.names"))
    for path, call in lazy_calls(peek(cfg, "dataloader.evaluator"), "dataloader.evaluator"):
        evaluated = _registered_name(read(call, "dataset_name"))
        both_names = isinstance(tested, str) and isinstance(evaluated, str)
        if both_names and tested != evaluated:
            dots = "." * (path.count(".") + path.count("["))
            yield (
                f"{path}.dataset_name is {evaluated!r}, but dataloader.test loads "
                f'{tested!r}: write "${{.{dots}test.dataset.names}}" for the first.'
            )


def _registered_name(names: Any) -> Any:
    """The name of a data set, or that which a call registers it under."""
    return read(names, "name") if isinstance(names, DictConfig) else names


def _unknown_datasets(cfg: DictConfig) -> Iterator[str]:
    for side in ("train", "test"):
        where = f"dataloader.{side}.dataset.names"
        records, names = peek(cfg, f"dataloader.{side}.dataset"), peek(cfg, where)
        if side == "train" and isinstance(records, ListConfig) and not records:
            yield "dataloader.train.dataset is empty, expected at least one image: list some."
        if isinstance(records, DictConfig):
            yield from _absent_files(f"dataloader.{side}.dataset", records)
        if names is ...:  # a list of pictures, or a reference to nothing
            continue
        if not names and isinstance(records, DictConfig) and "names" in records:
            yield f"{where}={shown(names)} names no data set: give a registered name, or a call."
            continue
        if isinstance(names, DictConfig):
            yield from _absent_files(where, names)
            continue
        for name in names if isinstance(names, ListConfig) else filter(None, [names]):
            yield from _unknown_dataset(where, name)


def _absent_files(where: str, call: DictConfig) -> Iterator[str]:
    for key in ("json_file", "image_root", "root"):
        path = read(call, key)
        if isinstance(path, str) and path and not _exists(path):
            yield f"{where}: {key} is {path}, which does not exist."
        elif path is not ... and not isinstance(path, str | os.PathLike | None):
            yield f"{where}.{key}={shown(path)} cannot be used: expected a path."


def _unknown_dataset(where: str, name: Any) -> Iterator[str]:
    from detectron2.data import DatasetCatalog, MetadataCatalog

    if not isinstance(name, str):
        if not OmegaConf.is_config(name):
            yield f"{where}={shown(name)} cannot be used: expected the name of a data set."
    elif name not in DatasetCatalog.list():
        yield (
            f"{where} asks for {name!r}, which is not registered."
            f"{did_you_mean(name, DatasetCatalog.list())} Data of your own: "
            "L(register_coco_json)(name=..., json_file=..., image_root=...)."
        )
    else:
        file = MetadataCatalog.get(name).get("json_file")
        if file and not _exists(file):
            yield (
                f"{where}: the annotations of {name!r} are expected at {file}, where nothing "
                "is: put them there, or set DETECTRON2_DATASETS to the folder above coco/."
            )


def _bad_optimizer(cfg: DictConfig) -> Iterator[str]:
    """What the optimizer's own constructor refuses, tried on one parameter."""
    node = peek(cfg, "optimizer")
    if isinstance(node, DictConfig):
        keywords = {str(name): node[name] for name in node if name != "params"}
        yield from _refusal({**keywords, "params": [nn.Parameter(torch.zeros(1))]}, "optimizer")


def _bad_schedule(cfg: DictConfig) -> Iterator[str]:
    """What the schedule refuses, tried from the first iteration to the last."""
    node, length = peek(cfg, "lr_multiplier"), peek(cfg, "train.max_iter")
    if node is None or length is None:
        return
    refusals = list(_refusal(node, "lr_multiplier"))
    yield from refusals
    if refusals:
        return
    schedule = build_part(node, "lr_multiplier")
    last = int(length) - 1
    for step in {0, last // 2, last}:
        try:
            factor = float(schedule(step / (last + 1)))
        except Exception as error:  # schedules can fail in any way
            yield f"lr_multiplier fails at iteration {step}: {type(error).__name__}: {error}."
            return
        if not math.isfinite(factor) or factor < 0:
            yield f"lr_multiplier is {factor} at iteration {step}: expected numbers of at least 0."
            return


def _bad_mappers(cfg: DictConfig) -> Iterator[str]:
    """What a mapper or its augmentations refuse."""
    for name in ("dataloader.train.mapper", "dataloader.test.mapper"):
        node = peek(cfg, name)
        if isinstance(node, DictConfig):
            if isinstance(node.get("keypoint_hflip_indices"), DictConfig):
                # detectron2's own function reads them from a data set that is not read yet.
                node.keypoint_hflip_indices = []
            yield from _refusal(node, name)


def _refusal(node: Any, name: str) -> Iterator[str]:
    try:
        build_part(node, name)
    except DetrexError as error:
        yield f"{name}: {error}" if name not in str(error) else str(error)
