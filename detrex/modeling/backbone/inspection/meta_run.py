"""A run of a network without data: a copy on the ``meta`` device, its outputs, its unused parts.

The copy shares the modules' code but none of their memory, so a run costs no weights and changes
nothing in the network, its mode, or the random state.
"""

import copy
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import nn

from detrex.errors import BackboneError
from detrex.modeling.plain_twin import twin_of

Result = TypeVar("Result")


class SizeRefusedError(BackboneError):
    """A network says that it does not take images of some size."""


def tried(who: str, size: tuple[int, int], trial: Callable[[], Result]) -> Result:
    """Run a network for the sake of its image size, and tell a refusal of the size from a fault.

    Args:
        who: name of the network, for the message.
        size: height and width in pixels that are tried.
        trial: runs it.

    Returns:
        What `trial` gives.

    Raises:
        SizeRefusedError: the network does not take the size.
        BackboneError: it fails for another reason, which a change of size would only hide.
    """
    try:
        return trial()
    except Exception as error:  # any forward may refuse a size in its own way
        reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0][:200]}"
        if is_refusal(error):
            raise SizeRefusedError(reason) from error
        raise BackboneError(
            f"{who} failed in a trial run on an empty image of {size[0]} x {size[1]} with "
            f"{reason}; that is no refusal of the size: mend the network, or the keywords that it "
            "is built with."
        ) from error


def on_meta_or_cpu(inspect: Callable[[str], Result]) -> Result:
    """Inspect a network on the ``meta`` device, or on the CPU where it fails there.

    Args:
        inspect: is given the device.

    Returns:
        What `inspect` gives.

    Raises:
        BackboneError, RuntimeError: it fails on the CPU, too, or everything is to be on ``meta``.
    """
    try:
        return inspect("meta")
    except (BackboneError, RuntimeError):  # the few that read values, which meta tensors lack
        if torch.empty(0).is_meta:
            raise
        return inspect("cpu")


def is_refusal(error: Exception) -> bool:
    """Tell whether an exception is how a forward refuses the size of an image.

    Args:
        error: what a forward raised.

    Returns:
        True for failed assertions, errors of values and of shapes; False for what no size mends:
        wrong types and names, operations that are missing, memory, values that ``meta`` lacks.
    """
    if isinstance(error, BackboneError):
        return isinstance(error, SizeRefusedError)
    if isinstance(error, NotImplementedError | torch.OutOfMemoryError) or lacks_values(error):
        return False
    return isinstance(error, AssertionError | ValueError | RuntimeError | ZeroDivisionError)


def lacks_values(error: Exception) -> bool:
    """Tell whether an exception is due to the ``meta`` device, whose tensors hold no values.

    Args:
        error: what a forward raised.
    """
    return isinstance(error, RuntimeError) and bool(re.search(r"\bmeta\b", str(error), re.I))


@dataclass(frozen=True)
class MetaRun:
    """What was seen of a network.

    Attributes:
        twin: the copy that was run, in evaluation mode.
        image: the input it was given, ``(2, C, H, W)``.
        outputs: what its forward gave.
    """

    twin: nn.Module
    image: torch.Tensor
    outputs: Any

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the input in pixels."""
        return self.image.shape[-2], self.image.shape[-1]


def meta_twin(network: nn.Module) -> nn.Module:
    """Copy a network with every parameter and buffer replaced by one on the ``meta`` device.

    Args:
        network: any module, on any device, with sharded parameters too.

    Returns:
        A copy of equal structure that holds shapes and no data.
    """
    network = twin_of(network)
    memo: dict[int, Any] = {}
    for parameter in network.parameters():
        blank = torch.empty_like(parameter, device="meta")
        memo[id(parameter)] = nn.Parameter(blank, parameter.requires_grad)
    for buffer in network.buffers():
        memo[id(buffer)] = torch.empty_like(buffer, device="meta")
    return copy.deepcopy(network, memo)


def run_on_meta(
    network: nn.Module,
    image_sizes: Iterable[tuple[int, int]],
    in_channels: int = 3,
    run: Callable[[nn.Module, torch.Tensor], Any] | None = None,
) -> MetaRun:
    """Run a copy of a network on an empty image of the first size that it takes.

    The few networks whose forward reads values, which ``meta`` tensors lack, are run on zeros.

    Args:
        network: the network; it is not changed.
        image_sizes: heights and widths to try, in this order.
        in_channels: channels of the image.
        run: how to call the network with an image; default ``network(image)``.

    Returns:
        The copy, its input, and its outputs, which carry gradients.

    Raises:
        SizeRefusedError: the network takes none of the sizes.
        BackboneError: it fails for another reason.
    """
    sizes = list(dict.fromkeys(image_sizes))
    reasons: dict[tuple[int, int], str] = {}
    is_refused = True
    for device in ("meta", "cpu"):
        twin = meta_twin(network) if device == "meta" else copy.deepcopy(network).to(device)
        twin.eval()
        dtype = next((p.dtype for p in twin.parameters()), torch.float32)
        for size in sizes:
            image = torch.zeros(2, in_channels, *size, dtype=dtype, device=device)
            try:
                with torch.enable_grad():
                    outputs = twin(image) if run is None else run(twin, image)
            except Exception as error:  # any forward may refuse a size in its own way
                reasons[size] = f"{type(error).__name__} ({str(error).partition(chr(10))[0][:200]})"
                is_refused &= is_refusal(error) or (device == "meta" and lacks_values(error))
            else:
                return MetaRun(twin, image, outputs)
        if is_on_meta(network):
            break
    raise (SizeRefusedError if is_refused else BackboneError)(
        f"{type(network).__name__} could not be run on an image of any size that was tried: "
        f"{'; '.join(f'{h} x {w} gave {reason}' for (h, w), reason in reasons.items())}."
    )


def unused_parameters(twin: nn.Module, outputs: Sequence[torch.Tensor]) -> list[str]:
    """Name the trainable parameters that no output depends on.

    Args:
        twin: the network that gave `outputs`.
        outputs: its outputs, with gradients.

    Returns:
        Names of parameters, in their order in the network.
    """
    named = [(name, p) for name, p in twin.named_parameters() if p.requires_grad]
    differentiable = [output for output in outputs if output.requires_grad]
    if not named or not differentiable:
        return [name for name, _ in named]
    gradients = torch.autograd.grad(
        differentiable,
        [parameter for _, parameter in named],
        [torch.ones_like(output) for output in differentiable],
        allow_unused=True,
    )
    return [name for (name, _), gradient in zip(named, gradients, strict=True) if gradient is None]


def is_on_meta(network: nn.Module) -> bool:
    """Tell a network that holds shapes without values."""
    return any(parameter.is_meta for parameter in network.parameters())
