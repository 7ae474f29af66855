"""timm's pretrained weights: where each tag has them, and how timm itself loads them."""

import contextlib
import dataclasses
import functools
import logging
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from detrex.checkpoint.download import hash_in_name, shown
from detrex.checkpoint.loading import Translation
from detrex.checkpoint.reading.entries import split_entry
from detrex.checkpoint.reading.state_dict import local_path
from detrex.errors import BackboneError
from detrex.modeling.backbone.weights.late_init import SkipRandomFills
from detrex.modeling.backbone.weights.origins import wrapper_for
from detrex.modeling.backbone.weights.source import WeightsSource, find_source
from detrex.modeling.backbone.wrapper.library_builder import plain
from detrex.modeling.pixel_statistics import PixelStatistics

logger = logging.getLogger(__name__)

# Where the client of the Hugging Face hub keeps a repository, and how it is addressed.
_CACHED_REPOSITORY = re.compile(r"models--([^/]+?)--([^/]+)/")
_HUB_ADDRESS = re.compile(r"hf[-_]hub:(?://)?([^/]+/[^/@]+)")

# What of timm's description says where weights are.
_SOURCES = ("state_dict", "file", "hf_hub_id", "hf_hub_filename", "url")


def tags(model_name: str) -> list[str]:
    """List the tags of an architecture, timm's default first.

    Args:
        model_name: architecture with or without a tag.

    Returns:
        Tags that have weights, such as ``["a1_in1k", "tv_in1k"]``; empty for a name that is not in
        timm's registry (``hf-hub:...``).
    """
    import timm

    architecture = model_name.partition(".")[0]
    if not timm.is_model(architecture):
        return []
    found = [name.partition(".")[2] for name in timm.list_pretrained(f"{architecture}.*")]
    default = timm.get_pretrained_cfg(architecture)
    first = default.tag if default is not None else None
    return sorted(found, key=lambda tag: tag != first)


def find_weights(
    weights: Any,
    model_name: str,
    network: nn.Module | None = None,
    keywords: Mapping[str, Any] = MappingProxyType({}),
) -> WeightsSource:
    """Find where weights for a network of timm are; nothing is fetched.

    Args:
        weights: True for timm's default, one of `tags`, or what `find_source` takes besides.
        model_name: as in `default_weights`.
        network: likewise.
        keywords: likewise.

    Returns:
        Where they are, and how timm would load them.

    Raises:
        TypeError, BackboneError: see `find_source`.
    """
    names = tags(model_name)

    def of_timm() -> WeightsSource | None:
        if weights is True:
            return default_weights(model_name, network, keywords)
        tag = str(weights).removeprefix(f"{model_name.partition('.')[0]}.")
        if tag in names:
            return weights_of_tag(model_name, tag, keywords)
        is_place = isinstance(weights, str | Path)
        return published_weights(str(weights), model_name) if is_place else None

    def translations(source: str) -> Mapping[str, Translation]:
        archive = str(local_path(source)) if source.endswith(".npz") else None
        load = functools.partial(load_by_timm, model_name, keywords, file=archive)
        return {"timm's own loading": load}

    return dataclasses.replace(
        find_source(weights, f"timm's {model_name!r}", names, of_timm),
        translations=translations,
        hint=functools.partial(wrapper_for, library="timm", model_name=model_name),
    )


def default_weights(
    model_name: str,
    network: nn.Module | None = None,
    keywords: Mapping[str, Any] = MappingProxyType({}),
) -> WeightsSource:
    """Find the weights that ``timm.create_model(model_name, pretrained=True)`` would take.

    Args:
        model_name: architecture with or without a tag, ``hf-hub:owner/name`` or
            ``local-dir:/path``.
        network: the network, which knows its weights where its name is not in timm's registry, or
            where `keywords` describe them.
        keywords: what the network was built with; ``pretrained_cfg`` and ``pretrained_cfg_overlay``
            describe its weights. A source in the overlay stands before all others.

    Returns:
        Where they are.

    Raises:
        BackboneError: timm has none.
    """
    import timm

    overlay = dict(keywords.get("pretrained_cfg_overlay") or {})
    is_described = overlay or keywords.get("pretrained_cfg")
    if timm.is_model(model_name) and not (is_described and network is not None):
        config = timm.get_pretrained_cfg(model_name)
        described = {} if config is None else config.to_dict()
    else:
        described = dict(getattr(network, "pretrained_cfg", None) or {})
    if any(overlay.get(key) for key in _SOURCES):
        others = {key: None for key in _SOURCES if not overlay.get(key)}
        described = described | overlay | others | {"source": None}
    return _source(model_name, described)


