"""How each kind of file is written, and run to see that it gives the same.

A format is an object with ``write(program, file, description)``, which may put further files beside
the first, and ``load(file)``, which gives a function of an image. That one gives the outputs by
their names, and the choice of the graph's first top-k, None where it has none.
"""

import contextlib
import functools
import importlib.util
import io
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch import Tensor

from detrex.errors import ConfigError, did_you_mean
from detrex.export.program import INPUT
from detrex.export.reference import TokenChoice

Run = Callable[[Tensor], tuple[dict[str, Tensor], Tensor | None]]

METADATA = "detrex"
"""The key under which a file says of itself, in JSON, what it takes and gives."""


class Format(NamedTuple):
    """A kind of file.

    Attributes:
        suffix: how its files end.
        packages: what must be installed, by the names of the package index.
        write: writes a program and its description to a file.
        load: gives a function that runs a file on an image.
    """

    suffix: str
    packages: tuple[str, ...]
    write: Callable[[Any, Path, Mapping[str, Any]], None]
    load: Callable[[Path], Run]


@contextlib.contextmanager
def _sizes_printed_once() -> Iterator[None]:
    """Keep the text of each size: a detector's are sums over levels, printed thousands of times."""
    import sympy.printing.repr
    import sympy.printing.str

    with contextlib.ExitStack() as stack:
        for module, name in ((sympy.printing.str, "sstr"), (sympy.printing.repr, "srepr")):
            kept = functools.lru_cache(maxsize=None, typed=True)(getattr(module, name))
            stack.enter_context(mock.patch.object(module, name, kept))
        yield


@_sizes_printed_once()
def _write_program(program: Any, file: Path, description: Mapping[str, Any]) -> None:
    torch.export.save(program, file, extra_files={METADATA: json.dumps(description)})


def _load_program(file: Path) -> Run:
    module = torch.export.load(file).module()

    def run(image: Tensor) -> tuple[dict[str, Tensor], Tensor | None]:
        choice = TokenChoice()
        with choice:
            outputs = dict(module(image))
        return outputs, choice.tokens

    return run


@_sizes_printed_once()
def _write_onnx(program: Any, file: Path, description: Mapping[str, Any]) -> None:
    names = list(description["outputs"])
    with contextlib.redirect_stdout(io.StringIO()):  # the converter tells its steps
        converted: Any = torch.onnx.export(
            program, input_names=[INPUT], output_names=names, dynamo=True, verbose=False
        )
    converted.model.metadata_props[METADATA] = json.dumps(description)
    _name_sizes(converted.model)
    converted.save(file)


def _name_sizes(model: Any) -> None:
    """Call the sizes of the image height and width."""
    import onnx_ir

    (image,) = model.graph.inputs
    if image.shape is not None and not isinstance(image.shape[2], int):
        image.shape = onnx_ir.Shape([*list(image.shape)[:2], "height", "width"])
    for output in model.graph.outputs:  # sizes in terms of the symbols of the graph's making
        output.shape = onnx_ir.Shape(
            [
                n if isinstance(n, int) else f"{output.name}_{axis}"
                for axis, n in enumerate(output.shape)
            ]
        )


def _load_onnx(file: Path) -> Run:
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    model = onnx.load(file, load_external_data=False)
    choices = [node.output[1] for node in model.graph.node if node.op_type == "TopK"]
    for name in choices[:1]:
        model.graph.output.add(name=name).type.tensor_type.elem_type = onnx.TensorProto.INT64
    watched = file.with_name("watched.onnx")  # beside what it names
    onnx.save(model, watched)
    session = onnxruntime.InferenceSession(watched, options, providers=["CPUExecutionProvider"])
    watched.unlink()
    names = [output.name for output in model.graph.output]

    def run(image: Tensor) -> tuple[dict[str, Tensor], Tensor | None]:
        outputs = [torch.from_numpy(array) for array in session.run(names, {INPUT: image.numpy()})]
        tokens = outputs.pop().flatten() if choices else None
        return dict(zip(names, outputs, strict=False)), tokens

    return run


def _write_openvino(program: Any, file: Path, description: Mapping[str, Any]) -> None:
    import openvino

    onnx_file = file.with_suffix(".from.onnx")
    _write_onnx(program, onnx_file, description)
    model = openvino.convert_model(onnx_file)
    model.set_rt_info(json.dumps(description), METADATA)
    openvino.save_model(model, file, compress_to_fp16=False)
    del model
    for part in (onnx_file, onnx_file.with_name(f"{onnx_file.name}.data")):
        part.unlink(missing_ok=True)


def _load_openvino(file: Path) -> Run:
    import openvino

    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    core = openvino.Core()
    model = core.read_model(file)
    names = [output.get_any_name() for output in model.outputs]
    choices = [op.output(1) for op in model.get_ordered_ops() if op.get_type_name() == "TopK"]
    if choices:
        model.add_outputs(choices[:1])
    compiled = core.compile_model(model, "CPU", exact)

    def run(image: Tensor) -> tuple[dict[str, Tensor], Tensor | None]:
        arrays = compiled({INPUT: image.numpy()})
        outputs = [torch.from_numpy(arrays[index].copy()) for index in range(len(arrays))]
        tokens = outputs.pop().flatten().long() if choices else None
        return dict(zip(names, outputs, strict=True)), tokens

    return run


_ONNX = ("onnx", "onnxscript", "onnxruntime")

FORMATS = {
    "onnx": Format(".onnx", _ONNX, _write_onnx, _load_onnx),
    "torch-export": Format(".pt2", (), _write_program, _load_program),
    "openvino": Format(".xml", (*_ONNX, "openvino"), _write_openvino, _load_openvino),
}
"""The kinds of files by name."""


def require(name: str) -> Format:
    """Find a format whose packages are there.

    Args:
        name: one of `FORMATS`.

    Raises:
        ConfigError: there is no such format, or what it needs is not installed.
    """
    if name not in FORMATS:
        raise ConfigError(
            f"the format must be one of {', '.join(FORMATS)}, got {name!r}."
            f"{did_you_mean(name, FORMATS)}"
        )
    found = FORMATS[name]
    missing = [package for package in found.packages if importlib.util.find_spec(package) is None]
    if missing:
        raise ConfigError(
            f"the format {name} needs {', '.join(found.packages)}, of which "
            f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed: "
            f"`pip install {' '.join(missing)}`."
        )
    return found
