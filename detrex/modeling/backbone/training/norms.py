"""The norm that a user asks for, by class or by name, in networks of timm and torchvision.

detectron2's names (see its ``get_norm``) mean here what they mean there::

    ""                       none
    BN                       batch norm
    SyncBN, nnSyncBN         the network's own batch norms, synchronised after its weights are there
    FrozenBN                 the same, frozen
    naiveSyncBN[_N]          the same with detectron2's synchronised batch norm
    GN                       group norm of 32 groups
    LN                       layer norm over channels
"""

import contextlib
import dataclasses
import functools
import logging
import reprlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from detectron2.layers import FrozenBatchNorm2d, NaiveSyncBatchNorm
from detectron2.layers.batch_norm import LayerNorm
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from detrex.errors import BackboneError, did_you_mean
from detrex.modeling.backbone.arguments import check_switches

from .frozen_norm import freeze_norms, frozen_norm_class

logger = logging.getLogger(__name__)

Library = Literal["timm", "torchvision"]

NORM_NAMES = ("BN", "SyncBN", "nnSyncBN", "naiveSyncBN", "naiveSyncBN_N", "FrozenBN", "GN", "LN")
_SYNCED = ("SyncBN", "nnSyncBN", "naiveSyncBN", "naiveSyncBN_N")
_NATIVE = {"BN": "batch", "LN": "layer"}
_GROUPS = 32


@dataclass(frozen=True)
class Norm:
    """What is done about a network's norms.

    Attributes:
        keywords: for the network's builder.
        frozen: class to which the batch norms are converted, or None.
        synced: detectron2's name of the synchronised norm to which they are converted, or "".
        asked: the user's own word for the norm, or "".
    """

    keywords: Mapping[str, Any] = field(default_factory=dict)
    frozen: type[nn.Module] | None = None
    synced: str = ""
    asked: str = ""

    @contextlib.contextmanager
    def naming(self) -> Iterator[None]:
        """Put the user's own word into the message of a network that does not take the norm."""
        try:
            yield
        except (BackboneError, TypeError) as error:
            if not self.asked or not self.keywords:
                raise
            kind = TypeError if isinstance(error, TypeError) else BackboneError
            raise kind(f"norm_layer={self.asked} does not fit: {str(error)[:400]}") from error

    def convert(
        self, network: nn.Module, who: str, image_size: tuple[int, int], in_channels: int = 3
    ) -> None:
        """Convert the batch norms of a network that has its weights, in place, where asked to.

        Args:
            network: of timm or torchvision.
            who: its name, for the log.
            image_size: height and width in pixels of an image that it takes.
            in_channels: channels of the image.

        Raises:
            BackboneError: see `freeze_norms`.
        """
        if self.frozen is not None:
            freeze_norms(network, self.frozen, who, image_size, in_channels)
        if self.synced:
            if not any(isinstance(module, _BatchNorm) for module in network.modules()):
                logger.warning("%s has no batch norm, so %s changes nothing", who, self.synced)
            if self.synced.startswith("naive"):
                _use_naive_norms(network, who, "N" if self.synced.endswith("_N") else "")
            else:
                from timm.layers import convert_sync_batchnorm  # knows timm's fused norms too

                convert_sync_batchnorm(network)


