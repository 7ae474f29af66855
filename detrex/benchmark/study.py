"""The same small detector over many backbones: equal data, equal iterations, equal settings.

Each run is written down when it ends, and one that is there is not done again, so that a study goes
on where it stopped. Seeds come in turn: after the first all backbones have a row.
"""

import argparse
import contextlib
import io
import math
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detrex.benchmark.candidates import Candidate, study_config
from detrex.benchmark.environment import environment
from detrex.benchmark.study_files import Run, StudyFiles, read_rows, write_protocol, write_rows
from detrex.data.demo.shapes import write_shapes_dataset
from detrex.engine import do_train
from detrex.errors import ConfigError

SIZE = 64  # pixels, of both sides
SHAPES: dict[str, Any] = {
    "image_size": (SIZE, SIZE),
    "max_objects": 2,
    "size_range": (0.3, 0.75),
}
PICTURES = {"train": 1000, "val": 200}


@dataclass(frozen=True)
class Plan:
    """How long a study is.

    Attributes:
        iterations: of each run, from 1.
        seeds: runs of each backbone, from 1.
    """

    iterations: int = 300
    seeds: int = 3


def prepare_shapes(folder: Path) -> Path:
    """Draw the study's pictures where they are not there yet.

    Args:
        folder: of the study.

    Returns:
        The folder of the pictures.
    """
    data = folder / "data"
    for seed, (part, count) in enumerate(PICTURES.items()):
        if not (data / part / "annotations.json").is_file():
            write_shapes_dataset(data / part, count, seed=seed, **SHAPES)
    return data


def train_all(
    candidates: Sequence[Candidate],
    plan: Plan,
    files: StudyFiles,
    tell: Callable[[str], object] = lambda line: None,
) -> list[Run]:
    """Train what has no row yet.

    Args:
        candidates: the backbones.
        plan: the iterations and seeds.
        files: where rows are read from and written to, after each run.
        tell: gets a line for each run.

    Returns:
        The rows of all runs that there are, old ones first.

    Raises:
        ConfigError: a backbone cannot carry the detector, or the runs there had other iterations.
    """
    runs = read_rows(files.runs, Run)
    others = {run.iterations for run in runs} - {plan.iterations}
    if others:
        raise ConfigError(
            f"{files.runs} holds runs of {min(others)} iterations, and {plan.iterations} are asked "
            f"for: pass --iterations {min(others)}, or another --output."
        )
    data = prepare_shapes(files.folder)
    import torch

    write_protocol(
        files.protocol,
        runs={
            "config": "retinanet/demo_shapes.py",
            "pictures": PICTURES,
            "shapes": SHAPES,
            "iterations": plan.iterations,
            "environment": environment(torch.get_num_threads()),
        },
    )
    done = {(run.backbone, run.weights, run.seed) for run in runs}
    for seed in range(plan.seeds):
        for candidate in candidates:
            if (candidate.name, candidate.weights, seed) in done:
                continue
            start = time.perf_counter()
            run = train_one(candidate, seed, plan.iterations, data)
            runs.append(run)
            write_rows(files.runs, runs, Run)
            tell(
                f"{candidate.title}, seed {seed}: AP {run.ap:.1f}, AP50 {run.ap50:.1f}, in "
                f"{time.perf_counter() - start:.0f} s"
            )
    return runs


def train_one(candidate: Candidate, seed: int, iterations: int, data: Path) -> Run:
    """Train and evaluate once, in a folder that is gone afterwards.

    Args:
        candidate: the backbone.
        seed: of the run.
        iterations: optimizer steps.
        data: the folder of the pictures.

    Returns:
        What became of it.
    """
    cfg = study_config(candidate, data)
    cfg.train.update(max_iter=iterations, seed=seed)
    with tempfile.TemporaryDirectory(prefix="study-") as folder:
        cfg.train.output_dir = folder
        with contextlib.redirect_stdout(io.StringIO()):  # of pycocotools
            results = do_train(argparse.Namespace(resume=False, eval_only=False), cfg)
    found = (float(results["bbox"][name]) for name in ("AP", "AP50"))
    ap, ap50 = (0.0 if math.isnan(value) else round(value, 3) for value in found)  # no detection
    return Run(candidate.name, candidate.weights, seed, iterations, ap, ap50)
