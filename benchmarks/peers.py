"""ResNet-50 of other libraries and runtimes, with its maps of strides 8, 16 and 32."""

import importlib.util
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from detrex.benchmark.turns import first_line

Call = Callable[[], Any]


def r50_peers(image: Tensor, threads: int) -> dict[str, Call | str]:
    """Give a call for each peer, in evaluation and with random weights.

    Args:
        image: (N, 3, H, W).
        threads: for the runtimes, which do not take torch's number.

    Returns:
        By name a call, or in words why there is none.
    """
    eager = {
        "detectron2": detectron2_r50,
        "timm": _timm_r50,
        "torchvision": _torchvision_r50,
        "transformers": _transformers_r50,
    }
    calls: dict[str, Call | str] = {}
    for name, build in eager.items():
        calls[name] = attempt(lambda build=build: _on(build().eval(), image), name)
    network = detectron2_r50().eval()
    runtimes = {"ONNX Runtime": onnx_runtime, "OpenVINO": openvino, "OpenVINO bf16": openvino}
    for name, start in runtimes.items():
        precision = {"precision": "bf16"} if name.endswith("bf16") else {}
        package = name.split(" bf16")[0].replace(" ", "").lower()
        calls[name] = attempt(
            lambda start=start, how=precision: start(network, image, threads, **how), package
        )
    return calls


def attempt(make: Callable[[], Call], package: str) -> Call | str:
    """Make a call; where that cannot be, say why in words.

    Args:
        make: gives the call.
        package: what it needs, by the name that Python imports.
    """
    if importlib.util.find_spec(package) is None:
        return "not installed"
    try:
        return make()
    except Exception as error:  # a peer can fail in any way; the others are measured all the same
        return first_line(error)


def _on(network: nn.Module, image: Tensor) -> Call:
    return lambda: network(image)


def detectron2_r50() -> nn.Module:
    """Build detectron2's ResNet-50 as its model zoo and this package's DINO have it."""
    from detectron2.modeling.backbone import ResNet
    from detectron2.modeling.backbone.resnet import BasicStem

    return ResNet(
        stem=BasicStem(in_channels=3, out_channels=64, norm="FrozenBN"),
        stages=ResNet.make_default_stages(depth=50, stride_in_1x1=False, norm="FrozenBN"),
        out_features=["res3", "res4", "res5"],
        freeze_at=1,
    )


def _timm_r50() -> nn.Module:
    import timm

    return timm.create_model("resnet50", features_only=True, out_indices=(2, 3, 4))


def _torchvision_r50() -> nn.Module:
    from torchvision.models import resnet50
    from torchvision.models._utils import IntermediateLayerGetter

    names = {"layer2": "C3", "layer3": "C4", "layer4": "C5"}
    return IntermediateLayerGetter(resnet50(weights=None), names)


def _transformers_r50() -> nn.Module:
    from transformers import ResNetBackbone, ResNetConfig

    return ResNetBackbone(ResNetConfig(out_features=["stage2", "stage3", "stage4"]))


class _Maps(nn.Module):
    """A backbone that gives a tuple, as runtimes take it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Give the maps by rising stride."""
        return tuple(self.network(image).values())


def onnx_runtime(network: nn.Module, image: Tensor, threads: int) -> Call:
    """Export a backbone at the image's size, and give a call of ONNX Runtime's session."""
    import onnxruntime

    program = torch.onnx.export(_Maps(network).eval(), (image,), dynamo=True, verbose=False)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(
        program.model_proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    feed = {session.get_inputs()[0].name: image.numpy()}
    return lambda: session.run(None, feed)


def openvino(network: nn.Module, image: Tensor, threads: int, precision: str = "f32") -> Call:
    """Convert a backbone at the image's size, and give a call of OpenVINO's request."""
    import openvino as ov

    model = ov.convert_model(_Maps(network).eval(), example_input=image, input=[tuple(image.shape)])
    how = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": precision}
    request = ov.Core().compile_model(model, "CPU", how).create_infer_request()
    array = image.numpy()
    return lambda: request.infer([array])
