"""A folder that holds a whole detector, for machines without its data and pretrained weights.

model.safetensors   every tensor, see `detrex.inference.exact_weights`
config.yaml         the resolved config, read as data, see `detrex.config.safe_yaml`
detrex.json         classes, sizes, statistics, licence, AP, see `detrex.inference.facts`
README.md           the model card, see `detrex.inference.model_card`
loss.png, ap.png    the run's curves, where it wrote any
"""

import copy
import logging
import os
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from omegaconf import DictConfig, ListConfig
from torch import Tensor, nn

from detrex.checkpoint.download import fetch, is_address, is_repository, names_hub, shown
from detrex.checkpoint.report import examples
from detrex.checkpoint.runs import origin_of
from detrex.config import load_config, require_keys, try_get_key
from detrex.config.building import build_part
from detrex.config.lazy_call import is_call, target_name
from detrex.config.yaml_text import is_place, resolved, trust_needed, yaml_text
from detrex.detectors import backbone_parts
from detrex.engine.run_folder.identity import read_run
from detrex.errors import CheckpointError, ConfigError
from detrex.files import sha256_of, sync_folder, unfinished_name, writing_to
from detrex.inference.exact_weights import (
    fill_exactly,
    read_exactly,
    unequal_tensors,
    write_exactly,
)
from detrex.inference.facts import (
    FACTS,
    Facts,
    checked_texts,
    facts_bytes,
    own_versions,
    read_facts,
)
from detrex.inference.filling import still_holds, takes_average
from detrex.inference.model_card import Curves, model_card
from detrex.inference.portable import image_format, make_portable, refuse_secrets
from detrex.utils.seeding import seeded

logger = logging.getLogger(__name__)

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.yaml", "README.md"

# Without these a detector predicts otherwise; beside them goes what can be written down.
_NEEDED = ("model", "dataloader.test.mapper", "train.amp", "train.inference")
_TOLD = (
    *("train.max_iter", "train.accumulate_steps", "train.clip_grad", "train.seed"),
    *("dataloader.train.total_batch_size", "dataloader.train.mapper", "optimizer", "lr_multiplier"),
)


class Shareable(Protocol):
    """What of a `detrex.inference.Detector` is saved."""

    model: nn.Module
    config: DictConfig
    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    min_size: int
    max_size: int
    threshold: float
    checkpoint: str
    metadata: dict[str, Any]
    iteration: int
    facts: Facts | None


@dataclass(frozen=True)
class Pretrained:
    """A detector's folder that was read.

    Attributes:
        folder: where it lies.
        config: of which to build the model; nothing in it is fetched.
        facts: what is known of it.
    """

    folder: Path
    config: DictConfig
    facts: Facts

    def fill(self, model: nn.Module) -> None:
        """Give a model that was built of `config` the weights.

        Raises:
            CheckpointError: they are damaged, or not of this model.
        """
        file = self.folder / WEIGHTS
        tensors = read_exactly(file)
        promised = self.facts.sha256.get(WEIGHTS)
        if promised and sha256_of(file) != promised:
            raise CheckpointError(
                f"{file} is damaged, or not the one that {FACTS} beside it was written for: save "
                "or download the folder again"
            )
        fill_exactly(model, tensors, str(file))


def is_pretrained(source: str | os.PathLike[str]) -> bool:
    """Tell a folder that `save_pretrained` wrote."""
    return Path(source, FACTS).is_file()


def read_pretrained(source: str | os.PathLike[str], trusted: Sequence[str] = ()) -> Pretrained:
    """Read a detector's folder; its weights are read by `Pretrained.fill`.

    Args:
        source: the folder, or ``hf-hub:owner/name[@revision]``, which is fetched once and cached.
        trusted: packages that its config may name beside those of `detrex.config.trust`.

    Raises:
        CheckpointError: a file is missing, damaged or of a newer form.
        ConfigError: its config names what it may not.
        DownloadError: it cannot be fetched.
    """
    name = os.fspath(source)
    folder = _fetched(name) if is_address(name) else Path(source)
    facts = read_facts(folder / FACTS)
    if not (folder / CONFIG).is_file() or not (folder / WEIGHTS).is_file():
        lacking = CONFIG if not (folder / CONFIG).is_file() else WEIGHTS
        raise CheckpointError(
            f"{folder} has a {FACTS} and no {lacking}: save or download the folder again"
        )
    config = load_config(folder / CONFIG, trusted)
    require_keys(config, "model")
    if not is_call(config.model):
        raise ConfigError(
            f"{folder / CONFIG}: model is no lazy call, expected a group of keys with _target_."
        )
    make_portable(config)  # it may have been written by hand
    return Pretrained(folder, config, facts)


