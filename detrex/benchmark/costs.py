"""What a detector over each backbone costs on this machine, all of them taking turns."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from detectron2.utils.events import EventStorage
from torch import nn

from detrex.benchmark.candidates import Candidate, study_config
from detrex.benchmark.environment import environment
from detrex.benchmark.study import SIZE, prepare_shapes
from detrex.benchmark.study_files import Cost, StudyFiles, write_protocol, write_rows
from detrex.benchmark.turns import compare
from detrex.engine import Trainer, build_model, build_optimizer
from detrex.engine.dry_run import dry_run
from detrex.engine.evaluation import build_loader
from detrex.errors import ConfigError
from detrex.modeling import optimize_for_inference

LARGE = 640  # pixels, of both sides

Picture = dict[str, Any]


@dataclass(frozen=True)
class Rounds:
    """How often each is measured.

    Attributes:
        small: rounds for pictures as the study's.
        large: rounds for large pictures.
        steps: rounds of training steps.
    """

    small: int = 21
    large: int = 7
    steps: int = 7


def measure_all(
    candidates: Sequence[Candidate],
    files: StudyFiles,
    rounds: Rounds | None = None,
    tell: Callable[[str], object] = lambda line: None,
) -> list[Cost]:
    """Measure each backbone once, whatever weights it is trained from.

    Times are medians over rounds in which all backbones take turns, with one thread and one picture
    (of a training step: a batch as the config's). Weights are random, so that no detection passes
    the threshold and suppression costs nothing.

    Args:
        candidates: the backbones.
        files: where the rows and the protocol are written.
        rounds: how often.
        tell: gets a line for each part.

    Returns:
        A row for each backbone.
    """
    rounds = rounds or Rounds()
    chosen = list({candidate.name: candidate for candidate in reversed(candidates)}.values())[::-1]
    data = prepare_shapes(files.folder)
    with _one_thread():
        described = environment(1)
        configs = {candidate.name: study_config(candidate, data) for candidate in chosen}
        models = {name: build_model(cfg, 0).eval() for name, cfg in configs.items()}
        tell(f"{len(models)} detectors are built; their evaluation is timed")
        small = _evaluation(models, SIZE, rounds.small)
        large = _evaluation(models, LARGE, rounds.large)
        tell("training steps are timed")
        steps = _steps(models, configs, rounds.steps)
    rows = [
        Cost(
            name,
            _count(models[name].get_submodule("backbone.bottom_up")),
            _count(models[name]),
            round(float(dry_run(configs[name].model, (SIZE, SIZE)).gflops or 0), 4),
            small[name, False],
            small[name, True],
            large[name, False],
            large[name, True],
            steps[name],
        )
        for name in models
    ]
    write_rows(files.costs, rows, Cost)
    write_protocol(
        files.protocol,
        costs={
            "picture": SIZE,
            "large picture": LARGE,
            "batch of a step": len(_batch(configs[chosen[0].name])),
            "rounds": vars(rounds),
            "environment": described,
        },
    )
    return rows


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _evaluation(
    models: Mapping[str, nn.Module], size: int, rounds: int
) -> dict[tuple[str, bool], float]:
    """Median milliseconds for one picture by name, as it is and optimized."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (3, size, size), generator=generator, dtype=torch.uint8)
    picture = [{"image": pixels, "height": size, "width": size}]
    calls = {}
    for name, model in models.items():
        calls[f"{name}/"] = _inference(model, picture)
        calls[f"{name}/optimized"] = _inference(optimize_for_inference(model), picture)
    seen = _measured(calls, rounds)
    return {
        (name, is_fast): seen[f"{name}/{'optimized' if is_fast else ''}"]
        for name in models
        for is_fast in (False, True)
    }


def _inference(model: nn.Module, picture: list[Picture]) -> Callable[[], Any]:
    def call() -> Any:
        with torch.no_grad():
            return model(picture)

    return call


def _steps(
    models: Mapping[str, nn.Module], configs: Mapping[str, Any], rounds: int
) -> dict[str, float]:
    """Median milliseconds of an optimizer step on a batch in memory, by name."""
    batch = _batch(next(iter(configs.values())))
    with EventStorage() as storage:
        calls = {}
        for name, model in models.items():
            trainer = Trainer(
                model.train(), itertools.repeat(batch), build_optimizer(configs[name], model)
            )
            trainer.iter, trainer.storage = 0, storage
            calls[name] = trainer.run_step
        return _measured(calls, rounds)


def _measured(calls: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median milliseconds of calls that take turns, by name; one that fails ends the study."""
    seen = compare(calls, repeats=rounds)
    for name, why in seen.left_out.items():
        raise ConfigError(f"{name.rstrip('/')} cannot be measured ({why}): leave it out.")
    return {name: round(1e3 * seen.median(name), 3) for name in calls}


def _batch(cfg: Any) -> list[Picture]:
    batch: list[Picture] = next(iter(build_loader(cfg, "dataloader.train")))
    return batch


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
