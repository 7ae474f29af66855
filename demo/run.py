"""Train two small detectors on this machine and draw what they find; ``make demo`` runs it.

    python demo/run.py [--act shapes|photographs|all] [--output DIR] [--seed N] [key=value ...]

Each act prepares its data, trains through ``tools/train_net.py`` with a config of
``configs/dino/``, draws truth beside predictions for the validation images, and plots the curves of
loss and AP. The training's ``report.html`` shows all of it on one page. The photographs and their
pretrained weights are fetched from the package index; where that fails, the act says so and is left
out.
"""

from detrex.quiet import quiet_libraries
from detrex.threads import prepare_threads

if __name__ == "__main__":  # before torch is imported, here and in the tools; these nets are small
    prepare_threads(most=4)
    quiet_libraries()

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from detrex.data.demo.photographs import fetch_mobilenet_v2_weights, write_photograph_tiles
from detrex.data.demo.shapes import write_shapes_dataset
from detrex.errors import DownloadError, run_tool
from detrex.report import REPORT
from detrex.utils.curves import plot_ap, plot_losses, read_metrics
from detrex.utils.outputs import refuse_to_replace

ROOT = Path(__file__).resolve().parents[1]
MAX_PICTURES = 30


@dataclass(frozen=True)
class Act:
    """One act of the demo.

    Attributes:
        title: what is shown.
        config: the config file that it trains.
        prepare: writes the data into a folder and returns the config overrides that point to it.
        score_threshold: predictions that score less are not drawn.
    """

    title: str
    config: Path
    prepare: Callable[[Path], list[str]]
    score_threshold: float


@dataclass(frozen=True)
class Outcome:
    """What became of an act: its figures, or the reason why it was left out."""

    metrics: Mapping[str, float]
    seconds: float = 0.0
    left_out: str = ""


def prepare_shapes(folder: Path) -> list[str]:
    """Write the shapes: pictures to learn from, and others to validate on."""
    write_shapes_dataset(folder / "train", num_images=1000, seed=0)
    write_shapes_dataset(folder / "val", num_images=100, seed=1)
    return [f"dataloader.folder='{folder}'"]


def prepare_photographs(folder: Path) -> list[str]:
    """Fetch the weights and the photographs, and cut these into tiles.

    Raises:
        DownloadError: when they cannot be fetched.
    """
    weights = fetch_mobilenet_v2_weights()
    write_photograph_tiles(folder, train_stride=200)
    return [f"dataloader.folder='{folder}'", f"model.backbone.weights='{weights}'"]


ACTS = {
    "shapes": Act(
        "shapes: a small ResNet and DINO learn from scratch",
        ROOT / "configs" / "dino" / "demo_shapes.py",
        prepare_shapes,
        score_threshold=0.3,
    ),
    "photographs": Act(
        "photographs: DINO over a pretrained MobileNetV2 learns to find trees from the air",
        ROOT / "configs" / "dino" / "demo_photographs.py",
        prepare_photographs,
        score_threshold=0.3,
    ),
}


def play(act: Act, folder: Path, seed: int, overrides: Sequence[str]) -> Outcome:
    """Prepare, train, evaluate and draw one act.

    Args:
        act: the act.
        folder: gets ``data/``, ``run/``, ``pictures/``, ``loss.png`` and ``ap.png``.
        seed: of the training; the data stay the same.
        overrides: more overrides of the act's config.

    Returns:
        The figures of the last evaluation (of the averaged weights where the config averages them).

    Raises:
        subprocess.CalledProcessError: when training or drawing fails; the reason is printed above.
        ConfigError: when ``pictures/`` holds a picture that no demo drew.
    """
    refuse_to_replace((folder / "pictures").rglob("*.png"))  # now, and not after the training
    print(f"\n== {act.title}\n== preparing {_shown(folder / 'data')}", flush=True)
    try:
        data = act.prepare(folder / "data")
    except DownloadError as error:
        print(f"== left out: {error}", flush=True)
        return Outcome({}, left_out=str(error))
    options = [*data, *overrides]
    print(f"== training {_shown(act.config)}, log in {_shown(folder / 'run')}", flush=True)
    start = time.perf_counter()
    run = folder / "run"
    # Rows of an earlier run would mix with this one's.
    (run / "metrics.json").unlink(missing_ok=True)
    own = [f"train.output_dir='{run}'", f"train.seed={seed}"]
    _tool("train_net", "--config-file", act.config, *own, *options)
    seconds = time.perf_counter() - start
    print(f"== drawing {_shown(folder / 'pictures')}", flush=True)
    _tool(
        "visualize_json_results",
        *("--num-images", MAX_PICTURES, "--conf-threshold", act.score_threshold),
        *("--input", run / "coco_instances_results.json", "--output", folder / "pictures"),
        *("--config-file", act.config, *options),
    )
    metrics = read_metrics(run / "metrics.json")
    plot_losses(metrics, folder / "loss.png", act.title)
    plot_ap(metrics, folder / "ap.png", act.title)
    return Outcome(last_evaluation(metrics), seconds)


