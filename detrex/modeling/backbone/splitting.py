"""Where a network can be split at one of its maps, found without a list of names.

The network is run once on the ``meta`` device and every call of a module is written down. A module
whose output has the shape of the map may be the entrance: everything that was left before it is
then taken out, and gradients tell whether the later map still depends on anything else.
"""

import contextlib
import copy
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx, nn
from torch.utils._pytree import tree_leaves, tree_map

from .inspection.meta_run import meta_twin

_TRIALS = 30
_ENTRANCE = "regions"


class NoSplitError(Exception):
    """A network cannot be split; the message is a clause that says why."""


@dataclass
class Regions:
    """What enters a split network; its modules share one of these.

    Attributes:
        layout: axes in which the entrance gives the regions' maps.
        maps: the regions' maps, None unless the network is run.
        watched: where empty tensors are gathered, None where nobody asks.
    """

    layout: str = "NCHW"
    maps: torch.Tensor | None = None
    watched: list[torch.Tensor] | None = None

    @contextlib.contextmanager
    def entering(self, maps: torch.Tensor) -> Iterator[None]:
        """Let maps ``(R, C, h, w)`` enter the network while it is run."""
        self.maps = maps
        try:
            yield
        finally:
            self.maps = None

    def given(self) -> torch.Tensor:
        """The regions' maps in the layout of the entrance."""
        assert self.maps is not None
        if self.layout == "NHWC":
            return self.maps.permute(0, 2, 3, 1).contiguous()
        if self.layout == "NLC":
            return self.maps.flatten(2).transpose(1, 2).contiguous()
        return self.maps

    def empty(self, seen: Any, batch: int) -> Any:
        """Give an empty tensor like one that was seen for another number of images."""
        if not isinstance(seen, torch.Tensor):
            return seen
        shape = list(seen.shape)
        if shape and shape[0] % batch == 0 and self.maps is not None:
            shape[0] = shape[0] // batch * len(self.maps)
        empty = torch.empty(shape, dtype=seen.dtype, device="meta")
        if self.watched is None or not empty.is_floating_point():
            return empty
        self.watched.append(empty.requires_grad_())
        return empty.clone()  # what follows may write into it


class _TakenOut(nn.Module):
    """Stands for a module that is not run: its outputs are empty, its attributes are there."""

    def __init__(self, stood_for: nn.Module, outputs: list[Any], regions: Regions) -> None:
        super().__init__()
        self._stood_for = (stood_for,)  # in a tuple, it is no child
        self._outputs, self._regions, self._calls = outputs, regions, 0

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__["_stood_for"][0], name)

    def forward(self, *_: Any, **__: Any) -> Any:
        output = self._outputs[self._calls % len(self._outputs)]
        self._calls += 1
        return tree_map(lambda leaf: self._regions.empty(leaf, 2), output)


class _Entrance(_TakenOut):
    """Stands for the module that gave the map: it gives the regions."""

    def forward(self, *_: Any, **__: Any) -> Any:
        return tree_map(
            lambda leaf: self._regions.given() if isinstance(leaf, torch.Tensor) else leaf,
            self._outputs[0],
        )


@dataclass
class _Call:
    """All calls of one module: when the first began and the last ended, and what each gave."""

    entered: int
    left: int = -1
    outputs: list[Any] = field(default_factory=list)

    @property
    def tensor(self) -> torch.Tensor | None:
        """The one tensor that the module's one call gave."""
        tensors = [leaf for leaf in tree_leaves(self.outputs) if isinstance(leaf, torch.Tensor)]
        return tensors[0] if len(tensors) == 1 else None


@dataclass
class _Record:
    """A run of a twin on ``meta``: the calls of its modules by name, and its maps."""

    twin: nn.Module
    image: torch.Tensor
    calls: dict[str, _Call]
    maps: dict[str, torch.Tensor]


