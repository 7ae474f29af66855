"""A module as it is best run in evaluation."""

import copy
import functools
import logging
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from detrex.detectors import image_channels, image_network
from detrex.errors import BackboneError, ConfigError
from detrex.modeling.backbone.inspection.meta_run import run_on_meta

from .memory_format import Arithmetic, ChannelsLast
from .norm_finder import find_foldable_norms
from .norm_folding import NormAfterConv, fold_norms, has_fixed_statistics
from .number_format import halve_weights, keep_places_exact, settle_dtype
from .packed_weights import pack_weights
from .parts import Call, Part, is_detector, outside_parts, tensor_parts

logger = logging.getLogger(__name__)

Module = TypeVar("Module", bound=nn.Module)

# Sizes for a run without data; the later ones for networks of a fixed input size.
_PICTURE = (128, 160)
_SIZES = ((256, 320), (224, 224), (256, 256), (384, 384), (448, 448), (512, 512), (1024, 1024))


def optimize_for_inference(
    module: Module,
    *,
    dtype: torch.dtype | str | None = None,
    channels_last: bool = True,
    fold_norms: bool = True,
    compile: bool = False,
) -> Module:
    """Copy a backbone or a detector as it is best run in evaluation.

    The copy has the class, the outputs and their names, ``output_shape()``, ``size_divisibility``
    and ``padding_constraints`` of the original, which is not changed. Its results are equal up to
    rounding, unless a `dtype` is asked for. It stays in evaluation mode and has no gradients.
    Tensors that are the same in both are shared: train the original and make a new copy.

    * Batch norms with fixed statistics become a part of the convolution before them, wherever a run
      shows that nothing else reads its output (`norm_finder`).
    * On a processor with oneDNN the weights of convolutions are kept in the kernels' layout, which
      takes their memory once more (`packed_weights`).
    * The maps of networks whose work is mostly in dense and depthwise convolutions are kept
      channels-last, and are given out so: their shapes stay ``(N, C, H, W)``.

    Of a detector, the parts that map tensors to tensors are treated so: of DINO's and detectron2's
    kinds backbone, neck, transformer and the heads' layers, of others the backbone. The
    normalisation of images, anchors, boxes, softmax and suppression stay as they are.

    Args:
        module: a backbone of this package or of detectron2, with or without a pyramid over it, a
            detector, or any other module that maps images to tensors; of one in
            ``DistributedDataParallel`` what is in it.
        dtype: number format of convolutions and matrix products: None for that of the weights,
            bfloat16 or float16 (a type of torch or a name), or ``"auto"`` for bfloat16 where a
            short trial on this device shows it faster, else float32. Norms are computed and places
            and boxes predicted as under autocast, and what a part gives out is float32.
        channels_last: whether that memory format may be used, also by packed convolutions.
        fold_norms: whether norms may become a part of convolutions.
        compile: whether `torch.compile` is used, with frozen weights: once for the sizes of the
            first call, and once for all others. Each takes a minute or more, and on a processor a
            C++ compiler.

    Returns:
        The copy. Its ``train(True)`` raises a `BackboneError`.

    Raises:
        ConfigError: `dtype` is unknown, or given for weights that are not in float32, or there is
            no C++ compiler to compile by.
        TypeError: `module` is no module, or it, or a part of it, is TorchScript.
    """
    _check(module)
    if isinstance(module, nn.DataParallel | DistributedDataParallel):
        module = module.module
    tensor = next(module.parameters(), torch.empty(0))
    half = settle_dtype(dtype, tensor.device)
    if dtype is not None and tensor.dtype not in (torch.float32, half):
        wanted, own = (str(kind).removeprefix("torch.") for kind in (dtype, tensor.dtype))
        raise ConfigError(
            f"dtype={wanted} is for weights in float32, and these are in {own}: leave dtype out, "
            "or take model.float()."
        )
    if compile and tensor.device.type == "cpu":
        _check_compiler()
    optimized = _evaluation_copy(module)
    arithmetic = _inspect(optimized, fold_norms)
    may_be_last = channels_last and arithmetic.allows_channels_last
    is_last = may_be_last and arithmetic.prefers_channels_last
    if half is not None:
        _halve(optimized, half)
    packed = 0 if compile else pack_weights(optimized, convolutions=may_be_last)
    if is_last and not packed:  # packed weights take maps of either memory format
        _weights_channels_last(optimized)
    for part in tensor_parts(optimized):
        part.replace(_call(part, is_last, tensor, half, compile))
    vars(optimized)["train"] = functools.partial(_train, optimized)
    logger.info(
        "%s for evaluation: channels %s, %s%s",
        type(module).__name__,
        "last" if is_last else "first",
        str(half or tensor.dtype).removeprefix("torch."),
        ", compiled in the first call" if compile else "",
    )
    return optimized


def _check(module: Any) -> None:
    if not isinstance(module, nn.Module):
        raise TypeError(f"optimize_for_inference takes a module, got {type(module).__name__}.")
    for part in tensor_parts(module):
        if isinstance(part.module, torch.jit.ScriptModule):
            raise TypeError(
                f"optimize_for_inference takes a module of Python, and {part.name or 'this one'} "
                "is TorchScript: give the module that it was scripted or traced from."
            )


