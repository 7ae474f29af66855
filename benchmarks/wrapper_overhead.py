"""Time of `TimmBackbone` by stride over that of timm's own feature network with equal weights.

    python -m benchmarks.wrapper_overhead [--models resnet50 ...] [--repeats 100] [--size 224]

Both have the same weights and run in one process on the same image. Parameters are counted too.
"""

from collections.abc import Sequence

import timm
import torch
from torch import nn

from benchmarks.protocol import Results, parse, parser
from detrex.modeling.backbone import TimmBackbone

MODELS = ("resnet50", "convnext_tiny", "efficientnet_b0", "regnety_016")


def main(words: Sequence[str] | None = None) -> None:
    """Compare each network with the one that it wraps."""
    options = parser(__doc__)
    options.add_argument("--models", nargs="+", default=MODELS)
    options.add_argument("--size", type=int, default=224)
    arguments = parse(options, words)
    results = Results("wrapper_overhead", arguments)
    image = torch.randn(1, 3, arguments.size, arguments.size)
    for name in arguments.models[:1] if arguments.quick else arguments.models:
        ours = TimmBackbone(name, out_strides=(8, 16, 32)).eval()
        indices = [int(feature.source) for feature in ours.features]
        theirs = timm.create_model(name, features_only=True, out_indices=indices).eval()
        theirs.load_state_dict(ours.timm_model.state_dict())
        calls = {"timm": lambda net=theirs: net(image), "detrex": lambda net=ours: net(image)}
        with torch.inference_mode():
            results.compare(f"{name}, {arguments.size} x {arguments.size}", calls)
        print(f"  parameters: {_count(ours):,} in detrex, {_count(theirs):,} in timm")


def _count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


if __name__ == "__main__":
    main()
