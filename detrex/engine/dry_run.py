"""A detector built and run on the ``meta`` device, without data or weights."""

import functools
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from omegaconf import DictConfig, ListConfig
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from detrex.config import resolve_pixel_statistics
from detrex.config.backbone_node import without_weights
from detrex.config.building import build_on_meta, refused_strides
from detrex.config.lazy_call import is_call, target_name
from detrex.config.lint import lazy_calls
from detrex.config.validation import peek, read
from detrex.detectors import backbone_parts
from detrex.engine.meta_forward import padded_size, run_on_meta
from detrex.modeling.backbone.features.coverage import Size

DEFAULT_SIZE: Size = (800, 1333)


@dataclass
class DryRun:
    """What was seen of a detector.

    Attributes:
        size: height and width of the training image in pixels.
        levels: lines on the backbone's outputs.
        neck: lines on the neck's levels.
        parameters: total and trainable number by part of the detector, ``"all"`` last.
        gflops: multiply-adds of backbone, neck and transformer for one image, in 1e9, those of
            convolutions and matrix products.
        activation_bytes: kept for the backward pass of one image, parameters not counted.
        frozen: the table of frozen and trainable parameters by level, where the backbone has one.
        notes: what was left out, and why.
        findings: what failed.
    """

    size: Size
    levels: list[str] = field(default_factory=list)
    neck: list[str] = field(default_factory=list)
    parameters: dict[str, tuple[int, int]] = field(default_factory=dict)
    gflops: float | None = None
    activation_bytes: int | None = None
    frozen: str = ""
    notes: list[str] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)


def dry_run(model: DictConfig, size: Size | None = None) -> DryRun:
    """Build a detector and run what can be run.

    Args:
        model: its lazy call.
        size: height and width of the training image in pixels; None for the square that the
            backbone takes, or else 800 x 1333.

    Returns:
        What was seen; a failure is a finding and ends what depends on it.
    """
    model, notes = without_weights(model, "model")
    seen = DryRun(size or DEFAULT_SIZE, notes=notes)
    _attempt(seen, "model", lambda: resolve_pixel_statistics(model))
    detector = _build(model, seen)
    if detector is None:
        return seen
    seen.parameters = count_parameters(detector)
    backbone = getattr(detector, "backbone", None)
    if size is None:
        square = (getattr(backbone, "padding_constraints", None) or {}).get("square_size", 0)
        seen.size = (square, square) if square else DEFAULT_SIZE
    if isinstance(backbone, nn.Module):
        _attempt(seen, "model.backbone", lambda: _describe_backbone(detector, seen))
    detector.train()
    saved = SavedBytes(detector)
    with FlopCounterMode(display=False) as flops, saved:
        forward = run_on_meta(detector, seen.size, functools.partial(_attempt, seen))
        seen.activation_bytes = saved.total or None
    seen.neck, seen.notes = forward.neck, seen.notes + forward.notes
    seen.gflops = flops.get_total_flops() / 2e9 or None
    return seen


def _build(model: DictConfig, seen: DryRun) -> Any:
    """Build a detector; where that fails its parts, so that each tells its own mistake."""
    whole: list[str] = []
    try:
        built = build_on_meta(model)
        if isinstance(built, nn.Module):
            return built
        seen.findings.append(f"model is a {type(built).__name__}, expected a module of PyTorch's.")
        return None
    except Exception as error:  # a config can break in any way
        whole.append(_sentence("model", error))
    for name in sorted(model, key=lambda name: name != "backbone"):
        part = read(model, str(name))
        if is_call(part):
            _attempt(seen, f"model.{name!s}", functools.partial(build_on_meta, part))
    seen.findings = seen.findings or whole
    return None


def training_size(cfg: Any) -> Size | None:
    """Give the largest image that the training augmentation makes.

    Args:
        cfg: the whole config.

    Returns:
        Height and width in pixels; None where no crop to a fixed size, and no resizing with a
        shortest and a longest side, says so, for the pictures themselves are not opened.
    """
    sizes = []
    for _, call in lazy_calls(peek(cfg, "dataloader.train.mapper"), ""):
        crop = _integers(read(call, "crop_size"))
        if len(crop) == 2 and target_name(call) == "FixedSizeCrop":
            return crop[0], crop[1]
        edges, longest = (
            _integers(read(call, "short_edge_length")),
            _integers(read(call, "max_size")),
        )
        if edges and longest:
            sizes.append((min(max(edges), longest[0]), longest[0]))
    return max(sizes, default=None)


def _integers(value: Any) -> list[int]:
    """A size or several, empty where one is no number above 0; such are told as mistakes."""
    values = list(value) if isinstance(value, ListConfig) else [value]
    return values if all(isinstance(v, int) and v > 0 for v in values) else []


