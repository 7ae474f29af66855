"""The graph of a module, for images of any height and width."""

import contextlib
import logging
import math
import operator
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from detrex.errors import ConfigError
from detrex.export.symbolic import symbolic_sizes
from detrex.layers.deform_sampling.kernels import deformable_attention_kernel
from detrex.quiet import quiet_logs

EXAMPLE = (237, 331)
"""Height and width of the image that the graph is made with. Odd, so that zeros are added and cut
off wherever that may be needed, and above 7 * 32, so that windows are more than one."""

INPUT = "image"


def trace(module: nn.Module, image: Tensor) -> Any:
    """Make the graph of a module.

    Args:
        module: takes an image (1, C, H, W) and gives a dict of tensors; in evaluation mode.
        image: of the size `EXAMPLE`, or as near to it as the module takes.

    Returns:
        A `torch.export.ExportedProgram` whose input may have any height and width.

    Raises:
        ConfigError: the graph cannot be made; the cause is chained.
    """
    from torch.export import Dim, export

    sizes = {INPUT: {2: Dim.AUTO, 3: Dim.AUTO}}
    # What another program runs must be operations that it knows.
    with quiet(), symbolic_sizes(module), deformable_attention_kernel("grid_sample"):
        try:
            with torch.no_grad():
                program = export(module, (image,), dynamic_shapes=sizes, strict=False)
        except Exception as error:  # a forward can fail in any way
            raise ConfigError(
                f"torch.export cannot follow {type(module).__name__}: {type(error).__name__}: "
                f"{first_line(error)}"
            ) from error
    _divide_whole_numbers(program.graph)
    return _for_every_size(program)


def _for_every_size(program: Any) -> Any:
    """Drop what holds for the example and is no condition of the graph, such as ``H != W``.

    Whether the graph gives the same as the module at other sizes is checked by running it.
    """
    from torch.utils._sympy.value_ranges import ValueRanges

    for symbol, seen in list(program.range_constraints.items()):
        program.range_constraints[symbol] = ValueRanges(1, seen.upper)
    (image,) = (
        node.meta["val"]
        for node in program.graph.nodes
        if node.op == "placeholder" and node.name == INPUT
    )
    image.fake_mode.shape_env.guards.clear()
    getattr(program, "_guards_code", []).clear()  # the same as text, which is saved
    return program


def _divide_whole_numbers(graph: torch.fx.Graph) -> None:
    """Write ``math.ceil(a / b)`` of a size as ``(a + b - 1) // b``: no ``ceil`` can be saved."""
    for node in list(graph.nodes):
        ratio = node.args[0] if node.target is math.ceil else None
        if not isinstance(ratio, torch.fx.Node) or ratio.target is not operator.truediv:
            continue
        side, step = ratio.args
        if not isinstance(side, torch.fx.Node) or not isinstance(step, int):
            continue
        with graph.inserting_before(node):
            total = graph.call_function(operator.add, (side, step - 1))
            ceiling = graph.call_function(operator.floordiv, (total, step))
        total.meta = {**node.meta, "val": side.meta["val"] + step - 1}
        ceiling.meta = {**node.meta, "val": total.meta["val"] // step}
        node.replace_all_uses_with(ceiling)
        graph.erase_node(node)
        if not ratio.users:
            graph.erase_node(ratio)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Let torch and its converters keep their remarks on their own plans to themselves."""
    with quiet_logs(logging.WARNING), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def first_line(error: BaseException) -> str:
    """Give what an error says, in a line of at most 250 characters."""
    line = (str(error).strip() or "no reason given").split("\n")[0]
    return line if len(line) < 250 else f"{line[:250]}..."