def chosen_norm(
    norm_layer: Any, frozen_norm: bool, library: Library, native: Callable[[], str]
) -> Norm:
    """Find out which norm a user means.

    Args:
        norm_layer: a class, a function of the number of channels, a name, or None for the
            network's own.
        frozen_norm: freeze the network's batch norms.
        library: whose network it is.
        native: gives the kind of the network's own norms, see `norm_kind`; called where it matters.

    Returns:
        What is to be done.

    Raises:
        TypeError: `norm_layer` is neither a name nor can it be called, or `frozen_norm` is neither
            True nor False.
        BackboneError: a name that is not known, or a norm beside ``frozen_norm=True``.
    """
    check_switches(frozen_norm=frozen_norm)
    frozen = frozen_norm_class(norm_layer)
    if norm_layer is None or frozen is not None:
        return Norm(frozen=frozen or (FrozenBatchNorm2d if frozen_norm else None))
    if norm_layer in _SYNCED:
        norm = Norm(synced=norm_layer)
    elif isinstance(norm_layer, str):
        is_native = norm_layer in _NATIVE and _NATIVE[norm_layer] == native()
        named = {} if is_native else {"norm_layer": _named(norm_layer, library)}
        norm = Norm(named, asked=repr(norm_layer))
    elif callable(norm_layer):
        word = getattr(norm_layer, "__name__", None) or reprlib.repr(norm_layer)
        norm = Norm({"norm_layer": norm_layer}, asked=word)
    else:
        raise TypeError(
            f"norm_layer must be a class, a function of the number of channels or a name such as "
            f"'SyncBN', got {norm_layer!r}."
        )
    if frozen_norm and norm.synced:
        raise BackboneError(
            f"got norm_layer={norm_layer!r} beside frozen_norm=True, and a frozen norm has nothing "
            "to synchronise: leave one of them out."
        )
    return dataclasses.replace(norm, frozen=FrozenBatchNorm2d if frozen_norm else None)


def _named(name: str, library: Library) -> Any:
    """What a builder of the library takes for a name."""
    if name == "":
        return nn.Identity
    if name == "BN":
        return nn.BatchNorm2d
    if library == "torchvision":
        named = {"GN": functools.partial(nn.GroupNorm, _GROUPS), "LN": LayerNorm}
        more = ""
    else:
        import timm.layers

        named = {"GN": timm.layers.GroupNorm, "LN": timm.layers.LayerNorm2d}
        if _is_of_timm(name):
            return name
        more = "; timm has further ones, such as 'groupnorm1' and 'batchnorm2d'"
    if name in named:
        return named[name]
    raise BackboneError(
        f"no norm is named {name!r}.{did_you_mean(name, NORM_NAMES)} detectron2's names are "
        f"{', '.join(NORM_NAMES)}{more}."
    )


def _is_of_timm(name: str) -> bool:
    from timm.layers import get_norm_act_layer, get_norm_layer

    for get in (get_norm_layer, get_norm_act_layer):
        try:
            get(name)
        except (KeyError, AssertionError):
            continue
        return True
    return False


def _use_naive_norms(network: nn.Module, who: str, stats_mode: str) -> None:
    """Put detectron2's synchronised norm in the place of each plain 2d batch norm."""
    for parent in list(network.modules()):
        for name, norm in parent.named_children():
            if not isinstance(norm, _BatchNorm):
                continue
            if type(norm) is not nn.BatchNorm2d:
                raise BackboneError(
                    f"{who} has norms of class {type(norm).__name__}, which naiveSyncBN cannot "
                    "stand for: use norm_layer='SyncBN'."
                )
            same = {"affine": norm.affine, "track_running_stats": norm.track_running_stats}
            synced = NaiveSyncBatchNorm(
                norm.num_features, norm.eps, norm.momentum, **same, stats_mode=stats_mode
            )
            if norm.weight is not None:
                synced.to(norm.weight)
            synced.load_state_dict(norm.state_dict())
            parent.register_module(name, synced.train(norm.training))


def norm_kind(network: nn.Module) -> str:
    """Name the norm that a network has most of.

    Args:
        network: any network.

    Returns:
        ``"batch"``, ``"layer"``, ``"group"``, ``"rms"`` or ``"none"``.
    """
    kinds = Counter(kind for module in network.modules() if (kind := _norm_of(module)))
    return kinds.most_common(1)[0][0] if kinds else "none"


def _norm_of(module: nn.Module) -> str:
    if isinstance(module, _BatchNorm):
        return "batch"
    if isinstance(module, nn.GroupNorm):
        return "group"
    if isinstance(module, nn.LayerNorm):
        return "layer"
    return "rms" if "rmsnorm" in type(module).__name__.lower() else ""
