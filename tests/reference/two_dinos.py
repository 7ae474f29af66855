"""Two DINOs that train together: ``torchrun --nproc-per-node=2 -m tests.reference.two_dinos DIR``.

Each rank writes what it saw into the folder; `reference_gradients` gives what one process sees.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from detectron2.data import DatasetCatalog, build_detection_test_loader
from detectron2.data import transforms as T
from detectron2.evaluation import COCOEvaluator, inference_on_dataset
from detectron2.utils import comm
from omegaconf import OmegaConf
from torch import nn

from detrex.data import DetrDatasetMapper
from detrex.data.datasets import register_coco_json
from detrex.data.demo.shapes import write_shapes_dataset
from detrex.data.loader import build_train_loader
from detrex.engine import Trainer, launch
from detrex.engine.distributed import wrap_ddp
from detrex.errors import ConfigError, NonFiniteLossError
from detrex.modeling import ema
from detrex.modeling.dino import DINO
from detrex.utils import dist
from tests.reference.tiny_dino import random_inputs, tiny_dino
from tests.reference.two_ranks import fingerprint

CPU = torch.device("cpu")

# Objects of the two images of each rank, and options of the detector. The fullest images of ranks
# that have objects hold as many, so that the ranks make equal groups of denoising queries.
CASES: dict[str, tuple[tuple[list[int], list[int]], dict[str, Any]]] = {
    "second rank without objects": (([3, 1], [0, 0]), {}),
    "first rank without objects": (([0, 0], [0, 3]), {}),
    "objects on both": (([3, 0], [2, 3]), {}),
    "one object on both together": (([1, 0], [0, 0]), {}),
    "no objects at all": (([0, 0], [0, 0]), {}),
    "a single object": (([0, 0], [1, 0]), {}),
    "no denoising": (([0, 0], [3, 2]), {"dn_number": 0}),
    "last layer only": (([0, 0], [3, 2]), {"aux_loss": False}),
    "binary proposals": (([3, 2], [0, 0]), {"two_stage_binary_cls": True}),
}


def detector(**options: Any) -> DINO:
    """The same weights in every process; denoising queries without noise."""
    torch.manual_seed(0)
    return tiny_dino(label_noise_ratio=0.0, box_noise_scale=0.0, **options)


def inputs_of(case: str) -> list[list[dict[str, Any]]]:
    """The batch of each rank."""
    images = random_inputs([(40, 56)] * 4, [*CASES[case][0][0], *CASES[case][0][1]])
    return [images[:2], images[2:]]


def gradients(model: nn.Module, batch: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    model.zero_grad()
    torch.stack(list(model(batch).values())).sum().backward()
    return {
        name.removeprefix("module."): parameter.grad.clone()
        for name, parameter in model.named_parameters()
    }


def reference_gradients(case: str) -> dict[str, torch.Tensor]:
    """Of one process that sees all images."""
    return gradients(detector(**CASES[case][1]), [*chain(*inputs_of(case))])


def compute_gradients(folder: Path) -> None:
    seen = {}
    for case, (_, options) in CASES.items():
        with counted_exchanges() as calls:
            model = wrap_ddp(detector(**options), CPU, {})
            own = gradients(model, inputs_of(case)[comm.get_rank()])
        seen[case] = {"exchanges": len(calls), "gradients": own}
    torch.save(seen, folder / f"gradients{comm.get_rank()}.pth")


@contextmanager
def counted_exchanges() -> Iterator[list[int]]:
    """Collect the numbers that this rank tells the other."""
    calls: list[int] = []
    plain = dist._gather_words

    def counted(failed: int, value: int) -> Any:
        calls.append(value)
        return plain(failed, value)

    dist._gather_words = counted
    yield calls
    dist._gather_words = plain


class CountingMapper(DetrDatasetMapper):
    """Crops at random, and counts the objects that are left."""

    def __init__(self) -> None:
        super().__init__([T.RandomCrop("absolute", (24, 24))], None)
        self.counts: list[int] = []

    def __call__(self, record: dict[str, Any]) -> dict[str, Any]:
        sample = super().__call__(record)
        self.counts.append(len(sample["instances"]))
        return sample


def dataset(folder: Path, split: str) -> tuple[str, list[dict[str, Any]]]:
    """Register what `write_data` wrote, and give its name and records."""
    annotations, images = folder / split / "annotations.json", folder / split / "images"
    name = register_coco_json(f"two_dinos_{split}", str(annotations), str(images))
    return name, DatasetCatalog.get(name)


def train_on_crops(folder: Path) -> None:
    """30 steps with accumulation, clipping and a moving average, one image at a time."""
    mapper = CountingMapper()
    loader = build_train_loader(
        dataset=dataset(folder, "train")[1], mapper=mapper, total_batch_size=2
    )
    cfg = OmegaConf.create({"train": {"model_ema": {"enabled": True, "decay": 0.9, "device": ""}}})
    model = detector(num_classes=3)
    ema.may_build_model_ema(cfg, model)
    trainer = Trainer(
        wrap_ddp(model, CPU, {}),
        loader,
        torch.optim.SGD(model.parameters(), lr=1e-3),
        clip_grad_params={"max_norm": 0.1},
        accumulate_steps=2,
        seed=5,
    )
    own: list[float] = []
    model.register_forward_hook(lambda *args: own.append(float(sum(args[-1].values()))))
    trainer.register_hooks([ema.EMAHook(cfg, model)])
    trainer.train(0, 30)
    state = {
        "counts": mapper.counts,
        "own": own,
        "weights": fingerprint(model),
        "average": ema.get_model_ema_state(model).state_dict(),
        "losses": {k: v.values() for k, v in trainer.storage.histories().items() if "loss" in k},
    }
    torch.save(state, folder / f"crops{comm.get_rank()}.pth")


def evaluate_one_image(folder: Path) -> None:
    """A test set of a single image, so that the second rank has none."""
    name, records = dataset(folder, "val")
    loader = build_detection_test_loader(
        dataset=records, mapper=DetrDatasetMapper([], None, is_train=False)
    )
    evaluator = COCOEvaluator(name, output_dir=str(folder), use_fast_impl=False)
    metrics = inference_on_dataset(detector(num_classes=3).eval(), loader, evaluator)
    torch.save(dict(metrics or {}), folder / f"metrics{comm.get_rank()}.pth")


def _batches(last: Callable[[], Any]) -> Iterator[Any]:
    """A good batch, then on the second rank the last one given."""
    good = random_inputs([(40, 56)], [2])
    yield good
    yield last() if comm.get_rank() == 1 else good
    while True:
        yield good


def _broken_file() -> Any:
    raise OSError("cannot read picture.png")


def _broken_record() -> Any:
    raise ConfigError("the record of picture.png has no boxes: add some.")


def _not_a_number() -> Any:
    (inputs,) = batch = random_inputs([(40, 56)], [2])
    inputs["instances"].gt_boxes.tensor[1, 0] = float("nan")
    return batch


def _unknown_class() -> Any:
    (inputs,) = batch = random_inputs([(40, 56)], [2])
    inputs["instances"].gt_classes[:] = 99
    return batch


def _infinite_image() -> Any:
    (inputs,) = batch = random_inputs([(40, 56)], [0])
    inputs["image"] = inputs["image"] * float("inf")
    return batch


class OtherNames(DINO):
    """Has one loss more on the second rank."""

    def forward(self, batch: Any) -> Any:
        losses = super().forward(batch)
        return losses if comm.get_rank() == 0 else {**losses, "loss_extra": losses["loss_class"]}


class BrokenBeforeCounting(DINO):
    """Fails on the second rank before the ranks count objects, where the first hears of it."""

    def prepare_targets(self, batched_inputs: Any) -> Any:
        if comm.get_rank() == 1:
            raise NonFiniteLossError("the images are broken.")
        return super().prepare_targets(batched_inputs)

    def denoising_queries(self, *args: Any) -> Any:
        try:
            return super().denoising_queries(*args)
        except NonFiniteLossError as error:
            raise KeyError("wrapped") from error


FAILURES = [_broken_file, _broken_record, _not_a_number, _unknown_class, _infinite_image]


def fail_on_second_rank(folder: Path) -> None:
    """Every failure in the first and in the second batch of an accumulated step."""
    told = {}
    for steps in (1, 2):
        for failure in FAILURES:
            told[f"{failure.__name__} {steps}"] = _failure(detector(), _batches(failure), steps)
    for kind in (OtherNames, BrokenBeforeCounting):
        model = detector()
        model.__class__ = kind
        told[kind.__name__] = _failure(model, _batches(list), 1)
    torch.save(told, folder / f"failures{comm.get_rank()}.pth")


def _failure(model: nn.Module, batches: Iterator[Any], steps: int) -> tuple[str, str]:
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    trainer = Trainer(wrap_ddp(model, CPU, {}), batches, optimizer, accumulate_steps=steps)
    try:
        trainer.train(0, 5)
    except Exception as error:  # what a run would end with
        return type(error).__name__, str(error)
    return "", ""


def main(folder: str) -> None:
    compute_gradients(Path(folder))
    train_on_crops(Path(folder))
    evaluate_one_image(Path(folder))
    fail_on_second_rank(Path(folder))


def write_data(folder: Path) -> None:
    write_shapes_dataset(folder / "train", 8, image_size=(64, 64), seed=0, max_objects=2)
    write_shapes_dataset(folder / "val", 1, image_size=(64, 64), seed=1, max_objects=2)


if __name__ == "__main__":
    launch(main, args=(sys.argv[1],), timeout=timedelta(seconds=60), device="cpu")