def count_parameters(detector: nn.Module) -> dict[str, tuple[int, int]]:
    """Count the parameters of each part of a detector, and of all, once each."""
    counts: dict[str, list[int]] = {}
    for name, parameter in detector.named_parameters():
        count = counts.setdefault(name.partition(".")[0], [0, 0])
        count[0] += parameter.numel()
        count[1] += parameter.numel() if parameter.requires_grad else 0
    totals = [sum(column) for column in zip(*counts.values(), strict=True)] or [0, 0]
    return {name: (c[0], c[1]) for name, c in [*counts.items(), ("all", totals)]}


class SavedBytes(torch.autograd.graph.saved_tensors_hooks):
    """Count the bytes that autograd keeps for the backward pass, each storage once.

    Args:
        module: its parameters and buffers are not counted.
    """

    def __init__(self, module: nn.Module) -> None:
        own = [*module.parameters(), *module.buffers()]
        self._skipped = {tensor.untyped_storage()._cdata for tensor in own}
        self._kept: dict[int, Any] = {}
        super().__init__(self._pack, lambda tensor: tensor)

    @property
    def total(self) -> int:
        """Bytes so far."""
        return sum(storage.nbytes() for storage in self._kept.values())

    def _pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._skipped:
            self._kept[storage._cdata] = storage
        return tensor


def _attempt(seen: DryRun, what: str, action: Callable[[], Any]) -> Any:
    """Do something; what goes wrong becomes a finding."""
    try:
        return action()
    except Exception as error:  # a config can break in any way
        finding = _sentence(what, error)
        if finding not in seen.findings:
            seen.findings.append(finding)
        return None


def _sentence(what: str, error: Exception) -> str:
    text = str(error).strip().split("\n")[0]
    if refusal := refused_strides(error):
        text = f"{refusal}."
    elif isinstance(error, ModuleNotFoundError):
        text += ": install the package"
    elif isinstance(error, AssertionError | LookupError) or not text:
        line = traceback.extract_tb(error.__traceback__)[-1].line or ""
        text = f"{type(error).__name__}{': ' if text else ''}{text} at `{line[:120]}`"
    elif isinstance(error, RuntimeError):
        text += _layer_of(error)
    return f"{what}: {text}"


def _layer_of(error: RuntimeError) -> str:
    """Say which layer refused its input: torch says of shapes alone."""
    found = ""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        layer = frame.f_locals.get("self")
        given = frame.f_locals.get("input", frame.f_locals.get("x"))
        if isinstance(layer, nn.Module) and isinstance(given, Tensor):
            found = f" (in {' '.join(str(layer).split())[:100]}, given {tuple(given.shape)})"
    return found


def _describe_backbone(detector: nn.Module, seen: DryRun) -> None:
    """Write down the levels of a backbone and of what is inside it, and what is frozen."""
    parts = backbone_parts(detector)
    seen.frozen = getattr([*parts.values()][-1], "parameter_table", "") or frozen_text(
        parts["backbone"]
    )
    height, width = padded_size(parts["backbone"], seen.size)
    for path, part in parts.items():
        shapes = part.output_shape() if hasattr(part, "output_shape") else {}
        features = {f.name: f for f in getattr(part, "features", ())}
        inner = path.removeprefix("backbone").lstrip(".")
        seen.levels += [f"from {inner}"] if inner else []
        for name, shape in shapes.items():
            info = features.get(name)
            derivation = f", {info.derivation}" if info and info.derivation else ""
            source = f"  from {info.source}{derivation}" if info else ""
            stride = shape.stride or 1
            cells = f"{-(-height // stride)} x {-(-width // stride)}"
            seen.levels.append(
                f"{name:<6} {shape.channels:>5} channels  stride {stride:<3} {cells:>9} cells"
                f"{source}"
            )
        rule = getattr(part, "input_size", None)
        seen.levels += [] if rule is None else [str(rule)]
    if (height, width) != seen.size:
        seen.levels.append(f"images are padded to {height} x {width}")


def frozen_text(module: nn.Module) -> str:
    """Name the outermost parts of a module that do not train, and the share of its parameters."""
    parameters = list(module.parameters())
    total = sum(p.numel() for p in parameters)
    frozen = sum(p.numel() for p in parameters if not p.requires_grad)
    names = list(_frozen_parts(module, ""))
    listed = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
    norms = sum(type(part).__name__.startswith("Frozen") for part in module.modules())
    lines = [f"frozen: {listed or 'none'}; {frozen:,} of {total:,} parameters"]
    lines += [f"norms with frozen statistics: {norms}"] if norms else []
    return "\n".join(lines)


def _frozen_parts(module: nn.Module, path: str) -> Iterator[str]:
    states = {p.requires_grad for p in module.parameters()}
    if states == {False}:
        yield path or "all"
    elif len(states) == 2:
        own = dict(module.named_parameters(recurse=False))
        yield from (f"{path}.{n}".lstrip(".") for n, p in own.items() if not p.requires_grad)
        for name, child in module.named_children():
            yield from _frozen_parts(child, f"{path}.{name}".lstrip("."))
