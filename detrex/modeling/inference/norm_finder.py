"""Which batch norm can become a part of which convolution, found by a run.

A norm with fixed statistics is a scale and a shift per channel, so it can go into the weights of
the convolution before it. That is right only where every output of the convolution goes into that
norm and nowhere else, which no list of module names tells; the operations of a run do.
"""

import contextlib
import gc
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from detrex.modeling.backbone.inspection.meta_run import meta_twin

from .norm_folding import STATISTICS, NormAfterConv, has_fixed_statistics


def find_foldable_norms(network: nn.Module, run: Callable[[nn.Module], Any]) -> list[NormAfterConv]:
    """Find the norms that a run shows to be a part of a convolution.

    Each call of such a norm takes exactly what a call of the convolution's kernel gave, with the
    module's own weight and bias; nothing else reads that tensor, holds it or gives it out; and each
    of the two is called as often as the other. The norm has fixed statistics in its present mode:
    a frozen batch norm, or a live one in evaluation mode. Modules with hooks or parametrisations
    stay, and so do norms whose class has a forward of its own.

    Args:
        network: it is run as it is, in its present mode and on its own device; nothing of it
            changes but what `run` changes. Give a twin on the meta device (`meta_twin`) where the
            network runs there.
        run: calls the network, and gives whatever the network gives.

    Returns:
        One row for each such norm, in the order of the modules.
    """
    norms = {id(m): (n, m) for n, m in network.named_modules() if has_fixed_statistics(m)}
    norms = {key: row for key, row in norms.items() if not _is_watched(row[1])}
    convs = _own_weights(network)
    if not norms or not convs:
        return []
    record = _Record(convs, {key: norm for key, (_, norm) in norms.items()})
    with _lent_biases(convs.values()), _watching(record, norms.values()), torch.no_grad(), record:
        outputs = run(network)
    pairs = record.pairs()
    del outputs
    held = _held_outside(network)
    names = {id(module): name for name, module in network.named_modules()}
    return [
        NormAfterConv(names[pairs[key]], name)
        for key, (name, _) in norms.items()
        if key in pairs and key not in held
    ]


def find_foldable_norms_on_meta(network: nn.Module, *inputs: Tensor) -> list[NormAfterConv]:
    """As `find_foldable_norms`, by a run of a twin on the meta device, which costs no arithmetic.

    Args:
        network: it is not run itself; its modes are the twin's.
        *inputs: what its forward takes, tensors of any device.

    Raises:
        Exception: whatever the forward raises on empty tensors.
    """
    empty = [value.to("meta") for value in inputs]
    return find_foldable_norms(meta_twin(network), lambda twin: twin(*empty))


@dataclass
class _Given:
    """A tensor that a convolution gave: by which module, and whether a norm alone has read it."""

    conv: int
    norm: int | None = None
    is_read_elsewhere: bool = False


@dataclass
class _Reading:
    """A call of a norm that has not returned."""

    norm: int
    tensor: Tensor | None