def save_pretrained(
    detector: Shareable,
    folder: str | os.PathLike[str],
    *,
    licence: str = "",
    datasets: str | Sequence[str] = (),
    name: str = "",
) -> Path:
    """Write a detector with all that belongs to it to a folder, from which `detrex.load` reads it.

    Before the folder takes its place it is read back, and each tensor compared bit by bit. What it
    holds names no file, user or computer of this machine.

    Args:
        detector: a `detrex.inference.Detector`.
        folder: a new or an empty one, or one that was written so before. There the detector is
            replaced; other files stay, and so does a card that was changed since.
        licence: under which the weights are given on, as SPDX writes it, such as
            ``"Apache-2.0"``; by default what the detector's folder said, if it is from one.
        datasets: what it was trained on; by default likewise, else what the config's data set is
            called.
        name: what the card calls the detector, a folder or ``owner/name``; by default the folder's
            name.

    Returns:
        The folder.

    Raises:
        ConfigError: the folder holds something else, or the config has no form in YAML.
        CheckpointError: the weights cannot be written.
        RunError: the disk is full, or the folder cannot be written to.
    """
    checked_texts("licence", [licence])
    datasets = checked_texts("datasets", datasets)
    folder = _folder_of(folder)
    title = name or folder.resolve().name
    _require_ours(folder)
    portable = copy.deepcopy(detector.config)
    require_keys(portable, "model")
    make_portable(portable)
    config, left_out = _shared(portable)
    before = detector.facts or Facts()
    run, averaged = _run_folder(detector.checkpoint), takes_average(portable)
    curves = Curves.of_run(run, detector.iteration, averaged)
    facts = Facts(
        class_names=tuple(map(str, detector.class_names)),
        category_ids=tuple(detector.category_ids),
        input_format=image_format(portable),
        keypoint_names=tuple(map(str, detector.metadata.get("keypoint_names") or ())),
        keypoint_lines=tuple(detector.metadata.get("keypoint_connection_rules") or ()),
        min_size=int(detector.min_size),
        max_size=int(detector.max_size),
        threshold=float(detector.threshold),
        pixel_mean=_statistic(detector.model, "pixel_mean"),
        pixel_std=_statistic(detector.model, "pixel_std"),
        licence=licence or before.licence,
        datasets=datasets or before.datasets or tuple(_dataset_names(portable, "train")),
        measured_on=before.measured_on or tuple(_dataset_names(portable, "test")),
        metrics=curves.metrics or before.metrics,
        iteration=detector.iteration if curves.metrics else before.iteration,
        trust=tuple(trust_needed(config)),
        left_out=tuple(left_out) or before.left_out,
        sha256=before.sha256,
        versions=own_versions(),
    )
    cure = "make room, or name another folder"
    with writing_to(folder, cure), _staged(folder) as staging:
        _write(staging, detector, config, facts, curves, title)
        _put_in_place(staging, folder)
    return folder


def _folder_of(folder: str | os.PathLike[str]) -> Path:
    name = os.path.expanduser(folder)
    if is_address(name) or names_hub(name):
        raise ConfigError(
            f"{shown(name)} is no folder, and no hf-hub:owner/name or hf-hub:owner/name@branch "
            "either: name a folder for save_pretrained, or owner/name for push_to_hub."
        )
    return Path(name)


def _write(
    staging: Path,
    detector: Shareable,
    config: Mapping[str, Any],
    facts: Facts,
    curves: Curves,
    title: str,
) -> None:
    """Write all files to an empty folder, and read them back."""
    (staging / CONFIG).write_text(yaml_text(config), encoding="utf-8")
    cfg = load_config(staging / CONFIG, facts.trust)
    with seeded(0):
        again = build_part(cfg.model, "model").eval()
    _require_described(detector.model.state_dict().keys() ^ again.state_dict().keys())
    write_exactly(detector.model, again, staging / WEIGHTS)
    shutil.copymode(staging / CONFIG, staging / WEIGHTS)  # safetensors lets its user alone read
    digest = sha256_of(staging / WEIGHTS)
    is_other = facts.sha256.get(WEIGHTS, digest) != digest
    source, whole = detector.checkpoint, detector.config
    if is_other or (curves.rows and not still_holds(detector.model, source, whole, again)):
        curves, facts = Curves(), replace(facts, metrics={}, iteration=-1)
    pictures = curves.draw(staging)
    card = model_card(facts, title, pictures, type(detector.model).__name__, _backbone_name(cfg))
    (staging / CARD).write_text(card, encoding="utf-8")
    digests = {WEIGHTS: digest, CARD: sha256_of(staging / CARD)}
    (staging / FACTS).write_bytes(facts_bytes(replace(facts, sha256=digests)))
    read_pretrained(staging, facts.trust).fill(again)
    _require_described(unequal_tensors(detector.model, again))


