"""Batch norms with frozen statistics, converted exactly.

detectron2's own conversion replaces every subclass of `nn.BatchNorm2d` by a plain norm, which drops
the activation that timm fuses into some of them. Here the drop and activation layers are kept, and
1d and 3d norms are converted too. The names of the parameters and statistics do not change, so a
checkpoint fits before and after.
"""

import functools
import logging
import os
from typing import Any

import torch
import torchvision
from detectron2.layers import FrozenBatchNorm2d
from jaxtyping import Float
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from detrex.errors import BackboneError

logger = logging.getLogger(__name__)

_FROZEN_CLASSES = (FrozenBatchNorm2d, torchvision.ops.FrozenBatchNorm2d)
_PLAIN_2D = (nn.BatchNorm2d, nn.SyncBatchNorm)
_PROOF_TOLERANCE = 1e-5


class FrozenBatchNormAct(FrozenBatchNorm2d):
    """Batch norm of ``(N, C, ...)`` with frozen statistics, then a drop layer and an activation.

    Args:
        num_features: number of channels C.
        eps: added to the variance.
        drop: layer applied after the norm, e.g. drop block.
        act: activation applied last.
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        drop: nn.Module | None = None,
        act: nn.Module | None = None,
    ) -> None:
        super().__init__(num_features, eps)
        self.drop = drop if drop is not None else nn.Identity()
        self.act = act if act is not None else nn.Identity()

    def forward(self, x: Float[torch.Tensor, "n c *m"]) -> Float[torch.Tensor, "n c *m"]:
        """Normalise, drop and activate ``(N, C, ...)``; the shape does not change."""
        # The plain norm's arithmetic, to the last bit; it takes two axes after the channels.
        normed = super().forward(x[..., None, None].flatten(2, -2) if x.dim() != 4 else x)
        return self.act(self.drop(normed.view(x.shape)))


def frozen_norm_class(norm_layer: Any) -> type[nn.Module] | None:
    """Recognise a request for frozen batch norms.

    Args:
        norm_layer: what a user gave as norm: a class, a partial of one, ``"FrozenBN"``, or None.

    Returns:
        The frozen class that is meant, or None where the norm is not a frozen one.
    """
    if norm_layer == "FrozenBN":
        return FrozenBatchNorm2d
    if isinstance(norm_layer, functools.partial):
        norm_layer = norm_layer.func
    if isinstance(norm_layer, type) and issubclass(norm_layer, _FROZEN_CLASSES):
        return norm_layer
    return None


def convert_frozen_norm(
    module: nn.Module, frozen_class: type[nn.Module] = FrozenBatchNorm2d
) -> nn.Module:
    """Replace every batch norm in a module by one with the same statistics, frozen.

    The result computes what the module computes in evaluation mode, in either mode.

    Args:
        module: any module; changed in place, unless it is itself a batch norm.
        frozen_class: class for plain 2d norms, detectron2's or torchvision's. Norms over other
            numbers of axes, and those with a fused activation, become `FrozenBatchNormAct`.

    Returns:
        The module, or the norm that stands for it.

    Raises:
        BackboneError: a norm without running statistics, or of a class whose arithmetic is unknown.
    """
    return _convert(module, frozen_class, {})


def freeze_norms(
    network: nn.Module,
    frozen_class: type[nn.Module],
    who: str,
    image_size: tuple[int, int],
    in_channels: int = 3,
) -> None:
    """Convert the batch norms of a network, check that none is left, and say how many there were.

    Where the environment variable ``DETREX_DEBUG`` is set, the network is run in evaluation mode
    before and after on a random image, and its outputs are compared.

    Args:
        network: changed in place.
        frozen_class: as for `convert_frozen_norm`.
        who: name of the network, for the log.
        image_size: height and width in pixels of an image that it takes.
        in_channels: channels of the image.

    Raises:
        BackboneError: see `convert_frozen_norm`; a norm that keeps running statistics is left; or
            an output changed by more than 1e-5 of its largest value.
    """
    live = sum(isinstance(module, _BatchNorm) for module in network.modules())
    parameter = next(network.parameters(), torch.empty(0))
    proves = bool(os.environ.get("DETREX_DEBUG")) and live > 0 and not parameter.is_meta
    image = torch.empty(0)
    if proves:
        generator = torch.Generator().manual_seed(0)
        image = torch.randn(2, in_channels, *image_size, generator=generator).to(parameter)
    before = _outputs(network, image) if proves else []
    convert_frozen_norm(network, frozen_class)
    left = [name for name, module in network.named_modules() if _is_live(module)]
    if left:
        raise BackboneError(
            f"{who} keeps the running statistics of {', '.join(left[:4])} of class "
            f"{type(network.get_submodule(left[0])).__name__}, which cannot be frozen: leave "
            "frozen_norm and norm_layer out for this network."
        )
    if not live:
        logger.warning("%s has no batch norm, so a frozen norm_layer changes nothing", who)
        return
    logger.info("%s: froze the statistics of %d batch norms", who, live)
    if proves:
        _compare(who, before, _outputs(network, image))


def _is_live(module: nn.Module) -> bool:
    """Whether a module keeps statistics that it would update."""
    if isinstance(module, _FROZEN_CLASSES):
        return False
    return isinstance(module, _BatchNorm) or "running_mean" in module._buffers


def _outputs(network: nn.Module, image: torch.Tensor) -> list[torch.Tensor]:
    """Features in evaluation mode; the mode of each module is put back."""
    modes = [(module, module.training) for module in network.modules()]
    with torch.no_grad():
        outputs = network.eval()(image)
    for module, mode in modes:
        module.training = mode
    return list(outputs.values() if isinstance(outputs, dict) else outputs)


def _compare(who: str, before: list[torch.Tensor], after: list[torch.Tensor]) -> None:
    worst = 0.0
    for old, new in zip(before, after, strict=True):
        largest = float(old.abs().max().clamp_min(1e-12))
        worst = max(worst, float((old - new).abs().max()) / largest)
    if not worst <= _PROOF_TOLERANCE:
        raise BackboneError(
            f"freezing the norms of {who} changed its features by {worst:.1e} of their largest "
            f"value, expected at most {_PROOF_TOLERANCE:.0e}: please report this network, and "
            "leave frozen_norm and norm_layer out."
        )
    logger.info("%s: frozen norms proved equal, largest difference %.1e", who, worst)


def _convert(
    module: nn.Module, frozen_class: type[nn.Module], done: dict[int, nn.Module]
) -> nn.Module:
    if id(module) in done:
        return done[id(module)]
    if isinstance(module, _BatchNorm):
        done[id(module)] = _frozen(module, frozen_class)
        return done[id(module)]
    done[id(module)] = module
    for name, child in module._modules.items():
        if child is not None:
            module._modules[name] = _convert(child, frozen_class, done)
    return module


def _frozen(norm: _BatchNorm, frozen_class: type[nn.Module]) -> nn.Module:
    """Build the frozen norm that equals one batch norm."""
    if norm.running_mean is None or norm.running_var is None:
        raise BackboneError(
            f"{type(norm).__name__} has no running statistics to freeze "
            "(track_running_stats=False): build the network with them, or leave norm_layer out."
        )
    fused = hasattr(norm, "act") and hasattr(norm, "drop")
    if not fused and type(norm).forward not in _known_forwards():
        raise BackboneError(
            f"{type(norm).__module__}.{type(norm).__name__} is a batch norm with a forward of its "
            "own and cannot be frozen exactly: leave norm_layer out for this network."
        )
    frozen: nn.Module
    if type(norm) in _PLAIN_2D:
        frozen = frozen_class(norm.num_features, eps=norm.eps)
    else:
        drop, act = (norm.drop, norm.act) if fused else (None, None)
        frozen = FrozenBatchNormAct(norm.num_features, norm.eps, drop, act)  # type: ignore[arg-type]
    frozen.to(device=norm.running_mean.device, dtype=norm.running_mean.dtype)
    with torch.no_grad():
        frozen.running_mean.copy_(norm.running_mean)  # type: ignore[operator]
        frozen.running_var.copy_(norm.running_var)  # type: ignore[operator]
        if norm.affine:
            frozen.weight.copy_(norm.weight)  # type: ignore[operator]
            frozen.bias.copy_(norm.bias)  # type: ignore[operator]
    if isinstance(frozen, FrozenBatchNorm2d):
        frozen.num_batches_tracked = norm.num_batches_tracked
    return frozen.train(norm.training)


@functools.cache
def _known_forwards() -> frozenset[Any]:
    """Forwards that compute a batch norm and nothing else in evaluation mode."""
    from detectron2.layers import NaiveSyncBatchNorm

    return frozenset(
        {_BatchNorm.forward, nn.SyncBatchNorm.forward, NaiveSyncBatchNorm.forward},
    )