def split(
    backbone: nn.Module, image: torch.Tensor, regions: Regions, in_feature: str, out_feature: str
) -> str:
    """Take out of a backbone what it computes up to one of its maps.

    Args:
        backbone: changed in place; of no use if this fails.
        image: empty images on ``meta``, of a size at which the map has a region's size.
        regions: what will enter; its layout is set.
        in_feature: name of the map.
        out_feature: name of the map that is still to be computed.

    Returns:
        The name of the module in whose place the regions enter.

    Raises:
        NoSplitError: there is no such module, or more than its map is needed.
    """
    record = _record(backbone, image)
    level_map = record.maps[in_feature]
    for name, module in backbone.named_modules():
        if isinstance(module, fx.GraphModule):
            (raw,) = record.calls[name].outputs
            output = next((key for key in _names(backbone, in_feature) if key in raw), None)
            regions.layout = _layout(raw.get(output), level_map)
            module.add_module(_ENTRANCE, _Entrance(nn.Identity(), [level_map], regions))
            if output is None or not regions.layout or not _split_graph(module, output):
                raise NoSplitError(f"{out_feature} is not computed from {in_feature} alone")
            _check_has_weights((f"{name}.{n}" for n, _ in module.named_parameters()), out_feature)
            _forget_frozen(backbone)
            return f"{name}.{_ENTRANCE}"
    for entrance in _candidates(record, level_map):
        regions.layout = _layout(record.calls[entrance].tensor, level_map)
        needed = _needed_parameters(record, entrance, regions.layout, in_feature, out_feature)
        if needed is None:
            continue
        _check_has_weights(needed, out_feature)
        _take_out(backbone, record, entrance, regions)
        _drop_unneeded(backbone, record.calls, entrance, needed)
        _forget_frozen(backbone)
        return entrance
    raise NoSplitError(
        f"no module of it gives {in_feature}, and nothing else, to what computes {out_feature}"
    )


def _names(backbone: nn.Module, feature: str) -> list[str]:
    """Names under which a network may give one of the backbone's maps, the source's the last."""
    rows = {row.name: str(row.source) for row in getattr(backbone, "features", ())}
    return [feature, rows.get(feature, feature)]


def _check_has_weights(needed: Iterable[str], out_feature: str) -> None:
    if all(name.startswith("pyramid.") for name in needed):
        raise NoSplitError(
            f"the network itself has no map {out_feature}, which is made by layers of the wrapper"
        )