class _Record(TorchDispatchMode):
    """Writes down which norm reads what which convolution gave.

    Args:
        convs: convolutions by the id of their weight.
        norms: norms by their id.
    """

    def __init__(self, convs: dict[int, _ConvNd], norms: dict[int, nn.Module]) -> None:
        super().__init__()
        self.convs = convs
        self.given: Any = WeakTensorKeyDictionary()  # of those that are alive
        self.rows: list[_Given] = []
        self.calls: Counter[int] = Counter()
        self.open: list[_Reading] = []
        self.spoilt: set[int] = set()
        self.owners = {
            id(value): key
            for key, norm in norms.items()
            for name in STATISTICS
            if (value := getattr(norm, name)) is not None
        }

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        conv = self._conv_of(func, args)
        for leaf in tree_leaves((args, kwargs)):
            if isinstance(leaf, Tensor):
                self._read(leaf, conv)
        result = func(*args, **(kwargs or {}))
        if conv is not None:
            self.rows.append(_Given(id(conv)))
            self.given[result] = self.rows[-1]
        return result

    def _conv_of(self, func: Any, args: tuple[Any, ...]) -> _ConvNd | None:
        """The module whose weight and bias a convolution takes, None for any other operation."""
        if func is not torch.ops.aten.convolution.default:
            return None
        conv = self.convs.get(id(args[1]))
        return conv if conv is not None and args[2] is conv.bias else None

    def _read(self, tensor: Tensor, conv: _ConvNd | None) -> None:
        reading = self.open[-1] if self.open else None
        if (row := self.given.get(tensor)) is not None:
            norm = reading.norm if reading and reading.tensor is tensor else None
            row.is_read_elsewhere |= norm is None or row.norm not in (None, norm)
            row.norm = norm
        if self.convs.get(id(tensor)) is not conv and id(tensor) in self.convs:
            self.spoilt.add(id(self.convs[id(tensor)]))
        owner = self.owners.get(id(tensor))
        if owner is not None and (reading is None or reading.norm != owner):
            self.spoilt.add(owner)

    def pairs(self) -> dict[int, int]:
        """Norms that can be folded and their convolutions, by their ids."""
        if len(self.given):
            gc.collect()
        for row in self.given.values():  # alive: held by somebody, or among the outputs
            row.is_read_elsewhere = True
        partners: dict[int, set[int | None]] = {}
        for row in self.rows:
            reader = None if row.is_read_elsewhere else row.norm
            partners.setdefault(row.conv, set()).add(reader)
        single = {conv: next(iter(read)) for conv, read in partners.items() if len(read) == 1}
        gave = Counter(row.conv for row in self.rows)
        return {
            norm: conv
            for conv, norm in single.items()
            if norm is not None
            and self.calls[norm] == gave[conv]
            and not {conv, norm} & self.spoilt
        }


@contextlib.contextmanager
def _watching(record: _Record, norms: Any) -> Iterator[None]:
    """Tell a record when a norm is entered and left."""

    def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        tensor = next((v for v in (*args, *kwargs.values()) if isinstance(v, Tensor)), None)
        record.calls[id(module)] += 1
        record.open.append(_Reading(id(module), tensor))

    def leave(*_: Any) -> None:
        record.open.pop()

    handles: list[Any] = []
    for _, norm in norms:
        handles.append(norm.register_forward_pre_hook(enter, with_kwargs=True))
        handles.append(norm.register_forward_hook(leave))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextlib.contextmanager
def _lent_biases(convs: Any) -> Iterator[None]:
    """Give convolutions without a bias one of zeros, so that the run shows whether they use it."""
    without = [conv for conv in convs if conv.bias is None]
    for conv in without:
        conv.bias = nn.Parameter(conv.weight.new_zeros(conv.out_channels), requires_grad=False)
    try:
        yield
    finally:
        for conv in without:
            conv.bias = None


def _own_weights(network: nn.Module) -> dict[int, _ConvNd]:
    """Convolutions by the id of their weight: those that share it with no other module."""
    owners = Counter(
        id(value) for module in network.modules() for value in module._parameters.values()
    )
    return {
        id(module.weight): module
        for module in network.modules()
        if isinstance(module, _ConvNd)
        and not _is_watched(module)
        and owners[id(module.weight)] == 1
        and (module.bias is None or owners[id(module.bias)] == 1)
    }


def _is_watched(module: nn.Module) -> bool:
    """Whether a module has hooks, or a weight that is computed."""
    hooks = (module._forward_hooks, module._forward_pre_hooks)
    return any(hooks) or nn.utils.parametrize.is_parametrized(module)


def _held_outside(network: nn.Module) -> set[int]:
    """Ids of modules that a module holds besides its children, so that none can replace them."""
    held: set[int] = set()
    for module in network.modules():
        for value in vars(module).values():
            if value is module._modules:
                continue
            members = value.values() if isinstance(value, dict) else value
            members = members if isinstance(value, dict | list | tuple | set) else (value,)
            held.update(id(member) for member in members if isinstance(member, nn.Module))
    return held