def last_evaluation(metrics: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return AP and AP50 of a run's last evaluation, of its averaged weights if it has them.

    Args:
        metrics: rows of a run's ``metrics.json``.

    Raises:
        ValueError: when there was no evaluation.
    """
    for row in reversed(metrics):
        for task in ("ema/bbox", "bbox"):
            if f"{task}/AP" in row:
                return {name: row[f"{task}/{name}"] for name in ("AP", "AP50")}
    raise ValueError(
        f"None of the {len(metrics)} rows of metrics.json holds an AP: nothing was evaluated."
    )


def table(outcomes: Mapping[str, Outcome], output: Path) -> str:
    """Say for each act how well it did and where to look, or why it was left out."""
    lines = ["", f"{'act':<12} {'AP':<12} {'AP50':<12} training"]
    for name, outcome in outcomes.items():
        if outcome.left_out:
            lines.append(f"{name:<12} left out: {outcome.left_out}")
            continue
        figures = [f"{key} = {value:.1f}" for key, value in outcome.metrics.items()]
        lines.append(f"{name:<12} {figures[0]:<12} {figures[1]:<12} {outcome.seconds:.0f} s")
    lines.append("")
    for name, outcome in outcomes.items():
        if not outcome.left_out:
            folder = output / name
            lines.append(
                f"look at {_shown(folder / 'pictures')}{os.sep} (truth beside predictions)"
            )
            lines.append(f"        {_shown(folder / 'loss.png')}  {_shown(folder / 'ap.png')}")
            lines.append(f"        {_shown(folder / 'run' / REPORT)} (all of the training)")
    return "\n".join(lines)


def argument_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--act", choices=[*ACTS, "all"], default="all", help="%(default)s")
    parser.add_argument(
        "--output", type=Path, default=ROOT / "output" / "demo", metavar="DIR", help="output/demo"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the training (%(default)s)")
    parser.add_argument("opts", nargs="*", help="overrides of the configs, e.g. train.max_iter=9")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Play the acts and print the table.

    Raises:
        SystemExit: status 1 when an act fails for another reason than a missing network.
    """
    args = argument_parser().parse_intermixed_args(arguments)
    names = list(ACTS) if args.act == "all" else [args.act]
    output = args.output.resolve()
    try:
        outcomes = {n: play(ACTS[n], output / n, args.seed, args.opts) for n in names}
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"demo: {' '.join(error.cmd[1:3])} failed, see above.") from None
    print(table(outcomes, output))


def _tool(name: str, *arguments: object) -> None:
    """Run one of the repository's tools with the threads of this process."""
    command = [sys.executable, str(ROOT / "tools" / f"{name}.py"), *map(str, arguments)]
    # Deprecations inside the libraries are nothing that who watches the demo can mend.
    env = {**os.environ, "PYTHONWARNINGS": "ignore::FutureWarning"}
    subprocess.run(command, check=True, env=env)


def _shown(path: Path) -> str:
    """Return the path as a person in the current folder would write it."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


if __name__ == "__main__":
    run_tool(main)