def weights_of_tag(
    model_name: str, tag: str, keywords: Mapping[str, Any] = MappingProxyType({})
) -> WeightsSource:
    """Find the weights of a tag, one of `tags`, described as `keywords` say besides."""
    import timm

    config = timm.get_pretrained_cfg(f"{model_name.partition('.')[0]}.{tag}")
    described = {} if config is None else config.to_dict()
    overlay = dict(keywords.get("pretrained_cfg_overlay") or {})
    further = {key: value for key, value in overlay.items() if key not in _SOURCES}
    return _source(model_name, described | further)


def published_weights(source: str, model_name: str) -> WeightsSource | None:
    """Recognise weights that timm publishes, by their address or their file.

    Networks of timm with equal names and shapes may have another ``eps`` or padding, which the
    tensors do not show: ``tf_efficientnet_b0`` and ``efficientnet_b0``.

    Args:
        source: a path or an address.
        model_name: the network that they are to be loaded into; what they are of is warned of
            where that is another.

    Returns:
        Where they are, with timm's description; None where they are none of timm's.
    """
    import timm

    bare = split_entry(source)[0]
    found = _CACHED_REPOSITORY.search(bare)
    key = f"{found.group(1)}/{found.group(2)}" if found else bare.rpartition("/")[2]
    if address := _HUB_ADDRESS.match(bare):
        key = address.group(1)
    names = _published().get(key, ())
    architecture = model_name.partition(".")[0]
    alike = [name for name in names if name.partition(".")[0] == architecture]
    if not names:
        return None
    if not alike:
        logger.warning(
            "%s is published for timm's %r and given to %r, whose norms or padding may differ even "
            "where every name and shape agrees: use TimmBackbone(%r)",
            shown(source),
            names[0],
            model_name,
            names[0],
        )
    config = timm.get_pretrained_cfg((alike or names)[0])
    return _described((source,), {} if config is None else config.to_dict())


@functools.cache
def _published() -> Mapping[str, tuple[str, ...]]:
    """Names of timm's networks with tags, by the file or the repository of their weights."""
    import timm

    found: dict[str, tuple[str, ...]] = {}
    for name in timm.list_pretrained():
        config = timm.get_pretrained_cfg(name)
        file = str(getattr(config, "url", None) or "").rpartition("/")[2]
        for key in {file if hash_in_name(file) else "", getattr(config, "hf_hub_id", None) or ""}:
            if key:
                found[key] = (*found.get(key, ()), name)
    return found


def _source(model_name: str, config: Mapping[str, Any]) -> WeightsSource:
    if tensors := config.get("state_dict"):
        return dataclasses.replace(_described((), config), content=tensors)
    addresses = []
    if file := config.get("file"):
        addresses.append(str(file))
    if repository := config.get("hf_hub_id"):
        file_name = config.get("hf_hub_filename")
        addresses.append(f"hf-hub:{repository}" + (f"/{file_name}" if file_name else ""))
    url = config.get("url")
    # The .npz files are JAX's; the hub has the same weights in timm's names.
    if isinstance(url, str) and url and not (url.endswith(".npz") and addresses):
        addresses.append(url)
    if not addresses:
        others = ", ".join(tags(model_name)) or "none"
        raise BackboneError(
            f"timm has no default weights for {model_name!r} (tags with weights: {others}): give "
            "one of these, a file or an address as weights, or leave weights out."
        )
    return _described(tuple(addresses), config)


