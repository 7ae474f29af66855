"""A small right data set in COCO's format, ways to break it, and a detector that knows its truth.

Each picture's truth is drawn from the picture's name, and not read from a file.
"""

import argparse
import copy
import json
import os
import re
import sys
from pathlib import Path

import numpy as np
import torch
from detectron2.config import LazyCall as L
from detectron2.solver import get_default_optimizer_params
from detectron2.structures import Boxes, Instances
from fvcore.common.param_scheduler import MultiStepParamScheduler
from PIL import Image
from torch import nn

from detrex.config import get_config
from detrex.data.coco.document import Document

NAMES = ("Kreis", "Fläche", "triangle")
WIDTH, HEIGHT = 97, 61
STEMS = {side: [f"{side}{i}" for i in range(5)] for side in ("train", "test")}


def truth(stem: str) -> list[tuple[int, list[int]]]:
    """The class and the box (x, y, width, height) of each object of a picture."""
    if stem == "blank":
        return []
    number = int(stem[-1]) + 5 * stem.startswith("test")
    slots = [[3, 4, 20, 17], [40, 6, 31, 23], [60, 33, 29, 24]]
    return [
        ((number + k) % 3, [x + number % 3, y, w - number % 4, h - k])
        for k, (x, y, w, h) in enumerate(slots[: 3 - number % 2])
    ]


def content(side: str = "train") -> dict:
    """The right annotation file of a side; image ids from 501, annotation ids from 701."""
    images, annotations = [], []
    for i, stem in enumerate(STEMS[side]):
        images.append({"id": 501 + i, "file_name": f"{stem}.png", "width": WIDTH, "height": HEIGHT})
        for number, (x, y, w, h) in truth(stem):
            annotations.append(
                {
                    "id": 701 + len(annotations),
                    "image_id": 501 + i,
                    "category_id": number + 1,
                    "bbox": [x, y, w, h],
                    "area": w * h,
                    "iscrowd": 0,
                    "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]],
                }
            )
    categories = [{"id": i, "name": name} for i, name in enumerate(NAMES, start=1)]
    return {"images": images, "annotations": annotations, "categories": categories}


def document(change=None) -> Document:
    """The right training document after `change` of its content, unchecked."""
    content_ = content()
    if change:
        change(content_)
    return Document("train.json", **copy.deepcopy(content_))


def write(folder: Path, change=None, **changes) -> Path:
    """Write pictures and both annotation files; ``change``, or one by side, changes the content."""
    (folder / "images").mkdir(parents=True)
    for side, stems in STEMS.items():
        content_ = content(side)
        for each in (change, changes.get(side)):
            if each:
                content_ = each(content_) or content_
        (folder / f"{side}.json").write_text(json.dumps(content_), encoding="utf-8")
        for stem in [*stems, "blank"]:
            Image.new("RGB", (WIDTH, HEIGHT)).save(folder / "images" / f"{stem}.png")
    return folder


