"""Networks built without random values, for weights that are about to be loaded.

Drawing 300 million normal numbers takes longer than reading them from a file that replaces them.
What the file turns out not to have gets the values of a network that is built in the ordinary way.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

logger = logging.getLogger(__name__)

# Methods of tensors and functions of torch.nn.init.
_RANDOM = frozenset(
    f"{name}_"
    for name in (
        *("normal", "uniform", "trunc_normal", "kaiming_uniform", "kaiming_normal"),
        *("xavier_uniform", "xavier_normal"),
    )
)
_OVERWRITING = frozenset({"copy_", "fill_", "zero_", "ones_", "zeros_", "constant_"})
# What follows a draw in place, to give it a deviation, a mean and bounds.
_SHAPING = frozenset(
    {"erfinv_", "mul_", "add_", "sub_", "div_", "clamp_", "clamp_min_", "clamp_max_"}
)
# What needs a tensor's place or shape alone.
_READING_NOTHING = frozenset(
    ("__get__", "__set__", "detach", "requires_grad_", "size", "dim", "numel", "view", "view_as")
)


class SkipRandomFills(TorchFunctionMode):
    """Leave out, in this thread, what fills tensors with random numbers; note which they are.

    A tensor that is computed of a blank one counts as blank, one that is overwritten as a whole by
    something else does not.
    """

    def __init__(self) -> None:
        super().__init__()
        # The storages are kept, lest another tensor gets the address of one of them.
        self._blank: dict[int, Any] = {}
        self._arbitrary: list[Tensor] = []  # those of whose memory nothing was written

    def is_blank(self, tensor: Tensor) -> bool:
        """Tell whether a tensor's memory lacks values that were to be drawn."""
        return not tensor.is_meta and tensor.untyped_storage().data_ptr() in self._blank

    def forget(self) -> None:
        """Take every tensor for one that has its values."""
        self._blank.clear()
        self._arbitrary.clear()

    def __torch_function__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        name = getattr(func, "__name__", "")
        target = args[0] if args else (kwargs or {}).get("tensor")
        if isinstance(target, Tensor):
            if name in _RANDOM:
                self._skip(target)
                return target
            if name in _SHAPING and self.is_blank(target):
                return target
        if name not in _READING_NOTHING:
            self._settle(_tensors_in(args))
        result = func(*args, **(kwargs or {}))
        if not self._blank:
            return result
        is_blank = any(map(self.is_blank, _tensors_in(args)))
        if name in _OVERWRITING and isinstance(target, Tensor):
            is_blank = any(map(self.is_blank, _tensors_in(args[1:])))
            if target.numel() * target.element_size() == _bytes(target):
                self._blank.pop(target.untyped_storage().data_ptr(), None)
        if is_blank:
            for tensor in _tensors_in((target if name == "__setitem__" else result,)):
                self._note(tensor)
        return result

    def _skip(self, tensor: Tensor) -> None:
        self._note(tensor)
        self._arbitrary.append(tensor)

    def _settle(self, arguments: Iterable[Tensor]) -> None:
        """Fill what is to be read with zeros.

        They pass for drawn numbers where these are drawn again until they lie near 0.
        """
        read = {
            tensor.untyped_storage().data_ptr() for tensor in arguments if self.is_blank(tensor)
        }
        if not read:
            return
        kept = []
        for tensor in self._arbitrary:
            if not tensor.is_meta and tensor.untyped_storage().data_ptr() in read:
                with torch.no_grad():
                    tensor.zero_()
            else:
                kept.append(tensor)
        self._arbitrary = kept

    def _note(self, tensor: Tensor) -> None:
        if not tensor.is_meta:
            storage = tensor.untyped_storage()
            self._blank[storage.data_ptr()] = storage


def _bytes(tensor: Tensor) -> int:
    return tensor.untyped_storage().nbytes()


def _tensors_in(values: Sequence[Any]) -> Iterator[Tensor]:
    """Tensors among values, and in the lists among these."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, tuple | list):
            yield from (item for item in value if isinstance(item, Tensor))


class LateInit:
    """A network built without random values.

    Args:
        build: builds it.

    Attributes:
        network: what was built; parameters have no sensible values where `build` draws them.
    """

    def __init__(self, build: Callable[[], nn.Module]) -> None:
        self._build = build
        self._skipped = SkipRandomFills()
        try:
            with self._skipped:
                self.network = build()
            self._refuse_loose_tensors()
        except Exception as error:  # a constructor may compute with its random values
            logger.debug("built with random values (%s: %s)", type(error).__name__, error)
            self._skipped.forget()
            self.network = build()

    def _refuse_loose_tensors(self) -> None:
        """Raise where a module holds random values besides its parameters and buffers."""
        for name, module in self.network.named_modules():
            for attribute, value in vars(module).items():
                if isinstance(value, Tensor) and self._skipped.is_blank(value):
                    raise ValueError(f"{name}.{attribute} is random and no buffer")

    def fill_rest(self, network: nn.Module, filled: Iterable[Tensor]) -> list[str]:
        """Give the parameters and buffers that got no weights the values that `build` gives them.

        Args:
            network: `network`, or one that shares its tensors under the same names.
            filled: tensors of it that have weights.

        Returns:
            Names of those that had none; nothing is built where there are none.
        """
        done = {id(tensor) for tensor in filled}
        rest = {
            name: tensor
            for name, tensor in _named_tensors(network)
            if id(tensor) not in done
            and not tensor.is_meta
            and (isinstance(tensor, nn.Parameter) or self._skipped.is_blank(tensor))
        }
        if rest:
            fresh = dict(_named_tensors(self._build()))
            with torch.no_grad():
                for name, tensor in rest.items():
                    tensor.copy_(fresh[name])
        return list(rest)


def _named_tensors(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    return chain(
        network.named_parameters(remove_duplicate=False),
        network.named_buffers(remove_duplicate=False),
    )
