"""The number format of a module in evaluation: asked for by name, or the fastest by a trial."""

import functools
import logging
from collections.abc import Callable
from typing import Any

import torch
from detectron2.layers import Conv2d
from torch import nn
from torch.nn import functional as F

from detrex.errors import ConfigError, did_you_mean
from detrex.layers import MultiScaleDeformableAttention

from .trial import least_times

logger = logging.getLogger(__name__)

_DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
# A trial is short and its times scatter; and other layers pay for the change of format.
_LEAST_GAIN = 1.2


def settle_dtype(dtype: torch.dtype | str | None, device: torch.device) -> torch.dtype | None:
    """Settle the number format of convolutions and matrix products.

    Args:
        dtype: float32, bfloat16 or float16, a type of torch or a name; ``"auto"`` for bfloat16
            where the device is faster in it and float32 elsewhere, which is logged with the reason.
        device: where the module is.

    Returns:
        A format of half precision, None where nothing is to change.

    Raises:
        ConfigError: `dtype` is something else.
    """
    wanted: Any = _DTYPES.get(dtype, dtype) if isinstance(dtype, str) else dtype
    if dtype == "auto":
        wanted, reason = fastest_dtype(device.type, torch.get_num_threads())
        logger.info("dtype='auto' is %s: %s", str(wanted).removeprefix("torch."), reason)
    if wanted is not None and wanted not in _DTYPES.values():
        raise ConfigError(
            f"the number format of an evaluation is {dtype!r:.60}, expected 'auto', 'float32', "
            "'bfloat16' or 'float16', or None for that of the weights."
            + did_you_mean(str(dtype), ["auto", *_DTYPES])
        )
    return None if wanted == torch.float32 else wanted


@functools.cache
def fastest_dtype(device_type: str, threads: int) -> tuple[torch.dtype, str]:
    """Choose between float32 and bfloat16 by asking the device, and by a convolution and a layer.

    Args:
        device_type: ``"cpu"``, ``"cuda"``, or another, for which float32 is kept.
        threads: those of a processor; a trial holds for one number of them.

    Returns:
        The format, and why.
    """
    if device_type == "cuda":
        knows = torch.cuda.is_bf16_supported(including_emulation=False)
    elif device_type == "cpu":
        knows = (
            torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
        )
    else:
        return torch.float32, f"nothing is known of bfloat16 on {device_type}"
    if not knows:
        return torch.float32, f"this {device_type} has no arithmetic in bfloat16"
    convolution = _gain(F.conv2d, ((1, 64, 66, 66), (64, 64, 3, 3)), device_type)
    linear = _gain(F.linear, ((1024, 256), (1024, 256)), device_type)
    is_faster = min(convolution, linear) >= _LEAST_GAIN
    return torch.bfloat16 if is_faster else torch.float32, (
        f"in a trial on this {device_type} with bfloat16 a convolution was {convolution:.2f} and a "
        f"linear layer {linear:.2f} times as fast as with float32 ({_LEAST_GAIN} is asked of both)"
    )


def halve_weights(module: nn.Module, dtype: torch.dtype, skipped: set[int]) -> None:
    """Keep the weights of convolutions and linear layers in the format that they are used in.

    Under autocast they would be brought to it in every call. Those whose layers have a forward of
    their own, which may compute with the weight, stay; so do those that predict where deformable
    attention samples.

    Args:
        module: changed in place; its parameters are replaced, not written into.
        dtype: bfloat16 or float16.
        skipped: ids of modules to leave as they are.
    """
    halved: dict[int, nn.Parameter] = {}
    for layer in module.modules():
        if id(layer) in skipped or type(layer).forward not in _plain_forwards():
            continue
        for name in ("weight", "bias"):
            value = layer._parameters.get(name)
            if value is not None and value.dtype == torch.float32:
                half = nn.Parameter(value.detach().to(dtype), requires_grad=False)
                layer._parameters[name] = halved.setdefault(id(value), half)


def keep_places_exact(module: nn.Module) -> set[int]:
    """Let deformable attention predict its places in float32 inside autocast too.

    Args:
        module: changed in place.

    Returns:
        Ids of the layers that predict them.
    """
    layers = [
        attention.sampling_offsets
        for attention in module.modules()
        if isinstance(attention, MultiScaleDeformableAttention)
    ]
    for layer in layers:
        layer.forward = functools.partial(_in_float32, layer)  # type: ignore[method-assign]
    return {id(layer) for layer in layers}


def _in_float32(layer: nn.Linear, x: torch.Tensor) -> torch.Tensor:
    with torch.autocast(x.device.type, enabled=False):
        return F.linear(x.to(layer.weight.dtype), layer.weight, layer.bias)


@functools.cache
def _plain_forwards() -> frozenset[Any]:
    """Forwards that hand a weight on as it is."""
    from timm.layers import Conv2dSame

    from detrex.modeling.backbone.training.folded_norm import ConvWithNorm

    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d)
    return frozenset(kind.forward for kind in (*kinds, Conv2d, ConvWithNorm, Conv2dSame))


def _gain(kernel: Callable[..., torch.Tensor], sizes: tuple[Any, Any], device_type: str) -> float:
    """How many times as fast a kernel is in bfloat16, by the fastest of some turns of each."""
    full = [torch.ones(size, device=device_type) for size in sizes]
    half = [tensor.bfloat16() for tensor in full]
    with torch.inference_mode():
        slow, fast = least_times(device_type, lambda: kernel(*full), lambda: kernel(*half))
    return slow / fast
