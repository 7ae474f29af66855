"""What it takes to import the backbones, to build one, to fill it, and to ask about one.

    python -m benchmarks.start_up [--quick] [--timm NAME ...] [--torchvision NAME=NODE ...]

Imports are timed in fresh processes. Networks are built in one process, where what was found of
them is kept; "first time" is a fresh process with an empty cache folder, which only the first
build on a machine has. Weights are a file of safetensors that has just been read.
"""

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.protocol import Results, parse, parser
from detrex.benchmark.turns import Comparison

ROOT = Path(__file__).resolve().parent.parent
TIMM = (
    *("resnet50", "swin_tiny_patch4_window7_224", "vit_small_patch16_224", "convnext_tiny"),
    *("efficientnet_b0", "regnety_032", "vit_large_patch16_224"),
)
TORCHVISION = (
    *("resnet50=layer4", "swin_t=features.7", "vit_b_16=encoder.ln"),
    "regnet_y_3_2gf=trunk_output.block4",
)
COMMANDS = ("--help", "backbones vit_*", "backbones show convnext_tiny")
_TIMED = "import time; start = time.perf_counter(); {}; print(time.perf_counter() - start)"
_DETECTRON2 = "import torch, detectron2.modeling.backbone"
_FIRST = """
import time, timm, detrex.modeling.backbone as ours
timm.create_model("resnet18", features_only=True)
start = time.perf_counter()
{}
print(time.perf_counter() - start)
"""


def main(words: Sequence[str] | None = None) -> None:
    """Measure one after the other."""
    options = parser(__doc__)
    options.add_argument("--timm", nargs="*", default=TIMM, metavar="NAME")
    options.add_argument("--torchvision", nargs="*", default=TORCHVISION, metavar="NAME=NODE")
    options.set_defaults(threads=1)
    arguments = parse(options, words)
    few = 2 if arguments.quick else None
    arguments.repeats = min(3, arguments.repeats) if arguments.quick else arguments.repeats
    results = Results("start_up", arguments)
    imports(results)
    commands(results)
    for name in arguments.timm[:few]:
        builds_of_timm(results, name)
    for name in arguments.torchvision[:few]:
        builds_of_torchvision(results, *name.split("="))
    for name in arguments.timm[: 1 if arguments.quick else 3]:
        first_builds(results, name)


def imports(results: Results) -> None:
    """Import detectron2's backbones, and ours on top."""
    codes = {
        "torch and detectron2": _TIMED.format(_DETECTRON2),
        "torch, detectron2 and detrex": _TIMED.format(f"{_DETECTRON2}, detrex.modeling.backbone"),
        "detrex alone, on top": f"{_DETECTRON2}; "
        + _TIMED.format("import detrex.modeling.backbone"),
    }
    in_turns(results, "import of the backbones", codes)


def commands(results: Results) -> None:
    """Ask the command line about backbones."""
    run = "import subprocess, sys; subprocess.run([sys.executable, '-m', 'detrex', *{!r}.split()]"
    run += ", stdout=-3, stderr=-3)"
    codes = {f"detrex {words}": _TIMED.format(run.format(words)) for words in COMMANDS}
    in_turns(results, "commands", codes)


def builds_of_timm(results: Results, name: str) -> None:
    """Build a network of timm, without weights and with those of a file."""
    import timm
    from safetensors.torch import save_file

    from detrex.modeling.backbone import TimmBackbone

    calls = {
        "timm": lambda: timm.create_model(name, features_only=True),
        "detrex": lambda: TimmBackbone(name),
    }
    results.compare(f"timm's {name}, random", calls)
    with tempfile.TemporaryDirectory() as folder:
        file = f"{folder}/weights.safetensors"
        save_file(timm.create_model(name).state_dict(), file)
        there = {"pretrained": True, "pretrained_cfg_overlay": {"file": file}}
        calls = {
            "timm": lambda: timm.create_model(name, features_only=True, **there),
            "detrex": lambda: TimmBackbone(name, weights=file),
        }
        results.compare(f"timm's {name}, from a file", calls)


def builds_of_torchvision(results: Results, name: str, node: str) -> None:
    """Build a network of torchvision, without weights and with those of a file."""
    import torch
    from torchvision.models import get_model
    from torchvision.models.feature_extraction import create_feature_extractor

    from detrex.modeling.backbone import TorchvisionBackbone

    nodes = {node: "map"}
    with tempfile.TemporaryDirectory() as folder:
        file = f"{folder}/weights.pth"
        torch.save(get_model(name).state_dict(), file)

        def theirs(file: str | None = None) -> None:
            network = get_model(name)
            if file:
                network.load_state_dict(torch.load(file, weights_only=True))
            create_feature_extractor(network, nodes)

        for case, given in (("random", None), ("from a file", file)):
            calls = {
                "torchvision": lambda given=given: theirs(given),
                "detrex": lambda given=given: TorchvisionBackbone(
                    name, return_nodes=nodes, weights=given
                ),
            }
            results.compare(f"torchvision's {name}, {case}", calls)


def first_builds(results: Results, name: str) -> None:
    """Build a network in a fresh process, for the first time ever and with what is kept of it."""
    ours = _FIRST.format(f"ours.TimmBackbone({name!r})")
    codes = {
        "timm": _FIRST.format(f"timm.create_model({name!r}, features_only=True)"),
        "detrex, first time": ours,
        "detrex, later": ours,
    }
    in_turns(results, f"timm's {name}, in a fresh process", codes, empty=("detrex, first time",))


def in_turns(results: Results, case: str, codes: dict[str, str], empty: Sequence[str] = ()) -> None:
    """Run programs, each of which prints seconds; those of `empty` with a new cache folder."""
    samples: dict[str, list[float]] = {name: [] for name in codes}
    repeats = (
        min(3, results.arguments.repeats) if results.arguments.quick else results.arguments.repeats
    )
    for turn in range(repeats + 1):
        for name in list(codes) if turn % 2 else reversed(codes):
            with contextlib.ExitStack() as stack:
                environment = dict(os.environ)
                if name in empty:
                    folder = stack.enter_context(tempfile.TemporaryDirectory())
                    environment["DETREX_CACHE"] = folder
                seen = subprocess.run(
                    [sys.executable, "-W", "ignore", "-c", codes[name]],
                    cwd=ROOT,
                    env=environment,
                    capture_output=True,
                    text=True,
                    check=True,
                )
            if turn:  # the first fills the disk's cache
                samples[name].append(float(seen.stdout.splitlines()[-1]))
    results.keep(case, Comparison(samples, next(iter(codes))))


if __name__ == "__main__":
    main()
