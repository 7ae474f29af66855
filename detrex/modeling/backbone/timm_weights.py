"""timm's pretrained weights: where each tag has them, and how timm renames what is in them."""

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from detrex.errors import BackboneError

from .weights import Place

logger = logging.getLogger(__name__)

# A recorder stands where all threads see it.
_RECORDING = threading.Lock()


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


def default_place(model_name: str, network: nn.Module | None = None) -> Place:
    """Find the weights that ``timm.create_model(model_name, pretrained=True)`` would take.

    Args:
        model_name: architecture with or without a tag, or ``hf-hub:owner/name``.
        network: the network, which knows its weights where its name is not in timm's registry.

    Returns:
        Where they are.

    Raises:
        BackboneError: timm has none.
    """
    import timm

    if timm.is_model(model_name):
        config = timm.get_pretrained_cfg(model_name)
        described = {} if config is None else config.to_dict()
    else:
        described = dict(getattr(network, "pretrained_cfg", None) or {})
    return _place(model_name, described)


def tagged_place(model_name: str, tag: str) -> Place:
    """Find the weights of a tag, one of `tags`."""
    import timm

    config = timm.get_pretrained_cfg(f"{model_name.partition('.')[0]}.{tag}")
    return _place(model_name, {} if config is None else config.to_dict())


def _place(model_name: str, config: Mapping[str, Any]) -> Place:
    addresses = []
    if file := config.get("file"):
        addresses.append(str(file))
    if repository := config.get("hf_hub_id"):
        file_name = config.get("hf_hub_filename")
        addresses.append(f"hf-hub:{repository}" + (f"/{file_name}" if file_name else ""))
    url = config.get("url")
    # The .npz files are JAX's; the hub has the same weights in timm's names.
    if isinstance(url, str) and url and not url.endswith(".npz"):
        addresses.append(url)
    if not addresses:
        others = ", ".join(tags(model_name)) or "none"
        raise BackboneError(
            f"timm has no default weights for {model_name!r} (tags with weights: {others}): give "
            "one of these, a file or an address as weights, or leave weights out."
        )
    return Place(tuple(addresses), pretrained_cfg=config)


def translate(model_name: str, tensors: dict[str, Tensor]) -> Mapping[str, Tensor]:
    """Rename a file of a network's authors by the function that timm itself has for it.

    Args:
        model_name: architecture with or without a tag.
        tensors: the file's tensors.

    Returns:
        Tensors with the names of timm's classifier; `tensors` where timm renames nothing. For files
        that it does not know, timm's function raises what it likes.
    """
    import timm

    if not timm.is_model(model_name):
        return tensors
    twin, rename = _recorded_loading(model_name)
    return tensors if rename is None else rename(dict(tensors), twin)


def _recorded_loading(model_name: str) -> tuple[Any, Callable[..., Any] | None]:
    """Let timm build its classifier without data, and see what it would load weights with.

    Its builder alone knows the function for each network, with its options.
    """
    import timm
    from timm.models import _builder

    seen: list[tuple[Any, Callable[..., Any] | None]] = [(None, None)]

    def record(model: nn.Module, *_: Any, filter_fn: Any = None, **__: Any) -> None:
        seen.append((model, filter_fn))

    with _RECORDING:
        original = _builder.load_pretrained
        _builder.load_pretrained = record
        try:
            with torch.device("meta"):
                timm.create_model(model_name, pretrained=True)
        finally:
            _builder.load_pretrained = original
    return seen[-1]
