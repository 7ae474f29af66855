"""The parts of a detector that are functions of tensors, and how they are called in evaluation."""

import inspect
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

# What each part of DINO's kind and of detectron2's kinds maps tensors to tensors with. Everything
# around them (normalisation, anchors, boxes, softmax, suppression) is left in its number format.
_METHODS = (
    *(("backbone", "forward"), ("neck", "forward"), ("transformer", "forward")),
    *(("proposal_generator.rpn_head", "forward"), ("head", "forward")),
    *(("roi_heads.res5", "forward"), ("roi_heads.box_head", "forward")),
    *(("roi_heads.mask_head", "layers"), ("roi_heads.keypoint_head", "layers")),
    ("sem_seg_head", "layers"),
)


@dataclass(frozen=True)
class Part:
    """A method that maps tensors to tensors.

    Attributes:
        name: name of its module in the whole, ``""`` for the whole itself.
        module: the module.
        method: name of the method.
    """

    name: str
    module: nn.Module
    method: str = "forward"

    def replace(self, call: Callable[..., Any]) -> None:
        """Let the module call something else."""
        setattr(self.module, self.method, call)


def is_detector(module: nn.Module) -> bool:
    """Tell a detector, which has a backbone, from a backbone, which says what it gives."""
    return isinstance(getattr(module, "backbone", None), nn.Module) and not hasattr(
        module, "output_shape"
    )


def tensor_parts(module: nn.Module) -> list[Part]:
    """Find what maps tensors to tensors.

    Args:
        module: a backbone, or any other module of tensors: the whole of it is one part. Of a
            detector of DINO's or of detectron2's kinds, its backbone, neck, transformer and heads;
            of any other detector, the backbone alone.
    """
    if not is_detector(module):
        return [Part("", module)]
    return list(_parts(module))


def _parts(detector: nn.Module) -> Iterator[Part]:
    for path, method in _METHODS:
        part: Any = detector
        for name in path.split("."):
            part = getattr(part, name, None)
        members = {path: part}
        if isinstance(part, nn.ModuleList):  # one for each stage of a cascade
            members = {f"{path}.{k}": member for k, member in enumerate(part)}
        for name, member in members.items():
            if isinstance(member, nn.Module) and hasattr(type(member), method):
                yield Part(name, member, method)


def outside_parts(module: nn.Module, parts: list[Part]) -> set[int]:
    """Give the ids of the modules that are reached through no part, though one may hold them too.

    Args:
        module: the whole.
        parts: its parts.
    """
    inner = {id(part.module) for part in parts}
    found: set[int] = set()
    waiting = [module]
    while waiting:
        reached = waiting.pop()
        if id(reached) not in inner | found:
            found.add(id(reached))
            waiting.extend(reached.children())
    return found


class Call:
    """A method without gradients, in a memory format and a number format.

    Args:
        method: what is called.
        channels_last: whether maps ``(N, C, H, W)`` are brought to that memory format first.
        device_type: where it runs.
        dtype: number format of its convolutions and matrix products; None for that of the tensors.
            What it returns in half precision is then given out in `given_out`.
        given_out: a number format.
        compile: whether it is compiled with its weights as constants: in the first call for the
            sizes of that call, whose kernels are the fastest, and in the first call with others for
            all sizes.
    """

    def __init__(
        self,
        method: Callable[..., Any],
        channels_last: bool,
        device_type: str,
        dtype: torch.dtype | None = None,
        given_out: torch.dtype = torch.float32,
        compile: bool = False,
    ) -> None:
        self.method: Any = method
        self.channels_last, self.compile = channels_last, compile
        self.device_type, self.dtype, self.given_out = device_type, dtype, given_out
        self.first_sizes: list[torch.Size] | None = None
        self._prepare()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the method with what it takes."""
        if self.channels_last:
            args, kwargs = tree_map(_channels_last, (args, kwargs))
        with torch.no_grad():
            return (self._run_compiled if self.compile else self._run)(*args, **kwargs)

    def _run_compiled(self, *args: Any, **kwargs: Any) -> Any:
        from torch._inductor import config

        leaves = tree_leaves((args, kwargs))
        sizes = [leaf.shape for leaf in leaves if isinstance(leaf, Tensor)]
        self.first_sizes = self.first_sizes or sizes
        dynamic = sizes != self.first_sizes
        if dynamic not in self.compiled:
            run = _with_own_code(self._run)
            self.compiled[dynamic] = torch.compile(run, dynamic=dynamic)
        with config.patch(freezing=True):
            return self.compiled[dynamic](*args, **kwargs)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is compiled: a copy has other weights, and a file takes none."""
        derived = ("compiled", "__signature__", "__code__")
        return {name: value for name, value in vars(self).items() if name not in derived}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Compile anew."""
        vars(self).update(state)
        self._prepare()

    def _prepare(self) -> None:
        # torch.export asks a forward for both.
        self.__signature__, self.__code__ = inspect.signature(self.method), self.method.__code__
        self.compiled: dict[bool, Callable[..., Any]] = {}

    def _run(self, *args: Any, **kwargs: Any) -> Any:
        if self.dtype is None:
            return self.method(*args, **kwargs)
        with torch.autocast(self.device_type, self.dtype):
            output = self.method(*args, **kwargs)
        return tree_map(self._give_out, output)

    def _give_out(self, value: Any) -> Any:
        is_half = isinstance(value, Tensor) and value.dtype in (torch.bfloat16, torch.float16)
        return value.to(self.given_out) if is_half else value


def _with_own_code(method: Any) -> Any:
    """Copy a method's code, since the number of times that one code may be compiled is limited."""
    function = method.__func__
    own = types.FunctionType(function.__code__.replace(), function.__globals__)
    return types.MethodType(own, method.__self__)


def _channels_last(value: Any) -> Any:
    if isinstance(value, Tensor) and value.dim() == 4 and value.is_floating_point():
        return value.contiguous(memory_format=torch.channels_last)
    return value