def _described(addresses: tuple[str, ...], config: Mapping[str, Any]) -> WeightsSource:
    return WeightsSource(addresses, info=config, statistics=PixelStatistics.from_unit_range(config))


def load_by_timm(
    model_name: str,
    keywords: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    file: str | None = None,
) -> dict[str, Tensor]:
    """Let timm load weights by all that it knows of a network, and give what it loads.

    timm builds the network with the user's keywords and loads the weights into it as
    ``timm.create_model(..., pretrained=True)`` does: it renames the files of the network's authors,
    resamples patch embeddings and position tables, and adapts the kernels that see the image.

    Args:
        model_name: as for ``timm.create_model``.
        keywords: what the network is built with.
        tensors: the weights by name.
        file: the path of an ``.npz`` file of JAX's, which timm reads itself in place of `tensors`.

    Returns:
        What timm wrote into the network, by the network's names; what it left alone is left out.
        For weights that it does not know, timm raises what it likes.
    """
    import timm

    keywords = {name: plain(value) for name, value in keywords.items()}
    tensors, channels = _of_network(model_name, tensors)
    overlay = dict(keywords.pop("pretrained_cfg_overlay", None) or {})
    overlay |= dict.fromkeys((*_SOURCES, "source"))
    # A head of any number of classes is passed over.
    overlay |= {"num_classes": -1, "label_offset": 0, "classifier": _head(model_name)}
    if file is not None:
        overlay |= {"file": file, "custom_load": True}
    else:
        overlay |= {"state_dict": tensors, "custom_load": False}
    if channels is not None:
        overlay["input_size"] = (channels, *_input_size(model_name)[1:])
    with _Written() as written, SkipRandomFills(), _quiet_timm():
        network = timm.create_model(
            model_name, pretrained=True, pretrained_cfg_overlay=overlay, **keywords
        )
    state = network.state_dict(keep_vars=True)
    return {name: value.detach() for name, value in state.items() if id(value) in written.targets}


@contextlib.contextmanager
def _quiet_timm() -> Iterator[None]:
    """Let timm list no unexpected names in this thread: files that do not fit are told of here."""
    own, log = threading.get_ident(), logging.getLogger("timm.models._builder")

    def is_shown(record: logging.LogRecord) -> bool:
        return record.thread != own or record.levelno > logging.WARNING

    log.addFilter(is_shown)
    try:
        yield
    finally:
        log.removeFilter(is_shown)


class _Written(TorchFunctionMode):
    """Notes, in this thread alone, the tensors that something is copied into as a whole."""

    def __init__(self) -> None:
        super().__init__()
        self.targets: dict[int, Tensor] = {}

    def __torch_function__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func is Tensor.copy_ or getattr(func, "__name__", "") == "copy_":
            self.targets[id(args[0])] = args[0]
        return func(*args, **(kwargs or {}))


def _of_network(
    model_name: str, tensors: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], int | None]:
    """Take a prefix off that stands before all of a network's names, and give its image channels.

    The network is known by its first kernel.
    """
    first = _config(model_name).get("first_conv")
    names = [first] if isinstance(first, str) else list(first or ())[:1]
    for kernel in (f"{name}.weight" for name in names):
        prefixes = [n[: -len(kernel)] for n in tensors if n == kernel or n.endswith(f".{kernel}")]
        if len(prefixes) == 1:
            start = prefixes[0]
            shape = tensors[start + kernel].shape
            channels = int(shape[1]) if len(shape) == 4 and shape[1] in (1, 3) else None
            return {
                n[len(start) :]: value for n, value in tensors.items() if n.startswith(start)
            }, channels
    return dict(tensors), None


def _config(model_name: str) -> Mapping[str, Any]:
    import timm

    config = timm.get_pretrained_cfg(model_name) if timm.is_model(model_name) else None
    return {} if config is None else config.to_dict()


def _head(model_name: str) -> Any:
    return _config(model_name).get("classifier") or "head"


def _input_size(model_name: str) -> tuple[int, int, int]:
    return _config(model_name).get("input_size") or (3, 224, 224)
