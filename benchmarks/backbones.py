"""A backbone's forward pass, ResNet-50 beside other libraries and runtimes, others beside timm.

    python -m benchmarks.backbones [--quick]

Maps of strides 8, 16 and 32 (of a ViT four maps of stride 16) of one picture of 640 x 800. "detrex"
is `TimmBackbone` as it is; "optimized", "compiled", "bf16" and "auto" are what
`optimize_for_inference` makes of it. The tables of errors give the greatest difference from the
plain network over the greatest value, map by map. ONNX Runtime and OpenVINO run detectron2's
network, exported at this size.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import timm
import torch
from torch import Tensor, nn

from benchmarks.peers import attempt, r50_peers
from benchmarks.protocol import Results, parse, parser
from detrex.benchmark.turns import Comparison
from detrex.modeling import optimize_for_inference
from detrex.modeling.backbone import TimmBackbone

SIZE = (640, 800)
BY_STRIDE = {"out_strides": (8, 16, 32)}
FAMILIES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {  # keywords of ours, of timm's
    "convnext_tiny": (BY_STRIDE, {}),
    "swin_tiny_patch4_window7_224": (BY_STRIDE, {"img_size": SIZE, "strict_img_size": False}),
    "vit_small_patch16_224": ({}, {"dynamic_img_size": True}),
    "efficientnet_b0": (BY_STRIDE, {}),
    "regnety_032": (BY_STRIDE, {}),
}
FP32: dict[str, dict[str, Any]] = {
    "detrex optimized": {},
    "detrex compiled": {"compile": True},
}
BF16: dict[str, dict[str, Any]] = {
    "detrex bf16": {"dtype": torch.bfloat16},
    "detrex bf16 compiled": {"dtype": torch.bfloat16, "compile": True},
    "detrex auto": {"dtype": "auto"},
}


def main(words: Sequence[str] | None = None) -> None:
    """Compare ResNet-50 with its peers, then each family with timm's."""
    options = parser(__doc__)
    options.add_argument("--size", type=int, nargs=2, default=SIZE, metavar=("HEIGHT", "WIDTH"))
    options.add_argument("--families", nargs="*", default=list(FAMILIES))
    arguments = parse(options, words)
    results = Results("backbones", arguments)
    image = torch.randn(1, 3, *arguments.size)
    of = f"{arguments.size[0]} x {arguments.size[1]}"
    with torch.no_grad():
        calls = r50_peers(image, arguments.threads)
        ours, errors = variants("resnet50", image, {**FP32, **BF16}, **BY_STRIDE)
        results.compare(f"ResNet-50, {of}", {**calls, **ours}, baseline="detectron2")
        results.keep("ResNet-50, errors", errors)
        for name in arguments.families:
            family(results, name, image, of)


def family(results: Results, name: str, image: Tensor, of: str) -> None:
    """Compare one network with timm's; the short version compiles none, and takes fewer rounds."""
    ours_take, theirs_take = FAMILIES[name]
    if "img_size" in theirs_take:
        theirs_take = {**theirs_take, "img_size": tuple(image.shape[-2:])}
    ours, errors = variants(
        name, image, {"detrex optimized": {}} if results.arguments.quick else FP32, **ours_take
    )
    sources = [int(f.source) for f in TimmBackbone(name, **ours_take).features]
    theirs = timm.create_model(name, features_only=True, out_indices=sources, **theirs_take).eval()
    calls = {"timm": lambda: theirs(image), **ours}
    short = {"repeats": min(5, results.arguments.repeats), "warmup": 1}
    results.compare(f"{name}, {of}", calls, "detrex", **(short if results.arguments.quick else {}))
    results.keep(f"{name}, errors", errors)


def variants(
    name: str, image: Tensor, options: Mapping[str, Mapping[str, Any]], **keywords: Any
) -> tuple[dict[str, Callable[[], Any] | str], Comparison]:
    """Build a network, and from it others as `optimize_for_inference` makes them.

    Args:
        name: timm's.
        image: what they are called on.
        options: by name the keywords of `optimize_for_inference`.
        **keywords: of `TimmBackbone`.

    Returns:
        A call for each, the plain one as "detrex", and the errors beside that one.
    """
    plain = TimmBackbone(name, **keywords).eval()
    expected = plain(image)
    calls: dict[str, Callable[[], Any] | str] = {"detrex": lambda: plain(image)}
    errors: dict[str, list[float]] = {}
    for label, how in options.items():
        calls[label] = call = attempt(lambda how=how: _optimized(plain, image, how), "torch")
        if not isinstance(call, str):
            errors[label] = [
                float((maps.float() - expected[key]).abs().max() / expected[key].abs().max())
                for key, maps in call().items()
            ]
    return calls, Comparison(errors, "detrex", unit="1")


def _optimized(plain: nn.Module, image: Tensor, how: Mapping[str, Any]) -> Callable[[], Any]:
    network = optimize_for_inference(plain, **how)
    network(image)  # compiles, so that what cannot be compiled shows here
    return lambda: network(image)


if __name__ == "__main__":
    main()
