"""Gradient checkpointing for any network: blocks compute their activations again in the backward.

Blocks are found by structure: the composite members of a chain (`nn.Sequential`, `nn.ModuleList`,
`nn.ModuleDict`) that come more than once and hold no such members themselves. torchvision's
extractors are graphs whose blocks were traced through, so there a block is a stretch of the graph.
Losses and gradients are those without checkpointing: the random state is restored, and batch norms
count each batch once. Method: Chen et al., arXiv 1604.06174.
"""

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.utils.checkpoint import checkpoint

from detrex.errors import BackboneError
from detrex.modeling.backbone.inspection.blocks import block_names


def checkpoint_blocks(network: nn.Module) -> int:
    """Turn gradient checkpointing on for the blocks of a network.

    It is active in training mode with gradients enabled, and passes over blocks without trainable
    parameters. Names of parameters, classes, copies and evaluation stay as they are.

    Args:
        network: changed in place: any module, or an extractor of torchvision.

    Returns:
        Number of blocks with trainable parameters; 0 where none were found.
    """
    blocks = block_names(network)
    modules = dict(network.named_modules())
    if isinstance(network, fx.GraphModule):
        # A graph whose blocks are cut at the next one's start; its class rebuilds them in copies.
        network.__class__ = type("GraphModuleImpl", (_checkpointed_graph_class(),), {})
        network.recompile()
        return sum(_is_trainable(modules[name]) for name in blocks)
    chosen = [modules[name] for name in blocks if not _is_listened_to(modules[name])]
    for block in chosen:
        block.forward = functools.partial(_run_block, block)
    return sum(_is_trainable(block) for block in chosen)


def _is_trainable(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())


def _is_listened_to(block: nn.Module) -> bool:
    """Whether hooks inside take tensors out, which they would do twice."""
    return any(m._forward_hooks or m._forward_pre_hooks for m in block.modules() if m is not block)


def _run_block(block: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """Forward of a checkpointed block, which is in its ``__dict__``."""
    run = functools.partial(type(block).forward, block)
    if not (block.training and torch.is_grad_enabled() and _is_trainable(block)):
        return run(*args, **kwargs)
    return _checkpointed(run, [block], args, kwargs)


def _checkpointed(
    run: Callable[..., Any],
    modules: Sequence[nn.Module],
    args: Sequence[Any],
    kwargs: dict[str, Any],
) -> Any:
    if torch.compiler.is_compiling():
        return checkpoint(run, *args, use_reentrant=False, **kwargs)
    tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)]
    versions = [tensor._version for tensor in tensors]

    def contexts() -> tuple[Any, Any]:
        return contextlib.nullcontext(), _second_run(modules, tensors, versions)

    return checkpoint(run, *args, use_reentrant=False, context_fn=contexts, **kwargs)


@contextlib.contextmanager
def _second_run(
    modules: Sequence[nn.Module], tensors: Sequence[torch.Tensor], versions: Sequence[int]
) -> Iterator[None]:
    """Compute a block again: from equal inputs, and on copies of the running statistics."""
    if [tensor._version for tensor in tensors] != versions:
        raise BackboneError(
            f"the input of a checkpointed {type(modules[0]).__name__} was changed in place, so it "
            "cannot be computed again: leave grad_checkpointing out."
        )
    with keeping_statistics(modules):
        yield


