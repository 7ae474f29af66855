"""What detectron2's own training program for lazy configs calls, called with configs of ours.

Its `tools/lazyconfig_train_net.py` is no part of the installed package.
"""

import json
from argparse import Namespace

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import LazyConfig, instantiate
from detectron2.engine import SimpleTrainer, create_ddp_model, default_setup, default_writers, hooks
from detectron2.evaluation import inference_on_dataset, print_csv_format

from detrex.config.config import configs_root
from detrex.data.demo.shapes import write_shapes_dataset
from tests.configs.test_all_configs import SMALL_DETECTOR
from tests.configs.test_detectron2_detectors import RCNN
from tests.reference.clean_logging import restored_loggers
from tests.reference.versions import is_below

STEPS = 3
DETECTORS = {
    "mask_rcnn/demo_shapes.py": (
        [
            *(*RCNN, "model.backbone.bottom_up.weights=null"),
            "model.backbone.bottom_up.model_name=resnet18",
        ],
        {"bbox", "segm"},
    ),
    "dino/demo_shapes.py": (
        [*(text for text in SMALL_DETECTOR if "num_classes" not in text), "model.device=cpu"],
        {"bbox"},
    ),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shapes")
    for seed, part in enumerate(("train", "val")):
        write_shapes_dataset(folder / part, 4, image_size=(64, 64), seed=seed, max_objects=3)
    return folder


@pytest.fixture(autouse=True)
def _loggers():
    with restored_loggers():
        yield


def evaluate(cfg, model):
    loader, evaluator = map(instantiate, (cfg.dataloader.test, cfg.dataloader.evaluator))
    results = inference_on_dataset(model, loader, evaluator)
    print_csv_format(results)
    return results


def train(cfg, *, resume):
    model = instantiate(cfg.model)
    model.to(cfg.train.device)
    cfg.optimizer.params.model = model
    optimizer = instantiate(cfg.optimizer)
    model = create_ddp_model(model, **cfg.train.ddp)
    trainer = SimpleTrainer(model, instantiate(cfg.dataloader.train), optimizer)
    checkpointer = DetectionCheckpointer(model, cfg.train.output_dir, trainer=trainer)
    writers = default_writers(cfg.train.output_dir, cfg.train.max_iter)
    trainer.register_hooks(
        [
            hooks.IterationTimer(),
            hooks.LRScheduler(scheduler=instantiate(cfg.lr_multiplier)),
            hooks.PeriodicCheckpointer(checkpointer, **cfg.train.checkpointer),
            hooks.EvalHook(cfg.train.eval_period, lambda: evaluate(cfg, model)),
            hooks.PeriodicWriter(writers, period=cfg.train.log_period),
        ]
    )
    checkpointer.resume_or_load(cfg.train.init_checkpoint, resume=resume)
    start = trainer.iter + 1 if resume and checkpointer.has_checkpoint() else 0
    trainer.train(start, cfg.train.max_iter)
    return model


@pytest.mark.parametrize("name", DETECTORS)
def test_lazy_loop__trains_evaluates_and_resumes(name, data, tmp_path):
    overrides, tasks = DETECTORS[name]
    cfg = LazyConfig.load(str(configs_root() / name))
    own = [
        *(f"dataloader.folder={data}", f"train.output_dir={tmp_path}", "train.device=cpu"),
        *("dataloader.train.total_batch_size=2", f"train.max_iter={STEPS}", "train.seed=7"),
        *("train.eval_period=0", "train.log_period=1"),
    ]
    cfg = LazyConfig.apply_overrides(cfg, [*overrides, *own])
    default_setup(cfg, Namespace(config_file="", eval_only=False, resume=False, opts=[]))
    model = train(cfg, resume=False)
    rows = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    assert [row["iteration"] for row in rows if "total_loss" in row] == list(range(STEPS))
    assert tasks == {key.partition("/")[0] for row in rows for key in row if "/AP50" in key}
    saved = torch.load(tmp_path / "model_final.pth", weights_only=False)["model"]
    torch.testing.assert_close(dict(model.state_dict()), dict(saved), rtol=0, atol=0)

    if is_below("torch", 2, 7):
        pytest.skip("below torch 2.7 AdamW keeps a config's list, which detectron2 cannot load")
    cfg = LazyConfig.load(str(tmp_path / "config.yaml"))
    cfg.train.max_iter = STEPS + 1
    again = train(cfg, resume=True)
    moved = [n for n, p in again.named_parameters() if not torch.equal(p, saved[n])]
    assert moved, "the resumed run did not go on from the checkpoint"
