"""A detector built and run on the ``meta`` device, without data or weights."""

import copy
import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from omegaconf import DictConfig, ListConfig
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from detrex.config import resolve_pixel_statistics
from detrex.config.building import build_on_meta
from detrex.config.lint import lazy_calls
from detrex.config.validation import peek, read

Size = tuple[int, int]

DEFAULT_SIZE: Size = (800, 1333)
_NO_WEIGHTS = {"weights": None, "pretrained": False, "checkpoint_path": ""}


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


def dry_run(model: DictConfig, size: Size) -> DryRun:
    """Build a detector part by part and run what can be run.

    Args:
        model: its lazy call.
        size: height and width of the training image in pixels.

    Returns:
        What was seen; a failure is a finding and ends what depends on it.
    """
    seen = DryRun(size)
    model = without_weights(model, seen.notes)
    _attempt(seen, "model", lambda: resolve_pixel_statistics(model))
    backbone = None
    if "backbone" in model:
        backbone = _attempt(seen, "model.backbone", lambda: build_on_meta(model.backbone))
    if backbone is not None:
        _attempt(seen, "model.backbone", lambda: _look_at_backbone(backbone, seen))
    if backbone is None and "backbone" in model:
        # What is left is built part by part, so that its mistakes are told as well.
        for name, part in model.items():
            if name != "backbone" and isinstance(part, DictConfig) and "_target_" in part:
                _attempt(seen, f"model.{name!s}", functools.partial(build_on_meta, part))
        return seen
    detector = _attempt(seen, "model", lambda: build_on_meta(model))
    if detector is not None:
        seen.parameters = count_parameters(detector)
        _attempt(seen, "model", lambda: _run(detector, seen))
    return seen


def training_size(cfg: Any) -> tuple[int, int]:
    """Give the largest image that the training augmentation makes.

    Args:
        cfg: the whole config.

    Returns:
        Height and width in pixels; 800 x 1333 where no resizing with a shortest and a longest side
        says so, for the pictures themselves are not opened.
    """
    sizes = []
    for _, call in lazy_calls(peek(cfg, "dataloader.train.mapper"), ""):
        edge, longest = read(call, "short_edge_length"), read(call, "max_size")
        edges = edge if isinstance(edge, ListConfig) else [edge]
        numbers = [value for value in (*edges, longest) if isinstance(value, int) and value > 0]
        if len(numbers) == len(edges) + 1 > 1:  # other values are no sizes, and told as mistakes
            sizes.append((max(numbers[:-1]), numbers[-1]))
    return max(sizes, default=DEFAULT_SIZE)


def without_weights(model: DictConfig, notes: list[str]) -> DictConfig:
    """Copy a config with nothing left to be fetched or read.

    Args:
        model: a lazy call with its parts.
        notes: gets a line for each thing left out.

    Returns:
        The copy.
    """
    model = copy.deepcopy(model)
    for path, node in lazy_calls(model, "model"):
        for key, nothing in _NO_WEIGHTS.items():
            if node.get(key):
                notes.append(f"{path}.{key}={node[key]!s} is left out: nothing is fetched")
                node[key] = nothing
    return model


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
        text = str(error).strip().split("\n")[0]
        finding = f"{what}: {text or type(error).__name__}"
        if finding not in seen.findings:
            seen.findings.append(finding)
        return None


def _look_at_backbone(backbone: nn.Module, seen: DryRun) -> None:
    shapes: dict[str, Any] = backbone.output_shape()  # type: ignore[operator]
    features = {f.name: f for f in getattr(backbone, "features", ())}
    height, width = seen.size
    for name, shape in shapes.items():
        info = features.get(name)
        derivation = f", {info.derivation}" if info and info.derivation else ""
        source = f"  from {info.source}{derivation}" if info else ""
        stride = shape.stride or 1
        cells = f"{-(-height // stride)} x {-(-width // stride)}"
        seen.levels.append(
            f"{name:<6} {shape.channels:>5} channels  stride {stride:<3} {cells:>9} cells{source}"
        )
    rule = getattr(backbone, "input_size", None)
    if rule is not None:
        seen.levels.append(str(rule))
    frozen = getattr(backbone, "frozen_modules", ())
    listed = ", ".join(frozen[:4]) + (f" and {len(frozen) - 4} more" if len(frozen) > 4 else "")
    seen.frozen = getattr(backbone, "parameter_table", "") or f"frozen modules: {listed or 'none'}"


def _run(detector: nn.Module, seen: DryRun) -> None:
    """Run a detector of DINO's kind up to its hidden states, or else the backbone alone."""
    image = torch.empty(_image_channels(detector), *seen.size, device="meta")
    detector.train()
    saved = SavedBytes(detector)
    with FlopCounterMode(display=False) as flops, saved:
        if hasattr(detector, "extract_levels") and hasattr(detector, "transformer"):
            features, masks = detector.extract_levels([image])  # type: ignore[operator]
            positions = [detector.position_embedding(mask) for mask in masks]  # type: ignore[operator]
            kept: Any = detector.transformer(  # type: ignore[operator]
                features, masks, positions, query_embed=(None, None), attn_masks=None
            )
            seen.neck = [
                f"level {place}  {f.shape[1]} channels  {f.shape[2]} x {f.shape[3]} cells"
                for place, f in enumerate(features)
            ]
        elif callable(backbone := getattr(detector, "backbone", None)):
            kept = backbone(image[None])
            seen.notes.append("the backbone alone was run: the detector is not of DINO's kind")
        else:
            seen.notes.append("nothing was run: the detector has no backbone")
            return
        seen.activation_bytes = saved.total
    del kept
    seen.gflops = flops.get_total_flops() / 2e9


def _image_channels(detector: nn.Module) -> int:
    mean = getattr(detector, "pixel_mean", None)
    return mean.shape[0] if isinstance(mean, Tensor) else 3
