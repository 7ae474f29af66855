"""Memory of each rank under DistributedDataParallel and under FSDP, for ranks of this machine.

    python -m benchmarks.sharded_memory [--network vit_base_patch16_224] [--size 224]

Each rank trains the backbone by AdamW for three steps on one picture. "Held" are the bytes of
parameters, gradients and the optimizer's state that a rank keeps between steps, "peak" is the most
that its process has had resident, from the import to the last step, less that of the import. Both
run with thresholds of glibc by which freed memory goes back to the system, as a GPU's does to
PyTorch's pool: without them its heap keeps what gathered blocks took.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
WAYS = ("ddp", "fsdp")
GIVE_BACK = {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}
STEPS = 3


def main(words: Sequence[str] | None = None) -> None:
    """Measure both ways, one after the other, or be one of the ranks."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--network", default="vit_base_patch16_224", help="a name of timm")
    options.add_argument("--size", type=int, default=224, help="side of the picture in pixels")
    options.add_argument("--ranks", type=int, default=2)
    options.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    options.add_argument("--folder", help=argparse.SUPPRESS)
    arguments = options.parse_args(words)
    if arguments.way:
        from detrex.engine import launch

        launch(train, args=(arguments,), device="cpu")
        return
    rows = {way: measured(arguments, way) for way in WAYS}
    print(f"{arguments.network}, AdamW, {arguments.ranks} ranks, MiB a rank")
    for name in rows["ddp"]:
        ddp, fsdp = (rows[way][name] / 2**20 for way in WAYS)
        print(f"{name:20} DDP {ddp:8.0f}  FSDP {fsdp:8.0f}  {fsdp / ddp:.2f}")


def measured(arguments: argparse.Namespace, way: str) -> dict[str, float]:
    """Start the ranks, and give the most that any of them has."""
    torchrun = ["torch.distributed.run", "--standalone", f"--nproc-per-node={arguments.ranks}"]
    with tempfile.TemporaryDirectory() as folder:
        words = ["-m", "benchmarks.sharded_memory", "--way", way, "--folder", folder]
        words += ["--network", arguments.network, "--size", str(arguments.size)]
        subprocess.run(
            [sys.executable, "-W", "ignore", "-m", *torchrun, *words],
            cwd=ROOT,
            env={**os.environ, **GIVE_BACK, "OMP_NUM_THREADS": "1"},
            stderr=subprocess.DEVNULL,
            check=True,
        )
        found = [json.loads(file.read_text()) for file in Path(folder).iterdir()]
    return {name: max(rank[name] for rank in found) for name in found[0]}


def train(arguments: argparse.Namespace) -> None:
    """Be one of the ranks."""
    import torch
    from detectron2.utils import comm
    from omegaconf import OmegaConf
    from torch import nn

    from benchmarks.memory_use import peak_rss
    from detrex.engine import Trainer
    from detrex.engine.fsdp import spread_over_ranks
    from detrex.modeling.backbone import TimmBackbone

    class Network(nn.Module):
        """A backbone with a loss."""

        def __init__(self) -> None:
            super().__init__()
            self.backbone = TimmBackbone(arguments.network, weights=None, out_strides=(16,))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return sum(level.square().mean() for level in self.backbone(images).values())

    before = peak_rss()
    torch.manual_seed(0)
    model = Network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    cfg = OmegaConf.create({"train": {"fsdp": {"enabled": arguments.way == "fsdp"}}})
    pictures = iter(lambda: torch.randn(1, 3, arguments.size, arguments.size), None)
    trainer = Trainer(spread_over_ranks(cfg, model, optimizer), pictures, optimizer)
    trainer.train(0, STEPS)
    state = [value for values in optimizer.state.values() for value in values.values()]
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    numbers = {
        "parameters": held(model.parameters()),
        "gradients": held(gradients),
        "optimizer": held(state),
    }
    numbers["all held"] = sum(numbers.values())
    numbers["peak"] = peak_rss() - before
    Path(arguments.folder, f"{comm.get_rank()}.json").write_text(json.dumps(numbers))


def held(tensors: Any) -> int:
    """Count the bytes of tensors, of sharded ones those of this rank."""
    from detrex.checkpoint.placement import local_part

    def sizes() -> Iterator[int]:
        for tensor in tensors:
            yield local_part(tensor.detach()).nbytes

    return sum(sizes())


if __name__ == "__main__":
    main()
