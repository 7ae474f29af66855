"""Run a model as on a GPU, on a machine that has none, and note what crosses the bus.

On the fake card tensors have shapes and no numbers; those on the CPU are real. Tensors of two
devices that meet are an error, as on a real card. What code reads back from the card, where it
would wait for it, is an answer that could be right: True, zeros, every element chosen.
"""

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import FrameType
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    unset_fake_temporarily,
)
from torch.autograd.function import BackwardCFunction
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

CARD = "cuda"
aten = torch.ops.aten


@dataclass(frozen=True)
class Transfer:
    """What crosses the bus.

    Attributes:
        place: file and line of the innermost code that is not torch's.
        operation: the operation that asks for it.
        shape: of the tensor.
    """

    place: str
    operation: str
    shape: tuple[int, ...]


class FakeCard(TorchDispatchMode):
    """The mode in which the device ``cuda`` is there.

    Attributes:
        read_backs: what the CPU waited for; ``tolist`` counts number by number.
        uploads: tensors that came from the CPU.

    Example:
        >>> with FakeCard() as card:
        ...     model = card.take(nn.Linear(3, 2))
        ...     total = model(torch.ones(5, 3).to(card.device)).sum().item()
        >>> [transfer.operation for transfer in card.read_backs]
        ['_local_scalar_dense']
    """

    device = torch.device(CARD)

    def __init__(self) -> None:
        super().__init__()
        self.read_backs: list[Transfer] = []
        self.uploads: list[Transfer] = []
        self._fake = FakeTensorMode(allow_non_fake_inputs=True)
        self._untuned: list[AbstractContextManager[None]] = []

    def __enter__(self) -> "FakeCard":
        # Functions of TorchScript, such as detectron2's losses, would else be tuned to a card, and
        # fail without one in all of this process.
        self._untuned.append(torch.jit.optimized_execution(False))
        self._untuned[-1].__enter__()
        self._fake.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._fake.__exit__(*error)
        self._untuned.pop().__exit__(*error)

    def take(self, module: nn.Module) -> nn.Module:
        """Put a module's parameters and buffers on the card, in place; ``meta`` ones will do."""
        moved: dict[int, Tensor] = {}
        for part in module.modules():
            for tensors in (part._parameters, part._buffers):
                for name, tensor in tensors.items():
                    if tensor is not None:
                        new = moved.setdefault(id(tensor), self._empty_like(tensor))
                        tensors[name] = new  # type: ignore[assignment]
        return module

    def _empty_like(self, tensor: Tensor) -> Tensor:
        empty = torch.empty(tensor.shape, dtype=tensor.dtype, device=self.device)
        if isinstance(tensor, nn.Parameter):
            return nn.Parameter(empty, requires_grad=tensor.requires_grad)
        return empty

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        onto = torch.device(kwargs.get("device") or "cpu").type
        if onto == "meta":  # takes shapes, no numbers
            args, kwargs = tree_map_only(Tensor, _without_numbers, (args, kwargs))
            tensors = []
        if onto != CARD and not any(tensor.device.type == CARD for tensor in tensors):
            with unset_fake_temporarily():
                return func(*args, **kwargs)
        to_cpu = kwargs.get("device") is not None and onto != CARD
        if to_cpu or (func.overloadpacket is aten.copy_ and args[0].device.type != CARD):
            return self._answer(func, args, kwargs)
        self._note_uploads(func, tensors)
        try:
            result = func(*args, **kwargs)
        except (DataDependentOutputException, DynamicOutputShapeException):
            return self._answer(func, args, kwargs)
        if func.overloadpacket is aten._to_copy and args[0].device.type != CARD:
            result.uploaded = args[0]
        return result

    def _note_uploads(self, func: Any, tensors: list[Tensor]) -> None:
        for tensor in tensors:
            if tensor.device.type != CARD and tensor.dim():
                self.uploads.append(_transfer(func, tensor))

    def _answer(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        name = str(func.overloadpacket)
        if name not in _ANSWERS:
            raise NotImplementedError(f"FakeCard has no answer to {name}, at {_place()}.")
        source = args[1] if func.overloadpacket is aten.copy_ else args[0]
        self.read_backs.append(_transfer(func, source))
        return _ANSWERS[name](*args, **kwargs)


def _transfer(func: Any, tensor: Tensor) -> Transfer:
    return Transfer(_place(), str(func.overloadpacket).partition(".")[2], tuple(tensor.shape))


def _place() -> str:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module != __name__ and module.split(".")[0] != "torch":
            return f"{module.replace('.', '/')}.py:{frame.f_lineno}"
        if module == __name__ and frame.f_code is _walk.__code__:
            return f"backward of {frame.f_locals['node'].name()}"
        frame = frame.f_back
    return "?"


def _without_numbers(tensor: Tensor) -> Tensor:
    with unset_fake_temporarily():
        return torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")


def _scalar(tensor: Tensor) -> Any:
    return True if tensor.dtype == torch.bool else 0


def _to_cpu(tensor: Tensor, dtype: torch.dtype | None = None, **kwargs: Any) -> Tensor:
    dtype = dtype or tensor.dtype
    with unset_fake_temporarily():
        return torch.full(tensor.shape, dtype == torch.bool, dtype=dtype)


def _copy_to_cpu(target: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
    with unset_fake_temporarily():
        return target.zero_()


def _nonzero(tensor: Tensor) -> Tensor:
    return tensor.new_empty(tensor.numel(), tensor.dim(), dtype=torch.int64)


def _index(tensor: Tensor, indices: list[Tensor | None]) -> Tensor:
    """Take every element that a mask could choose."""
    ((place, mask),) = [(i, mask) for i, mask in enumerate(indices) if mask is not None]
    shape = tensor.shape
    return tensor.new_empty(*shape[:place], mask.numel(), *shape[place + mask.dim() :])


def _repeat_interleave(repeats: Tensor, output_size: int | None = None) -> Tensor:
    """Repeat as often as the numbers say that came from the CPU, else each once."""
    uploaded = getattr(repeats, "uploaded", None)
    with unset_fake_temporarily():
        count = len(repeats) if uploaded is None else int(uploaded.sum())
    return repeats.new_empty(count)


def _nms(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    return scores.new_empty(len(scores), dtype=torch.int64)


_ANSWERS: dict[str, Callable[..., Any]] = {
    "aten._local_scalar_dense": _scalar,
    "aten._to_copy": _to_cpu,
    "aten.copy_": _copy_to_cpu,
    "aten.nonzero": _nonzero,
    "aten.index": _index,
    "aten.masked_select": lambda tensor, mask: tensor.new_empty(mask.numel()),
    "aten.repeat_interleave": _repeat_interleave,
    "aten.equal": lambda tensor, other: True,
    "torchvision.nms": _nms,
}


def backward(loss: Tensor) -> None:
    """Send gradients back from a number, node by node: autograd's engine asks for real streams.

    Args:
        loss: a tensor of one element; parameters get a ``grad``.
    """
    # Checkpointing recomputes once for each run of the engine, which it knows by this number.
    number = id(loss)
    with mock.patch.object(torch._C, "_current_graph_task_id", return_value=number):
        _walk(loss.grad_fn, torch.ones_like(loss))


def _walk(root: Any, gradient: Tensor) -> None:
    waiting = _uses(root)
    gradients: dict[Any, list[Tensor | None]] = {root: [gradient]}
    ready = [root]
    while ready:
        node = ready.pop()
        incoming = gradients.pop(node)
        if hasattr(node, "variable"):
            node.variable.grad = incoming[0]
            continue
        for following, slot, outgoing in _run(node, incoming):
            wanted = following._input_metadata
            slots = gradients.setdefault(following, [None] * len(wanted))
            if outgoing is not None:
                fitting = outgoing.sum_to_size(wanted[slot].shape).to(wanted[slot].dtype)
                known = slots[slot]
                slots[slot] = fitting if known is None else known + fitting
            waiting[following] -= 1
            if not waiting[following]:
                ready.append(following)


def _run(node: Any, incoming: list[Tensor | None]) -> list[tuple[Any, int, Tensor | None]]:
    """Give the nodes that follow, which of their inputs is meant, and its gradient."""
    edges = node.next_functions
    if isinstance(node, BackwardCFunction):  # it has edges for tensors, gradients for all arguments
        outgoing = _as_tuple(node.apply(*incoming))
        needed = node.needs_input_grad
        outgoing = tuple(gradient for gradient, need in zip(outgoing, needed, strict=False) if need)
        edges = [edge for edge in edges if edge[0] is not None]
    else:
        outgoing = _as_tuple(node(*incoming))
    pairs = zip(edges, outgoing, strict=True)
    return [(*edge, gradient) for edge, gradient in pairs if edge[0] is not None]


def _as_tuple(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def _uses(root: Any) -> dict[Any, int]:
    """Count how many nodes send a gradient to each."""
    uses: dict[Any, int] = {root: 0}
    stack = [root]
    while stack:
        for following, _ in stack.pop().next_functions:
            if following is None:
                continue
            if following not in uses:
                stack.append(following)
            uses[following] = uses.get(following, 0) + 1
    return uses
