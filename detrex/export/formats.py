"""How each kind of file is written, and run to see that it gives the same.

A format is an object with ``write(program, file, description)``, which may put further files beside
the first, and ``load(file)``, which gives a function of an image.
"""

import contextlib
import importlib.util
import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from detrex.errors import ConfigError, did_you_mean
from detrex.export.program import INPUT

Run = Callable[[Tensor], dict[str, Tensor]]

METADATA = "detrex"
"""The key under which a file says of itself, in JSON, what it takes and gives."""


class Format(NamedTuple):
    """A kind of file.

    Attributes:
        suffix: how its files end.
        packages: what must be installed.
        extra: which of the package's extras installs it.
        write: writes a program and its description to a file.
        load: gives a function that runs a file on an image.
    """

    suffix: str
    packages: tuple[str, ...]
    extra: str
    write: Callable[[Any, Path, Mapping[str, Any]], None]
    load: Callable[[Path], Run]


def _write_program(program: Any, file: Path, description: Mapping[str, Any]) -> None:
    torch.export.save(program, file, extra_files={METADATA: json.dumps(description)})


def _load_program(file: Path) -> Run:
    module = torch.export.load(file).module()
    return lambda image: dict(module(image))


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
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(image: Tensor) -> dict[str, Tensor]:
        outputs = session.run(names, {INPUT: image.numpy()})
        return {n: torch.from_numpy(o) for n, o in zip(names, outputs, strict=True)}

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
    compiled = openvino.Core().compile_model(file, "CPU", exact)
    names = [output.get_any_name() for output in compiled.outputs]

    def run(image: Tensor) -> dict[str, Tensor]:
        outputs = compiled({INPUT: image.numpy()})
        return {n: torch.from_numpy(outputs[i].copy()) for i, n in enumerate(names)}

    return run


_ONNX = ("onnx", "onnxscript", "onnxruntime")

FORMATS = {
    "onnx": Format(".onnx", _ONNX, "export", _write_onnx, _load_onnx),
    "torch-export": Format(".pt2", (), "", _write_program, _load_program),
    "openvino": Format(".xml", (*_ONNX, "openvino"), "openvino", _write_openvino, _load_openvino),
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
            f"`pip install 'detrex[{found.extra}]'`."
        )
    return found
