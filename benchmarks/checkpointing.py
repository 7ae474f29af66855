"""Bytes of activations kept for the backward pass, with and without gradient checkpointing.

    python benchmarks/checkpointing.py [--size 224]

Counted are the distinct storages that autograd saves in one forward of one image, parameters and
buffers left out, and the largest difference of loss and gradients (float32) beside them.
"""

import argparse
import copy

import timm
import torch
from torch import nn

from detrex.engine.dry_run import SavedBytes
from detrex.modeling.backbone.training.activation_checkpointing import checkpoint_blocks

MODELS = (
    "resnet50",
    "convnext_tiny",
    "swin_tiny_patch4_window7_224",
    "vit_small_patch16_224",
)


def main() -> None:
    """Print one line a model."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--size", type=int, default=224)
    arguments = parser.parse_args()
    image = torch.randn(1, 3, arguments.size, arguments.size)
    print(f"{'model':<30} {'blocks':>6} {'plain MB':>9} {'kept MB':>9} {'share':>6}", end="")
    print(f" {'loss':>9} {'gradients':>9}")
    for name in arguments.models:
        plain = timm.create_model(name, features_only=True).train()
        network = copy.deepcopy(plain)
        blocks = checkpoint_blocks(network)
        before, loss, gradients = _step(plain, image)
        after, other_loss, other_gradients = _step(network, image)
        worst = max(
            float((a - b).norm() / a.norm().clamp(min=1e-12))
            for a, b in zip(gradients, other_gradients, strict=True)
        )
        print(
            f"{name:<30} {blocks:>6} {before / 1e6:>9.1f} {after / 1e6:>9.1f} "
            f"{after / before:>6.2f} {abs(loss - other_loss):>9.1e} {worst:>9.1e}",
            flush=True,
        )


def _step(network: nn.Module, image: torch.Tensor) -> tuple[int, float, list[torch.Tensor]]:
    """Bytes saved by a forward, its loss, and the gradients."""
    saved = SavedBytes(network)
    torch.manual_seed(0)
    with saved:
        loss = torch.stack([m.square().mean() for m in network(image)]).sum()
    size = saved.total
    loss.backward()
    return size, loss.item(), [p.grad for p in network.parameters() if p.grad is not None]


if __name__ == "__main__":
    main()
