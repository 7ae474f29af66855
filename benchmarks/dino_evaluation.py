"""DINO-R50 in evaluation, in units of detectron2's eager ResNet-50 at its size.

    python -m benchmarks.dino_evaluation [--quick]

One picture of 480 x 640, 900 queries, the best 300 boxes. "DINO" is the detector as a config builds
it; "optimized", "bf16" and "compiled" are what `optimize_for_inference` makes of it. The short
version does not compile. Without sampling, what is left are mostly the linear layers, convolutions
and self-attention.
"""

from collections.abc import Callable, Sequence
from typing import Any
from unittest.mock import patch

import torch

from benchmarks.detectors import batch, dino, evaluation
from benchmarks.peers import attempt, detectron2_r50
from benchmarks.protocol import Results, parse, parser
from detrex.modeling import optimize_for_inference

UNIT = "detectron2's R50"
FORMS: dict[str, dict[str, Any]] = {
    "DINO optimized": {},
    "DINO bf16": {"dtype": torch.bfloat16},
    "DINO auto": {"dtype": "auto"},
    "DINO compiled": {"compile": True},
    "DINO bf16 compiled": {"dtype": torch.bfloat16, "compile": True},
}


def main(words: Sequence[str] | None = None) -> None:
    """Measure the unit, the detector, and its forms for inference."""
    options = parser(__doc__)
    options.add_argument("--size", type=int, nargs=2, default=(480, 640))
    arguments = parse(options, words)
    results = Results("dino_evaluation", arguments)
    samples = batch(tuple(arguments.size))
    images = torch.stack([sample["image"] for sample in samples]).float() / 128 - 1
    model = dino().eval()

    def form(how: dict[str, Any]) -> Any:
        call = evaluation(optimize_for_inference(model, **how), samples)
        call()  # compiles, so that what cannot be compiled shows here
        return call

    calls = {
        UNIT: evaluation(detectron2_r50(), images),
        "DINO": evaluation(model, samples),
        "DINO without sampling": without_sampling(evaluation(model, samples)),
    }
    for name, how in FORMS.items():
        if not (arguments.quick and "compile" in how):
            calls[name] = attempt(lambda how=how: form(how), "torch")
    results.compare("evaluation, {} x {}".format(*arguments.size), calls, UNIT, warmup=1)


def without_sampling(call: Callable[[], Any]) -> Callable[[], Any]:
    """Run a call with deformable attentions that give their queries' worth of the values."""

    def attend(value: torch.Tensor, locations: torch.Tensor, *others: Any) -> torch.Tensor:
        return value[:, : locations.shape[1]].flatten(2)

    def run() -> Any:
        with patch("detrex.layers.multi_scale_deform_attn.attend", attend):
            return call()

    return run


if __name__ == "__main__":
    main()