def _require_described(unequal: Collection[str]) -> None:
    if unequal:
        raise CheckpointError(
            "the detector is not the one that its config describes, in which "
            f"{examples(sorted(unequal))} would be others: make the change in the config, and "
            "build and fill the detector anew"
        )


def _shared(cfg: DictConfig) -> tuple[dict[str, Any], list[str]]:
    """Give the parts of a config that other machines can use, and the keys of those left out."""
    shared: dict[str, Any] = {}
    left_out = []
    for key in (*_NEEDED, *_TOLD):
        value = try_get_key(cfg, key)
        if value is None:
            continue
        try:
            plain = resolved(value, key) if isinstance(value, DictConfig | ListConfig) else value
            refuse_secrets(plain, key)
            if key in _TOLD and trust_needed({key: plain}):
                raise ConfigError(f"{key} names what readers would have to trust.")
        except ConfigError as error:
            if key in _NEEDED:
                raise
            logger.warning("%s is left out of what is saved: %s", key, error)
            left_out.append(key)
            continue
        *path, last = key.split(".")
        place = shared
        for step in path:
            place = place.setdefault(step, {})
        place[last] = plain
    return shared, left_out


def _statistic(model: nn.Module, name: str) -> tuple[float, ...]:
    values = getattr(model, name, None)
    if not isinstance(values, Tensor):
        return ()
    return tuple(float(f"{value:.7g}") for value in values.flatten().tolist())


def _dataset_names(cfg: DictConfig, side: str) -> Iterator[str]:
    """What the config's training or test set is called, where that is a name and no place."""
    names = try_get_key(cfg, f"dataloader.{side}.dataset.names")
    if isinstance(names, DictConfig):
        names = names.get("name")
    for name in names if isinstance(names, list | tuple | ListConfig) else [names]:
        if isinstance(name, str) and name and not is_place(name):
            yield name


def _backbone_name(cfg: DictConfig) -> str:
    """What the innermost backbone is called: its architecture, or its class."""
    calls = [*backbone_parts(cfg.model).values()][-1:]
    name = next((call.get("model_name") or target_name(call) for call in calls), "")
    if isinstance(name, DictConfig):  # a description of transformers
        name = name.get("_name_or_path") or name.get("model_type")
    return str(name)


def _run_folder(checkpoint: str) -> Path | None:
    """Find the folder of the run that wrote a checkpoint, if it lies there."""
    if not checkpoint or is_address(checkpoint):
        return None
    file = Path(os.path.expanduser(checkpoint))
    run = read_run(file.parent)
    return file.parent if run is None or origin_of(file).run in ("", run.id) else None


def _require_ours(folder: Path) -> None:
    if folder.is_dir() and (is_pretrained(folder) or not any(folder.iterdir())):
        return
    if folder.exists() or folder.is_symlink():
        what = "holds other files" if folder.is_dir() else "is no folder"
        raise ConfigError(
            f"{folder} {what}, and nothing is written over: name a new folder, an empty one, or "
            "one that save_pretrained wrote."
        )


@contextmanager
def _staged(folder: Path) -> Iterator[Path]:
    """Have a folder beside another's place, which is gone afterwards."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = unfinished_name(folder.with_name(f".{folder.name}"))
    staging.mkdir()
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _put_in_place(staging: Path, folder: Path) -> None:
    """Let a folder take its place at once; over an older one, its files, the facts last."""
    if not is_pretrained(folder):
        staging.replace(folder)
        sync_folder(folder.parent)
        return
    card, written = folder / CARD, read_facts(folder / FACTS).sha256.get(CARD)
    if card.is_file() and sha256_of(card) != written:
        logger.warning("%s was changed since it was written, and stays as it is.", card)
        (staging / CARD).unlink()
    for picture in Curves.FILES:
        if not (staging / picture).exists():
            (folder / picture).unlink(missing_ok=True)
    names = sorted((path.name for path in staging.iterdir()), key=lambda name: name == FACTS)
    for file in names:
        (staging / file).replace(folder / file)
    sync_folder(folder)


def _fetched(address: str) -> Path:
    """Fetch a detector's files of one revision from the hub, and give their folder."""
    if not is_repository(address):
        raise ConfigError(
            f"{shown(address)} is no repository of a detector: expected hf-hub:owner/name, or with "
            "a revision hf-hub:owner/name@revision."
        )
    repository, _, revision = address.rstrip("/").partition("@")
    facts = fetch(f"{repository}{f'@{revision}' if revision else ''}/{FACTS}")
    commit = facts.parent.name  # huggingface_hub's cache has a folder for each
    for file in (CONFIG, WEIGHTS):
        found = fetch(f"{repository}@{commit}/{file}")
        if found.parent != facts.parent:
            raise CheckpointError(
                f"{shown(address)} gave {FACTS} and {file} of two revisions: try again"
            )
    return facts.parent