def _record(backbone: nn.Module, image: torch.Tensor) -> _Record:
    """Run a twin of a backbone and write down the calls of its modules, the root being ``""``."""
    twin = meta_twin(backbone).eval()
    calls: dict[str, _Call] = {}
    clock = iter(range(2**31))

    def watch(name: str, module: nn.Module) -> list[Any]:
        def before(*_: Any) -> None:
            calls.setdefault(name, _Call(next(clock)))

        def after(_module: nn.Module, _inputs: Any, output: Any) -> None:
            calls[name].left = next(clock)
            calls[name].outputs.append(output)

        return [module.register_forward_pre_hook(before), module.register_forward_hook(after)]

    handles = [handle for name, module in twin.named_modules() for handle in watch(name, module)]
    try:
        with torch.no_grad():
            maps = twin(image)
    except Exception as error:  # any forward may fail in its own way
        height, width = image.shape[-2:]
        raise NoSplitError(
            f"an image of {height} x {width} fails with {type(error).__name__}: {error!s:.150}"
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    return _Record(twin, image, calls, maps)


def _layout(raw: torch.Tensor | None, level_map: torch.Tensor) -> str:
    """Axes in which a tensor holds as much as a map; empty where it does not."""
    n, c, h, w = level_map.shape
    shapes = {"NCHW": (n, c, h, w), "NHWC": (n, h, w, c), "NLC": (n, h * w, c)}
    fitting = (name for name, shape in shapes.items() if raw is not None and raw.shape == shape)
    return next(fitting, "")


def _candidates(record: _Record, level_map: torch.Tensor) -> list[str]:
    """Names of the modules that may give the map, the most likely first.

    Of modules that give one tensor, such as a stage, its last block and its last norm, that is the
    outermost around the first; what hands it on, such as a shortcut of the next stage, is not.
    """
    calls = record.calls
    names = [name for name, call in calls.items() if name and _layout(call.tensor, level_map)]
    names.sort(key=lambda name: calls[name].left)
    first: dict[int, str] = {}
    for name in names:
        given = id(calls[name].tensor)
        if first.setdefault(given, name).startswith(f"{name}."):
            first[given] = name
    latest = sorted(first.values(), key=lambda name: -calls[name].left)
    latest.sort(key=lambda name: calls[name].tensor is not level_map)
    return list(dict.fromkeys([*latest, *reversed(names)]))[:_TRIALS]


def _needed_parameters(
    record: _Record, entrance: str, layout: str, in_feature: str, out_feature: str
) -> set[str] | None:
    """What the later map needs besides the regions; None where the network is not split there."""
    trial = copy.deepcopy(record.twin).requires_grad_(True)
    leaf = torch.empty_like(record.maps[in_feature]).requires_grad_()
    regions = Regions(layout, watched=[])
    _take_out(trial, record, entrance, regions)
    try:
        with torch.enable_grad(), regions.entering(leaf.clone()):
            maps = trial(record.image)
    except Exception:  # any forward may fail in its own way; then this is no entrance
        return None
    parameters = dict(trial.named_parameters())
    watched = regions.watched or []
    earlier, later = (
        _depends(maps[name], [leaf, *watched, *parameters.values()])
        for name in (in_feature, out_feature)
    )
    count = 1 + len(watched)
    if not (earlier[0] and later[0]) or any(earlier[1:]) or any(later[1:count]):
        return None
    return {name for name, used in zip(parameters, later[count:], strict=True) if used}


def _depends(output: torch.Tensor, inputs: list[torch.Tensor]) -> list[bool]:
    """Whether a tensor depends on each of some others."""
    if not output.requires_grad:
        return [False] * len(inputs)
    ones = torch.ones_like(output)
    gradients = torch.autograd.grad(output, inputs, ones, retain_graph=True, allow_unused=True)
    return [gradient is not None for gradient in gradients]


def _take_out(
    backbone: nn.Module, record: _Record, entrance: str, regions: Regions, path: str = ""
) -> None:
    """Put stand-ins for the outermost modules that were left when the entrance was."""
    end = record.calls[entrance].left
    twin = record.twin.get_submodule(path)
    module = backbone.get_submodule(path)
    for name in list(module._modules):
        inner = f"{path}.{name}" if path else name
        call, child = record.calls.get(inner), module._modules[name]
        if child is None:
            continue
        if call is None or call.left > end:
            _take_out(backbone, record, entrance, regions, inner)
        else:
            kind = _Entrance if inner == entrance else _TakenOut
            stand_in = kind(twin.get_submodule(name), call.outputs, regions)
            # The object stays, for it may be held in lists and under other names as well.
            child.__class__ = kind
            object.__setattr__(child, "__dict__", stand_in.__dict__)


def _drop_unneeded(
    backbone: nn.Module, calls: dict[str, _Call], entrance: str, needed: set[str]
) -> None:
    """Take out parameters of what was run before the regions enter; others need no gradient."""
    end = calls[entrance].left
    for path, module in backbone.named_modules():
        call = calls.get(path)
        runs_only_later = call is not None and call.entered > end
        for name, parameter in list(module._parameters.items()):
            if parameter is None or f"{path}.{name}".lstrip(".") in needed:
                continue
            if runs_only_later:
                parameter.requires_grad_(False)
            else:
                del module._parameters[name]
                setattr(module, name, torch.empty_like(parameter, device="meta").detach())


def _forget_frozen(backbone: nn.Module) -> None:
    """Leave the modules that were taken out out of those that are kept frozen."""
    left, frozen = dict(backbone.named_modules()), getattr(backbone, "frozen_modules", None)
    if isinstance(frozen, tuple):
        backbone.frozen_modules = tuple(name for name in frozen if name in left)  # type: ignore[assignment]


def _split_graph(module: fx.GraphModule, output: str) -> bool:
    """Let regions enter a traced network in the place of an output; False where more is needed."""
    graphs: list[Any] = [
        getattr(module, name, module.graph) for name in ("train_graph", "eval_graph")
    ]
    for graph in {id(graph): graph for graph in graphs}.values():
        (outputs,) = next(node for node in graph.nodes if node.op == "output").args
        first = next(node for node in graph.nodes if node.op != "placeholder")
        with graph.inserting_before(first):
            entrance = graph.create_node("call_module", _ENTRANCE)
        outputs[output].replace_all_uses_with(entrance)
        for node in reversed(graph.nodes):
            if not node.users and node.op not in ("placeholder", "output"):
                graph.erase_node(node)
        if any(node.users for node in graph.nodes if node.op == "placeholder"):
            return False
    nodes = [node for graph in graphs for node in graph.nodes]
    targets = {str(node.target) for node in nodes if node.op in ("call_module", "get_attr")}
    _keep_only(module, "", targets)
    module.graph = graphs[0] if module.training else graphs[1]
    return True


def _keep_only(module: nn.Module, path: str, targets: set[str]) -> None:
    """Take out the modules that neither are among the targets nor hold one."""
    for name in list(module._modules):
        inner = f"{path}{name}"
        if inner in targets:
            continue
        if any(target.startswith(f"{inner}.") for target in targets):
            _keep_only(module.get_submodule(name), f"{inner}.", targets)
        else:
            del module._modules[name]