class Oracle(nn.Module):
    """Notes the objects that it is trained on, and answers the truth; classes as in training."""

    def __init__(self, numbers: dict[int, int] | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        Oracle.seen, Oracle.numbers = {}, dict(numbers or {})

    def forward(self, batch: list[dict]):
        if not self.training:
            return [{"instances": self._answer(record)} for record in batch]
        for record in batch:
            stem = Path(record["file_name"]).stem
            boxes = record["instances"].gt_boxes.tensor.tolist()
            Oracle.seen |= {stem: sorted(boxes)} if boxes else {}
            for box, number in zip(boxes, record["instances"].gt_classes.tolist(), strict=True):
                for drawn, (x, y, w, h) in truth(stem):
                    if np.allclose(box, [x, y, x + w, y + h], atol=0.01):
                        Oracle.numbers[drawn] = number
        return {"loss": self.weight.sum() * 0 + 1}

    def _answer(self, record: dict) -> Instances:
        objects = truth(Path(record["file_name"]).stem)
        xywh = torch.tensor([box for _, box in objects], dtype=torch.float32).reshape(-1, 4)
        return Instances(
            (record["height"], record["width"]),
            pred_boxes=Boxes(torch.cat([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], 1)),
            scores=torch.linspace(0.9, 0.8, len(objects)),
            pred_classes=torch.tensor([Oracle.numbers.get(n, n) for n, _ in objects]).long(),
        )


def all_objects() -> dict[str, list[list[float]]]:
    """What an oracle sees where nothing is lost."""
    return {
        stem: sorted(
            [float(x), float(y), float(x + w), float(y + h)] for _, (x, y, w, h) in truth(stem)
        )
        for stem in STEMS["train"]
    }


def config(folder: Path, name: str):
    """Train an oracle once on every picture of a folder that `write` wrote, and evaluate it."""
    cfg = get_config("common/data/custom.py")
    cfg.train = get_config("common/train.py").train
    cfg.model = L(Oracle)()
    cfg.optimizer = L(torch.optim.SGD)(params=L(get_default_optimizer_params)(), lr=0.01)
    cfg.lr_multiplier = L(MultiStepParamScheduler)(values=[1.0], milestones=[], num_updates=9)
    for side in ("train", "test"):
        loader = cfg.dataloader[side]
        loader.num_workers, loader.mapper.augmentation = 0, []
        loader.dataset.names = L(loader.dataset.names._target_)(
            name=f"{name}_{side}",
            json_file=str(folder / f"{side}.json"),
            image_root=str(folder / "images"),
        )
    cfg.dataloader.train.mapper.augmentation_with_crop = None
    cfg.dataloader.train.total_batch_size = 2
    cfg.dataloader.train.dataset.filter_empty = False
    cfg.train.update(
        max_iter=5, eval_period=0, log_period=100, device="cpu", seed=0, output_dir=f"{folder}/out"
    )
    return cfg


def _each(part, **values):
    """Change entries of all records of a part: to a value, by a function, or None to remove it."""

    def change(content_):
        for position, record in enumerate(content_[part]):
            for key, value in values.items():
                if value is None:
                    record.pop(key, None)
                else:
                    record[key] = value(record, position) if callable(value) else value

    return change


def _all(*changes):
    def change(content_):
        for each in changes:
            each(content_)

    return change


def _more(content_, **entries):
    """One more annotation of the first image."""
    last = content_["annotations"][-1]
    content_["annotations"].insert(0, {**last, "id": 600, "image_id": 501, **entries})


def _other_order(content_):
    _each("categories", id=lambda c, _: 9 - c["id"])(content_)
    _each("annotations", category_id=lambda a, _: 9 - a["category_id"])(content_)


def _subset(content_):
    """A class that no object is of is not in the list, and another name is, without objects."""
    content_["categories"] = [{"id": 0, "name": "shapes"}, *content_["categories"]]


VARIANTS = {
    "right": {},
    "ids_from_0": {"change": _each("annotations", id=lambda _, i: i)},
    "ids_twice": {"change": _each("annotations", id=lambda _, i: 1 + i % 4)},
    "no_fields": {"change": _each("annotations", id=None, area=None, iscrowd=None)},
    "null_fields": {
        "change": _each("annotations", **dict.fromkeys(("area", "id"), lambda *_: None))
    },
    "other_order": {"test": _other_order},
    "other_class": {"test": _subset},
    "named_images": {
        "change": _all(
            _each("images", id=lambda r, _: f"{r['id']}.png"),
            _each("annotations", image_id=lambda r, _: f"{r['image_id']}.png"),
        )
    },
    "texts": {
        "change": _all(
            _each("images", id=lambda r, _: str(r["id"]), width=str(WIDTH), height=float(HEIGHT)),
            _each("images", file_name=lambda r, _: ".\\" + r["file_name"]),
            _each("categories", id=lambda r, _: str(r["id"]), name=lambda r, _: r["id"]),
            _each("annotations", bbox=lambda r, _: [str(value) for value in r["bbox"]]),
        )
    },
    "flat_polygons": {"change": _each("annotations", segmentation=[1, 2, 3, 4])},
    "image_twice": {"change": lambda c: c["images"].append(dict(c["images"][0]))},
    "object_twice": {"change": lambda c: c["annotations"].append(dict(c["annotations"][0]))},
    "left_out": {
        "change": _all(
            lambda c: _more(c, id=601, bbox=[500, 500, 10, 10]),
            lambda c: _more(c, bbox=[5, 5, 0, 10], area=0),
        )
    },
    "crowd_and_empty": {
        "change": _all(
            lambda c: _more(c, bbox=[60, 30, 30, 30], iscrowd=True, segmentation=None),
            lambda c: c["images"].append({**c["images"][0], "id": 2, "file_name": "blank.png"}),
        )
    },
}
"""What is accepted: keywords of `write` by a name."""


def main(root: str, *variants: str) -> None:
    """Run variants in a process of several, and then a data set that the reading one cannot read.

    Each rank writes what it saw, and which annotations it read, to ``rank<n>.txt``.
    """
    from detectron2.utils import comm
    from torch import distributed

    from detrex.data.preparation import prepared_data
    from detrex.engine import do_train
    from detrex.errors import DataError

    distributed.init_process_group("gloo")
    comm.create_local_process_group(distributed.get_world_size())
    rank, lines, read = comm.get_rank(), [], set()

    def note(event: str, arguments: tuple) -> None:
        annotations = event == "open" and re.search(
            r"(train|test)(-\w+)?\.json$", str(arguments[0])
        )
        if annotations and arguments[1] in ("r", "rb"):
            read.add(annotations[1])

    sys.addaudithook(note)
    for variant in variants:
        cfg = config(Path(root, variant), variant)
        metrics = do_train(argparse.Namespace(resume=False), cfg)
        seen = {
            stem: boxes for part in comm.all_gather(Oracle.seen) for stem, boxes in part.items()
        }
        count = sum(map(len, seen.values())) if seen == all_objects() else 0
        values = [round(metrics["bbox"][key], 6) for key in ("AP", "AP50")] if metrics else []
        lines.append(f"{variant} {values} {count} objects")
    cfg = config(Path(root, variants[0]), "unreadable")
    if rank == 0:
        cfg.dataloader.train.dataset.names.json_file = os.devnull
    try:
        with prepared_data(cfg):
            pass
    except DataError as error:
        lines.append(f"error {error}")
    lines.append(f"read {sorted(read)}")
    Path(root, f"rank{rank}.txt").write_text("\n".join(lines))
    distributed.destroy_process_group()


if __name__ == "__main__":
    sys.modules["tests.reference.annotation_files"] = sys.modules[__name__]
    main(*sys.argv[1:])