def _evaluation_copy(module: Module) -> Module:
    """Copy modules and buffers; parameters share the memory of the original's."""
    memo: dict[int, Any] = {
        id(parameter): nn.Parameter(parameter.detach(), requires_grad=False)
        for parameter in module.parameters()
    }
    for tensor in (value for part in module.modules() for value in vars(part).values()):
        if isinstance(tensor, Tensor) and not tensor.is_leaf:  # kept of a training step
            memo[id(tensor)] = tensor.detach()
    if (average := getattr(module, "ema_state", None)) is not None:
        memo[id(average)] = None
    return copy.deepcopy(module, memo).eval()


def _inspect(module: nn.Module, folds: bool) -> Arithmetic:
    """Fold the norms of a module, and count the arithmetic of its backbone."""
    name, backbone = ("backbone", module.backbone) if is_detector(module) else ("", module)
    assert isinstance(backbone, nn.Module)
    arithmetic = Arithmetic()
    pairs: list[NormAfterConv] = []

    def run(twin: nn.Module, image: Tensor) -> None:
        pairs[:] = find_foldable_norms(twin, lambda network: network(image)) if folds else []
        if _fails(twin, pairs, image):  # it reads more of a norm than what the norm gives
            pairs.clear()
        arithmetic.counts.clear()
        with torch.no_grad(), arithmetic:
            twin(image)
        with ChannelsLast():  # a network that takes other views of its maps fails
            arithmetic.allows_channels_last = not _fails(twin, [], image)

    try:
        run_on_meta(backbone, _SIZES, _channels(module, backbone), run)
    except BackboneError as error:
        pairs.clear()
        arithmetic.allows_channels_last = False
        logger.warning("nothing is folded and the memory format stays: %.300s", error)
    fold_norms(backbone, pairs)
    if folds and name and any(has_fixed_statistics(norm) for norm in module.modules()):
        _fold_heads(module)
    if name and arithmetic.allows_channels_last:
        with ChannelsLast():
            arithmetic.allows_channels_last = not _takes_other_views(module)
    return arithmetic


def _fails(twin: nn.Module, pairs: list[NormAfterConv], image: Tensor) -> bool:
    """Whether a network that runs does so no more with its norms folded, or as it is called."""
    folded = copy.deepcopy(twin) if pairs else twin
    fold_norms(folded, pairs)
    try:
        with torch.no_grad():
            folded(image)
    except Exception as error:  # whatever its forward raises
        logger.info("%s stays as it is in part: %.200s", type(twin).__name__, error)
        return True
    return False


def _fold_heads(detector: nn.Module) -> None:
    """Fold what norms there are outside the backbone, seen by a run on a small picture."""
    try:
        fold_norms(detector, find_foldable_norms(detector, _call_on_small_picture))
    except Exception as error:  # any detector may take other inputs in its own way
        logger.warning(
            "norms of the heads are not folded, since %s failed on a small picture with %s: %.200s",
            *(type(detector).__name__, type(error).__name__, error),
        )


def _takes_other_views(detector: nn.Module) -> bool:
    """Whether a head takes a view of its maps that their memory format does not allow."""
    try:
        with torch.no_grad():
            _call_on_small_picture(detector)
    except Exception as error:  # other failures say nothing of views
        return "view size is not compatible" in str(error)
    return False


def _call_on_small_picture(detector: nn.Module) -> Any:
    generator = torch.Generator().manual_seed(0)  # the run's own draws stay as they are
    image = 255 * torch.rand(image_channels(detector) or 3, *_PICTURE, generator=generator)
    image = image.to(next(detector.parameters()).device)
    return detector([{"image": image, "height": _PICTURE[0], "width": _PICTURE[1]}])


def _channels(module: nn.Module, backbone: nn.Module) -> int:
    """The channels of the images that a module takes."""
    network = image_network(backbone)
    known = image_channels(module) or getattr(getattr(network, "spec", None), "in_channels", None)
    first = next((m.in_channels for m in network.modules() if isinstance(m, nn.Conv2d)), 3)
    return known or first


def _halve(module: nn.Module, dtype: torch.dtype) -> None:
    """Keep weights in half precision where only a part reads them."""
    parts = tensor_parts(module)
    skipped = keep_places_exact(module) | outside_parts(module, parts)
    for part in parts:
        halve_weights(part.module, dtype, skipped)


def _weights_channels_last(module: nn.Module) -> None:
    for conv in module.modules():
        if isinstance(conv, nn.Conv2d) and "weight" in conv._parameters:
            weight = conv.weight.detach().contiguous(memory_format=torch.channels_last)
            conv.weight = nn.Parameter(weight, requires_grad=False)


def _call(
    part: Part, channels_last: bool, tensor: Tensor, half: torch.dtype | None, compile: bool
) -> Callable[..., Any]:
    method = getattr(part.module, part.method)
    return Call(method, channels_last, tensor.device.type, half, tensor.dtype, compile)


def _check_compiler() -> None:
    from torch._inductor import cpp_builder

    try:
        cpp_builder.get_cpp_compiler()
    except Exception as error:  # whatever the search for one raises
        raise ConfigError(
            "compile=True needs a C++ compiler on a processor, and none is found: install one, "
            "such as g++, name it by the environment variable CXX, or leave compile out."
        ) from error


def _train(module: nn.Module, mode: bool = True) -> nn.Module:
    if mode:
        raise BackboneError(
            f"this {type(module).__name__} is a copy for evaluation and cannot be trained, since "
            "its norms and weights are changed for good: train the one that it was copied from."
        )
    return module
