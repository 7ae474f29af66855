"""What the lazy call of a backbone says and gives, found without weights."""

import contextlib
import copy
import enum
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from detectron2.config import instantiate
from detectron2.layers import ShapeSpec
from omegaconf import DictConfig, ListConfig, OmegaConf
from torch import nn

from detrex.config.building import build_on_meta, first_sentence
from detrex.config.lazy_call import is_call, parameters_of, target_name, target_of
from detrex.config.lint import lazy_calls, walk
from detrex.config.validation import read
from detrex.errors import ConfigError, DetrexError

Shapes = Mapping[str, ShapeSpec]

_NO_WEIGHTS = {
    "weights": None,
    "weights_backbone": None,
    "pretrained": False,
    "pretrained_backbone": False,
    "checkpoint_path": "",
}
# How weights are named anywhere; numbers under such a key are something else, or a mistake.
_NAMES_WEIGHTS = (str, bool, os.PathLike, enum.Enum)
_NUMBERS = (int, float, ListConfig)
WEIGHTS = ("weights", "pretrained", "checkpoint_path")
"""Keywords by which a backbone's call asks for its weights."""

CHOICES = (
    *("out_strides", "out_features", "out_indices"),
    *("return_nodes", "train_return_nodes", "return_layers"),
)


def without_weights(call: DictConfig, path: str) -> tuple[DictConfig, list[str]]:
    """Copy a config with nothing left to be fetched or read.

    Args:
        call: a lazy call with its parts.
        path: its dotted name, ``"model"`` for a detector or ``"model.backbone"``. In a backbone all
            that may be weights is left out, calls among it; elsewhere names of weights alone.

    Returns:
        The copy, and a line for each thing left out.
    """
    call, notes = copy.deepcopy(call), []
    for inner, node in lazy_calls(call, path):
        for key, value in _keywords_of_weights(node).items():
            if key not in node:
                node[key] = value
        in_backbone = f"{inner}.".startswith("model.backbone.")
        for key, nothing in _NO_WEIGHTS.items():
            value = read(node, key)
            if value is ... or not value:
                continue
            may_be_weights = not isinstance(value, _NUMBERS) or key.startswith("pretrained")
            if isinstance(value, _NAMES_WEIGHTS) or (in_backbone and may_be_weights):
                shown = f"L({target_name(value)})" if is_call(value) else value
                notes.append(f"{inner}.{key}={shown!s} is left out: nothing is fetched")
                node[key] = nothing
    return call, notes


def _keywords_of_weights(node: DictConfig) -> Mapping[str, Any]:
    """What a backbone is built with because of its weights; nothing where these are wrong."""
    with contextlib.suppress(Exception):  # which is told when it is built
        if told := getattr(target_of(node), "keywords_of_weights", None):
            given = {str(key): read(node, key) for key in node}
            return dict(told(**given))
    return {}


def build_without_weights(call: DictConfig, device: str = "meta") -> nn.Module:
    """Build a backbone that holds shapes, and nothing that is fetched or read from a file.

    Args:
        call: its lazy call.
        device: ``"meta"`` for no data at all, or ``"cpu"`` for random weights; the random state
            is left as it was.

    Returns:
        The backbone.

    Raises:
        Exception: whatever its constructor raises.
    """
    call, _ = without_weights(call, "model.backbone")
    with _quiet(), torch.random.fork_rng(devices=[]):
        return build_on_meta(call) if device == "meta" else instantiate(call)


def without_references(call: DictConfig) -> DictConfig:
    """Copy a config with values in place of references, to be read from anywhere.

    Args:
        call: a part of a config. A reference that leads nowhere becomes None.

    Returns:
        The copy.
    """
    copied = copy.deepcopy(call)
    for _, node in walk(copied, references=False):
        keys: list[Any] = list(node) if isinstance(node, DictConfig) else list(range(len(node)))
        for key in keys:
            if OmegaConf.is_interpolation(node, key):
                value = read(node, key)
                node[key] = None if value is ... else value
    return copied