@contextlib.contextmanager
def keeping_statistics(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Run modules on copies of their running statistics, which stay as they are.

    Args:
        modules: what is run; batch norms inside that are in training mode still normalise by the
            batch.
    """
    kept = []
    for module in (m for root in modules for m in root.modules()):
        if module.training and "running_mean" in module._buffers:
            kept.append((module, dict(module._buffers)))
            for name, buffer in kept[-1][1].items():
                module._buffers[name] = None if buffer is None else buffer.clone()
    try:
        yield
    finally:
        for module, buffers in kept:
            module._buffers.update(buffers)


@dataclass(frozen=True)
class _Segment:
    """Stretch of a graph that is run at once.

    Attributes:
        run: gives its outputs for the network and its inputs.
        inputs: names of the nodes before it that it needs.
        outputs: names of its nodes that later ones need.
        block: name of the block that it computes, None for what lies between blocks.
    """

    run: Callable[..., tuple[Any, ...]]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    block: str | None


def _segments(module: fx.GraphModule) -> list[_Segment]:
    """Cut a graph where another block begins, or what belongs to none."""
    blocks = block_names(module)
    stretches: list[tuple[str | None, list[fx.Node]]] = [(None, [])]
    for node in module.graph.nodes:
        if node.op in ("placeholder", "output"):
            continue
        block = stretches[-1][0]
        if node.op in ("call_module", "get_attr"):
            path = f"{node.target}."
            block = next((name for name in blocks if path.startswith(f"{name}.")), None)
        if block != stretches[-1][0]:
            stretches.append((block, []))
        stretches[-1][1].append(node)
    return [_segment(module, block, nodes) for block, nodes in stretches]


def _segment(module: fx.GraphModule, block: str | None, nodes: Sequence[fx.Node]) -> _Segment:
    """Compile a stretch of a graph to a function of the network and the nodes that it needs."""
    inside = dict.fromkeys(nodes)
    needed = dict.fromkeys(n for node in nodes for n in node.all_input_nodes)
    inputs = [node for node in needed if node not in inside]
    outputs = [node for node in nodes if any(user not in inside for user in node.users)]
    graph = fx.Graph()
    copies = {node: graph.placeholder(node.name) for node in inputs}
    for node in nodes:
        copies[node] = graph.node_copy(node, copies.__getitem__)
    graph.output(tuple(copies[node] for node in outputs))
    run = type(fx.GraphModule(module, graph)).forward
    before, after = (tuple(node.name for node in row) for row in (inputs, outputs))
    return _Segment(run, before, after, block)


def _run_graph(
    module: fx.GraphModule,
    segments: Sequence[_Segment],
    inputs: Sequence[str],
    outputs: Mapping[str, str],
    images: Sequence[torch.Tensor],
) -> dict[str, Any]:
    """Run the whole graph, its blocks under checkpoints."""
    known: dict[str, Any] = dict(zip(inputs, images, strict=True))
    for segment in segments:
        values = [known[name] for name in segment.inputs]
        run = functools.partial(segment.run, module)
        block = None if segment.block is None else module.get_submodule(segment.block)
        if block is not None and _is_trainable(block):
            results = _checkpointed(run, [block], values, {})
        else:
            results = run(*values)
        known.update(zip(segment.outputs, results, strict=True))
    return {name: known[node] for name, node in outputs.items()}


@functools.cache
def _checkpointed_graph_class() -> type[fx.GraphModule]:
    from torchvision.models.feature_extraction import DualGraphModule

    class CheckpointedExtractor(DualGraphModule):
        """Extractor whose training graph is run block by block."""

        def recompile(self) -> Any:
            """Compile the graph, which gives the class its forward, and wrap that."""
            code = super().recompile()
            plain = type(self).forward
            segments = _segments(self)
            inputs = [node.name for node in self.graph.nodes if node.op == "placeholder"]
            (result,) = next(node.args for node in self.graph.nodes if node.op == "output")
            outputs = {name: node.name for name, node in result.items()}

            def forward(module: Any, *images: Any) -> Any:
                if module.training and torch.is_grad_enabled():
                    return _run_graph(module, segments, inputs, outputs, images)
                return plain(module, *images)

            type(self).forward = forward
            return code

    return CheckpointedExtractor


def checkpoint_network(network: nn.Module, who: str) -> None:
    """Turn gradient checkpointing on.

    Args:
        network: changed in place.
        who: its name, for the message.

    Raises:
        BackboneError: no blocks were found in it.
    """
    from .activation_checkpointing import checkpoint_blocks

    learns = any(parameter.requires_grad for parameter in network.parameters())
    if not checkpoint_blocks(network) and learns:
        raise BackboneError(
            f"{who} has no repeated blocks whose activations could be computed again: leave "
            "grad_checkpointing out."
        )
