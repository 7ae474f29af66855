"""Weights in the layout of the processor's kernels, brought there once.

oneDNN reorders a convolution's weight at every call, which is a tenth of a ResNet-50's time, and
chooses its kernel by the layout that it finds. A weight that keeps its reordered form beside itself
saves both. For a linear layer torch calls another library, which some processors are slower with:
a trial tells. Arithmetic and number format do not change.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .trial import least_times

_LEAST_GAIN = 1.05
_LEAST_WORK = 2**25  # multiplications of a linear layer; below, the way there costs what it saves


class PackedWeight(nn.Parameter):
    """The weight of a 2d convolution or of a linear layer, with its reordered forms.

    Kernels for small and for large maps want different forms, so one is made in the first call of
    each size, and kept unless there is an equal one; all are made again where the weight has been
    changed since: loaded, moved, or written into. Files and copies lack them. Wherever a form is of
    no use (a gradient is wanted, another number format, tracing and exporting, a map without
    images), and for any other function, this is a parameter as any other.

    Attributes:
        forms: reordered forms by what they are for.
        state: of the weight that they were made of.
    """

    forms: dict[Any, Tensor] | None = None
    state: Any = None

    def form(self, wanted_for: Any, reorder: Callable[[Tensor], Tensor]) -> Tensor:
        """Give the reordered form for a call.

        Args:
            wanted_for: whatever of the call the form depends on.
            reorder: makes it of the plain weight.
        """
        plain = self.detach().as_subclass(Tensor)
        version = 0 if plain.is_inference() else plain._version
        state, forms = (plain.data_ptr(), plain.dtype, version), self.forms
        if forms is None or state != self.state:
            forms, self.state = {}, state
            self.forms = forms
        if (known := forms.get(wanted_for)) is None:
            made = reorder(plain)
            layout = torch.ops.mkldnn._get_mkldnn_serialized_md(made).numpy().tobytes()
            known = forms.setdefault(layout, made)
            forms[wanted_for] = known
        return known

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        """Compute by the reordered form."""
        with torch._C.DisableTorchFunctionSubclass():
            if (kernel := _KERNELS.get(func)) is not None:
                output = kernel(*args, **(kwargs or {}))
                if output is not None:
                    return output
            return func(*args, **(kwargs or {}))

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Leave the reordered form out of a file."""
        return type(self), (self.detach().as_subclass(Tensor), False)


def pack_weights(module: nn.Module, *, convolutions: bool = True) -> int:
    """Let convolutions and linear layers keep their weights in the layout of the kernels.

    This takes as much memory again as their weights do, and once more where both small and large
    maps are given.

    Args:
        module: on any device; changed in place. Weights that need a gradient or are not on a
            processor with oneDNN stay as they are, and those of linear layers where their kernel
            is not faster.
        convolutions: whether those of convolutions are packed, whose outputs are then
            channels-last.

    Returns:
        How many weights are packed.
    """
    packed: dict[int, PackedWeight] = {}
    for layer in module.modules():
        # Attention of torch has a subclass of the linear layer, whose weight it reads itself.
        if not (convolutions and isinstance(layer, nn.Conv2d)) and type(layer) is not nn.Linear:
            continue
        weight = layer._parameters.get("weight")
        if weight is not None and _can_pack(weight) and _is_packable(layer, weight.dtype):
            own = packed.setdefault(id(weight), PackedWeight(weight.detach(), False))
            layer._parameters["weight"] = own
    return len(packed)


def _is_packable(layer: nn.Module, dtype: torch.dtype) -> bool:
    if isinstance(layer, nn.Conv2d):
        return True
    return packed_linear_is_faster(dtype, torch.get_num_threads())


@functools.cache
def packed_linear_is_faster(dtype: torch.dtype, threads: int) -> bool:
    """Tell by a trial whether linear layers are faster by oneDNN, a packed weight given.

    Args:
        dtype: number format of the layer.
        threads: a trial holds for one number of them.
    """
    weight = nn.Parameter(torch.ones(512, 256, dtype=dtype), requires_grad=False)
    if not _can_pack(weight):
        return False
    x, packed = torch.ones(1024, 256, dtype=dtype), PackedWeight(weight.detach(), False)
    with torch.inference_mode():
        usual, own = least_times("cpu", lambda: F.linear(x, weight), lambda: F.linear(x, packed))
    return usual >= _LEAST_GAIN * own


def _can_pack(weight: Tensor) -> bool:
    return (
        type(weight) is nn.Parameter
        and not weight.requires_grad
        and weight.device.type == "cpu"
        and _has_kernels(weight.dtype)
    )


@functools.cache
def _has_kernels(dtype: torch.dtype) -> bool:
    if not torch.backends.mkldnn.is_available():
        return False
    return dtype == torch.float32 or (
        dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )


def _convolve(
    input: Tensor,
    weight: PackedWeight,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor | None:
    """Do a convolution by the packed weight, None where the usual way is to be taken."""
    input = _cast(input)
    if isinstance(padding, str) or input.dim() != 4 or not _takes(input, weight, bias):
        return None
    options = (_pair(padding), _pair(stride), _pair(dilation), groups)
    reorder: Any = torch._C._nn.mkldnn_reorder_conv2d_weight
    form = weight.form(
        (*options, *input.shape),
        lambda plain: reorder(plain.to_mkldnn(), *options, list(input.shape)),
    )
    return torch.ops.mkldnn._convolution_pointwise(input, form, bias, *options, "none", [], "")


def _multiply(input: Tensor, weight: PackedWeight, bias: Tensor | None = None) -> Tensor | None:
    """Do a linear layer by the packed weight, None where the usual way is to be taken."""
    input = _cast(input)
    rows = input.shape[:-1].numel()
    if rows * weight.numel() < _LEAST_WORK or input.dim() < 2 or not _takes(input, weight, bias):
        return None
    reorder = torch.ops.mkldnn._reorder_linear_weight
    form = weight.form(rows.bit_length(), lambda plain: reorder(plain, rows))
    return torch.ops.mkldnn._linear_pointwise(input, form, bias, "none", [], "")


_KERNELS: dict[Any, Callable[..., Tensor | None]] = {torch.conv2d: _convolve, F.linear: _multiply}


def _cast(input: Tensor) -> Tensor:
    """Bring an input to the number format of autocast, where it is on."""
    if torch.is_autocast_enabled("cpu") and input.is_floating_point():
        return input.to(torch.get_autocast_dtype("cpu"))
    return input


def _takes(input: Tensor, weight: Any, bias: Tensor | None) -> bool:
    return (
        isinstance(weight, PackedWeight)
        and type(input) is Tensor
        and input.device.type == "cpu"
        and input.numel() > 0
        and input.dtype == weight.dtype
        and _has_kernels(input.dtype)
        and (bias is None or bias.dtype == weight.dtype)
        and not (torch.is_grad_enabled() and (input.requires_grad or weight.requires_grad))
        and not torch.jit.is_tracing()
        and not torch.compiler.is_compiling()
    )


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)
