"""Another backbone for a detector's config, with what depended on the old one set anew."""

import copy
import logging
from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import nn

from detrex.config.backbone_node import expected_images
from detrex.config.building import first_sentence
from detrex.config.c4 import fit_region_stage
from detrex.config.detectron2_detectors import find_backbone, put_backbone
from detrex.config.lazy_call import is_call, plain, target_name
from detrex.config.lint import walk
from detrex.config.pixel_statistics import STATISTICS, takes_auto
from detrex.config.validation import shown
from detrex.detectors import region_stage
from detrex.errors import ConfigError

logger = logging.getLogger(__name__)


def swap_backbone(model: DictConfig, backbone: DictConfig) -> DictConfig:
    """Give a detector's config another backbone, and set what depends on it.

    The backbone is put where the detector holds its own: ``backbone``, below FPN
    (``backbone.bottom_up``) or below ViTDet's pyramid (``backbone.net``); what stands around it
    stays. What is set by the new backbone's maps: names in ``in_features``, channels, strides of
    anchors and poolers, the entries of levels that it does not give, and a C4 detector's ``res5``,
    which becomes the new network's own last stage. A neck that sizes itself loses what was written
    by hand. ``pixel_mean``, ``pixel_std`` and ``input_format`` become those of the new backbone,
    ``"auto"`` where the detector takes that.

    Every change is logged, and listed by `swap_changes`. Set any of them afterwards to have it by
    hand again.

    Args:
        model: a lazy call of a detector; changed in place.
        backbone: a lazy call of the new backbone. Where it says nothing of its maps, it is asked
            for those that the detector takes; where it says more, for those only.

    Returns:
        `model`.

    Raises:
        ConfigError: `model` is no such config, `backbone` is no lazy call, or the two cannot go
            together; `model` is then unchanged.

    Example:
        >>> from detectron2.config import LazyCall as L
        >>> from detrex.config import get_config
        >>> from detrex.modeling.backbone import TimmBackbone
        >>> model = get_config("dino/models/dino_r50.py").model
        >>> new = L(TimmBackbone)(model_name="convnext_tiny", out_strides=(8, 16, 32))
        >>> swap_backbone(model, new).backbone.model_name
        'convnext_tiny'
    """
    swapped = _swapped(model, backbone)
    changes = list(_changes(model, swapped))
    is_turned = any(change.startswith("input_format: ") for change in changes)
    for key in [key for key in model if key not in swapped]:
        del model[key]
    for key in swapped:
        if not _is_same(model, swapped, key):
            model[key] = _raw(swapped, key)
    logger.info("swap_backbone:\n%s", "\n".join(f"  {change}" for change in changes))
    if is_turned:
        logger.warning(
            "the detector takes images in %s now: set image_format of the mappers to that too.",
            model.input_format,
        )
    return model


def swap_changes(model: DictConfig, backbone: DictConfig) -> list[str]:
    """List what `swap_backbone` would change, and change nothing.

    Args:
        model: a lazy call of a detector.
        backbone: a lazy call of the new backbone.

    Returns:
        One line for each value, ``"key: old -> new"``.

    Raises:
        ConfigError: as `swap_backbone`.
    """
    return list(_changes(model, _swapped(model, backbone)))


def _swapped(model: DictConfig, backbone: DictConfig) -> DictConfig:
    _check_model(model)
    _check_call("backbone", backbone, "L(TimmBackbone)(model_name='resnet50')")
    swapped, asked, backbone = (copy.deepcopy(call) for call in (model, backbone, backbone))
    path = _place(swapped, backbone, asked)
    built = put_backbone(swapped, path, backbone)
    if built is not None and region_stage(swapped) is not None:
        fit_region_stage(swapped, path, built, asked)
    _set_statistics(swapped, backbone, built)
    return swapped


def _place(model: DictConfig, backbone: DictConfig, asked: DictConfig) -> str:
    """Find what is to be replaced, and let references in the new calls be read from there."""
    for call in (backbone, asked):
        call._set_parent(model)
    try:
        path = find_backbone(model, backbone)
    except (OmegaConfBaseException, RecursionError) as error:
        raise ConfigError(f"the new backbone cannot be read: {first_sentence(error)}") from error
    outer = path.rpartition(".")[0]
    for call in (backbone, asked):
        call._set_parent(OmegaConf.select(model, outer) if outer else model)
    for inner, node in walk(backbone, path):
        if isinstance(node, Exception):
            raise ConfigError(
                f"{inner} of the new backbone refers to something that is not there: "
                f"{first_sentence(node)}"
            ) from node
    return path


def _set_statistics(model: DictConfig, backbone: DictConfig, built: nn.Module | None) -> None:
    """Let images be what the backbone's weights expect."""
    if takes_auto(model):
        model.update(dict.fromkeys(STATISTICS, "auto"))
        return
    written = [key for key in STATISTICS if model.get(key) is not None]
    wanted = expected_images(backbone, built) if written else None
    for key in written if wanted is not None else ():
        model[key] = list(getattr(wanted, key))
    if wanted is not None and "input_format" in model and len(wanted.pixel_mean) == 3:
        model.input_format = wanted.channel_order


def _check_model(model: Any) -> None:
    if isinstance(model, Mapping | DictConfig) and "_target_" not in model and "model" in model:
        raise ConfigError(
            "swap_backbone expects the detector's config, got a config that holds one: pass "
            "cfg.model."
        )
    _check_call("model", model, 'get_config("dino/models/dino_r50.py").model')


def _check_call(what: str, node: Any, example: str) -> None:
    if not is_call(node):
        raise ConfigError(
            f"swap_backbone expects a lazy call as its {what}, such as {example}, got "
            f"{type(node).__name__}."
        )


def _raw(config: DictConfig, key: Any) -> Any:
    """A value as it is written, references not followed; None for a group that is null."""
    node: Any = config._get_node(key)
    return node if OmegaConf.is_config(node) and not node._is_none() else node._value()


def _is_same(old: DictConfig, new: DictConfig, key: Any) -> bool:
    if key not in old:
        return False
    first, second = (plain(_raw(config, key)) for config in (old, new))
    return type(first) is type(second) and first == second


def _changes(old: DictConfig, new: Any, path: str = "") -> Iterator[str]:
    """One line for each value that two configs have differently."""
    for key in dict.fromkeys([*old, *new]):
        inner = f"{path}{key!s}"
        if key in old and key in new and _is_same(old, new, key):
            continue
        before, after = (_raw(config, key) if key in config else ... for config in (old, new))
        if isinstance(before, DictConfig) and _are_alike(before, after):
            yield from _changes(before, after, f"{inner}.")
        else:
            texts = ["(not there)" if value is ... else _shown(value) for value in (before, after)]
            yield f"{inner}: {' -> '.join(texts)}"


def _are_alike(old: DictConfig, new: Any) -> bool:
    """Whether two groups differ in single values, rather than being different things."""
    if not isinstance(new, DictConfig):
        return False
    return set(old) == set(new) or old.get("_target_") == new.get("_target_")


def _shown(value: Any) -> str:
    if not is_call(value):
        return shown(value)
    values = {key: _raw(value, key) for key in value if key != "_target_"}
    texts = [f"{key}={'...' if is_call(inner) else shown(inner)}" for key, inner in values.items()]
    return f"{target_name(value)}({', '.join(texts)})"