def expected_images(call: DictConfig, built: nn.Module | None = None) -> Any:
    """Find the images that a backbone's weights expect, from what lies here.

    Args:
        call: its lazy call. A file of weights is read where there is one, a tag of timm is looked
            up; nothing is fetched.
        built: the backbone without weights, where it is built already.

    Returns:
        What it publishes as ``preprocess``: ``pixel_mean``, ``pixel_std`` and ``channel_order``;
        None where it says nothing.
    """
    weights = call.get("weights") or call.get("checkpoint_path")
    copied = copy.deepcopy(call)
    with _quiet(), contextlib.suppress(DetrexError):  # wrong weights are told when they are loaded
        if isinstance(weights, str) and os.path.exists(weights.partition("#")[0]):
            return getattr(build_on_meta(copied), "preprocess", None)
        if isinstance(weights, str) and "." not in f"{weights}{call.get('model_name', '.')}":
            copied.model_name = f"{call.model_name}.{weights}"
            return getattr(build_without_weights(copied), "preprocess", None)
    return getattr(built or build_without_weights(call), "preprocess", None)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what a backbone says of itself for the time when it is built in earnest."""
    logger = logging.getLogger("detrex.modeling")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def published_shapes(backbone: Any) -> dict[str, ShapeSpec] | None:
    """Give the shape of each map by name, the finest first; None where they are not published."""
    try:
        shapes = dict(backbone.output_shape())
    except (AttributeError, NotImplementedError, TypeError):
        return None
    is_true = all(isinstance(getattr(shape, "stride", None), int) for shape in shapes.values())
    return dict(sorted(shapes.items(), key=lambda item: item[1].stride)) if is_true else None


def names_by_stride(shapes: Shapes) -> dict[int, str]:
    """Give the last map of each stride."""
    return {shape.stride: name for name, shape in shapes.items()}


def stride_of_name(name: str) -> int | None:
    """Tell the stride from a name of detectron2's: 8 for ``res3`` and ``p3``, else None."""
    match = re.fullmatch(r"(?:res|p)(\d)", name)
    return None if match is None else 2 ** int(match[1])


def says_strides(node: DictConfig) -> list[int] | None:
    """Give the strides that a backbone's call names, None where it names them in another way."""
    return None if node.get("out_strides") is None else [int(s) for s in node.out_strides]


def says_its_maps(node: DictConfig) -> bool:
    """Tell whether a backbone's call says which maps it is to give, or cannot say it."""
    accepted = parameters_of(node)
    is_open = "out_strides" in accepted or "out_features" in accepted
    return not is_open or any(node.get(key) is not None for key in CHOICES)


def build_for(node: DictConfig, wanted: Sequence[int], who: str) -> tuple[nn.Module, Shapes | None]:
    """Let a backbone give the maps that a detector takes.

    Args:
        node: its lazy call; ``out_strides`` or ``out_features`` is set where it says nothing of
            its maps, and narrowed to what is taken where it says more.
        wanted: strides that the detector takes, in pixels; empty where it takes any.
        who: what takes them, for messages.

    Returns:
        The backbone on ``meta``, and its maps of the wanted strides, the finest first; None where
        it does not publish them.

    Raises:
        ConfigError: it cannot be built, or gives no map of these strides.
    """
    accepted = parameters_of(node)
    says_nothing = bool(wanted) and not says_its_maps(node)
    if says_nothing and "out_strides" in accepted:
        node.out_strides = list(wanted)
    given = says_strides(node)
    if given and wanted and 0 < len(kept := [s for s in given if s in wanted]) < len(given):
        node.out_strides = kept
    built = _built(node, who)
    given_strides = names_by_stride(published_shapes(built) or {})
    if says_nothing and "out_strides" not in accepted and not set(wanted) <= set(given_strides):
        there = getattr(built, "_out_feature_strides", {}).items()  # also of what it does not give
        names = {s: f"res{s.bit_length() - 1}" for s in wanted} | {s: name for name, s in there}
        node.out_features = [names[stride] for stride in wanted]
        built = _built(node, who)
    shapes = published_shapes(built)
    if shapes is None or not wanted:
        return built, shapes
    fitting = {name: shape for name, shape in shapes.items() if shape.stride in wanted}
    if not fitting or len(fitting) == len(shapes):
        return built, shapes
    return _narrowed(node, list(built.output_shape()), fitting, who) or built, fitting


def _narrowed(
    node: DictConfig, names: Sequence[str], fitting: Shapes, who: str
) -> nn.Module | None:
    """Ask for some of a backbone's maps only, so that nothing is built for the others."""
    kept = [place for place, name in enumerate(names) if name in fitting]
    for key in ("out_features", "out_indices"):
        parameter = parameters_of(node).get(key)
        value = node.get(key, None if parameter is None else parameter.default)
        if not isinstance(value, Sequence | ListConfig) or len(value) != len(names):
            continue
        before = node._get_node(key)
        node[key] = [value[place] for place in kept]
        built = _built(node, who)
        if list(published_shapes(built) or ()) == list(fitting):
            return built
        node[key] = value
        if before is None:
            del node[key]
    return None


def _built(node: DictConfig, who: str) -> Any:
    try:
        return build_without_weights(node)
    except Exception as error:  # constructors can fail in any way
        raise ConfigError(
            f"{who} cannot get {target_name(node)} as its backbone, which cannot be built: "
            f"{first_sentence(error)}"
        ) from error
