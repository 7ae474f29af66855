import json

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.data import get_detection_dataset_dicts
from detectron2.data.datasets import register_coco_instances
from fvcore.common.param_scheduler import MultiStepParamScheduler

from detrex.data.datasets import register_coco_json
from detrex.engine import do_train, evaluate_only
from detrex.errors import CheckpointError, ConfigError, NonFiniteLossError, PictureError
from tests.reference.runs import FRESH, RESUME, Killed, kill_at
from tests.reference.stand_in import (
    make_dataset,
    read_losses,
    read_weights,
    stand_in_config,
    still_image,
)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"model_ema": {"enabled": True, "decay": 0.5}, "seed": -1},
        {"accumulate_steps": 3, "amp": {"enabled": True}},
        {"amp": {"enabled": True, "dtype": "bfloat16"}, "clip_grad": {"enabled": True}},
    ],
    ids=["plain", "ema", "accumulate-fp16", "bf16-clip"],
)
def test_do_train__resumed_equals_undisturbed(tmp_path, options):
    def config(name: str):
        cfg = stand_in_config(str(tmp_path / name), **options)
        cfg.dataloader.train.mapper = still_image
        return cfg

    cfg = config("cut")
    cfg.dataloader.train.mapper = kill_at(5 * cfg.train.accumulate_steps)
    with pytest.raises(Killed):
        do_train(FRESH, cfg)
    newest = tmp_path / "cut" / "model_0000003.pth"
    assert (tmp_path / "cut" / "last_checkpoint").read_text() == newest.name
    seed = torch.load(newest, weights_only=True)["trainer"]["seed"]
    metrics = do_train(RESUME, config("cut"))

    straight = config("straight")
    straight.train.seed = seed
    expected = do_train(FRESH, straight)
    assert read_losses(tmp_path / "cut") == read_losses(tmp_path / "straight")
    assert sorted(read_losses(tmp_path / "cut")) == list(range(6))
    for name, value in read_weights(tmp_path / "straight").items():
        torch.testing.assert_close(read_weights(tmp_path / "cut")[name], value, rtol=0, atol=0)
    assert metrics == expected


def test_do_train__resume_passes_over_a_damaged_checkpoint(tmp_path):
    do_train(FRESH, stand_in_config(str(tmp_path)))
    losses, weights = read_losses(tmp_path), read_weights(tmp_path)
    (tmp_path / "metrics.json").unlink()
    for name in ("model_final", "model_0000005"):
        file = tmp_path / f"{name}.pth"
        file.write_bytes(file.read_bytes()[:700])
    do_train(RESUME, stand_in_config(str(tmp_path)))
    assert read_losses(tmp_path) == {i: losses[i] for i in (4, 5)}
    torch.testing.assert_close(read_weights(tmp_path), weights, rtol=0, atol=0)


def test_do_train__resume_without_checkpoint_starts(tmp_path):
    do_train(RESUME, stand_in_config(str(tmp_path), max_iter=2))
    assert sorted(read_losses(tmp_path)) == [0, 1]


def test_do_train__resume_of_a_finished_run_evaluates(tmp_path):
    metrics = do_train(FRESH, stand_in_config(str(tmp_path)))
    assert do_train(RESUME, stand_in_config(str(tmp_path))) == metrics


@pytest.mark.parametrize("max_iter", [1, 4, 5])
def test_do_train__resumed_run_may_lower_max_iter(tmp_path, caplog, max_iter):
    schedule = L(MultiStepParamScheduler)(values=[1.0, 0.1], milestones=[4], num_updates=6)

    def config(**train):
        cfg = stand_in_config(str(tmp_path), **train)
        cfg.lr_multiplier = schedule
        return cfg

    metrics = do_train(FRESH, config())
    losses, weights = read_losses(tmp_path), read_weights(tmp_path)
    assert do_train(RESUME, config(max_iter=max_iter)) == metrics
    assert f"train.max_iter is {max_iter}: nothing is left to train" in caplog.text
    assert read_losses(tmp_path) == losses
    torch.testing.assert_close(read_weights(tmp_path), weights, rtol=0, atol=0)


OPTIONAL = [
    *("seed", "eval_period", "log_period", "accumulate_steps", "init_checkpoint", "amp", "ddp"),
    *("clip_grad", "checkpointer", "wandb", "model_ema", "fast_dev_run"),
]


@pytest.mark.parametrize("value", [..., None], ids=["missing", "null"])
def test_do_train__optional_parts_may_be_left_out(tmp_path, value):
    cfg = stand_in_config(str(tmp_path), max_iter=2)
    for name in OPTIONAL:
        if value is ...:
            del cfg.train[name]
        else:
            cfg.train[name] = value
    metrics = do_train(FRESH, cfg)
    weights = f"{tmp_path}/model_final.pth"
    again = stand_in_config(str(tmp_path))
    for name in OPTIONAL:
        del again.train[name]
    again.train.init_checkpoint = weights
    assert evaluate_only(FRESH, again) == metrics


def test_do_train__loader_workers_change_nothing(tmp_path):
    for workers in (0, 2):
        cfg = stand_in_config(str(tmp_path / str(workers)), max_iter=3)
        cfg.dataloader.train.num_workers = workers
        do_train(FRESH, cfg)
    assert read_losses(tmp_path / "0") == read_losses(tmp_path / "2")


def test_do_train__ema_metrics_stand_beside_the_plain_ones(tmp_path):
    cfg = stand_in_config(str(tmp_path), model_ema={"enabled": True, "decay": 0.9}, eval_period=3)
    metrics = do_train(FRESH, cfg)
    assert set(metrics) == {"bbox", "ema/bbox"}
    assert metrics["bbox"]["AP"] != metrics["ema/bbox"]["AP"]
    lines = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    evaluated = [line for line in lines if "bbox/AP" in line]
    assert [line["iteration"] for line in evaluated] == [2, 6]
    assert evaluated[-1]["ema/bbox/AP"] == metrics["ema/bbox"]["AP"]


def test_do_train__fast_dev_run(tmp_path):
    cfg = stand_in_config(str(tmp_path), fast_dev_run={"enabled": True}, max_iter=10**6)
    do_train(FRESH, cfg)
    assert sorted(read_losses(tmp_path)) == list(range(20))


def test_do_train__config_is_left_without_objects(tmp_path):
    cfg = stand_in_config(str(tmp_path), max_iter=1)
    do_train(FRESH, cfg)
    assert "model" not in cfg.optimizer.params


def test_do_train__drawn_seeds_differ(tmp_path):
    for name in ("a", "b"):
        do_train(FRESH, stand_in_config(str(tmp_path / name), seed=-1, max_iter=1))
    assert read_losses(tmp_path / "a") != read_losses(tmp_path / "b")


def test_do_train__nan_stops_and_keeps_the_last_good_checkpoint(tmp_path):
    cfg = stand_in_config(str(tmp_path))
    cfg.model.nan_at = 4
    with pytest.raises(NonFiniteLossError, match=r"iteration 4: the loss loss_bbox became nan"):
        do_train(FRESH, cfg)
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000003.pth"


def test_do_train__loader_without_seek_warns_on_resume(tmp_path, caplog):
    def config():
        cfg = stand_in_config(str(tmp_path), max_iter=config.max_iter)
        cfg.dataloader.train = L(endless)()
        return cfg

    config.max_iter = 2
    do_train(FRESH, config())
    assert "has no seek" not in caplog.text
    config.max_iter = 4
    do_train(RESUME, config())
    assert "has no seek(batch, seed)" in caplog.text


def endless():
    while True:
        yield [still_image(sample) for sample in make_dataset(4)]


def test_do_train__missing_parts_are_named_together(tmp_path):
    cfg = stand_in_config(str(tmp_path))
    del cfg.lr_multiplier, cfg.dataloader.train
    with pytest.raises(
        ConfigError, match=r"the config has no 'lr_multiplier', 'dataloader\.train'"
    ):
        do_train(FRESH, cfg)


def test_do_train__unknown_dataset_before_the_model_is_built(tmp_path):
    cfg = stand_in_config(str(tmp_path))
    cfg.model = L(pytest.fail)(reason="built")
    cfg.dataloader.train.dataset = L(get_detection_dataset_dicts)(names="coco_2017_trian")
    with pytest.raises(ConfigError, match="'coco_2017_train'"):
        do_train(FRESH, cfg)


def test_do_train__dataset_files_that_are_not_there(tmp_path):
    register_coco_instances("lost_on_disk", {}, str(tmp_path / "lost.json"), str(tmp_path))
    cfg = stand_in_config(str(tmp_path))
    cfg.dataloader.train.dataset = L(get_detection_dataset_dicts)(names="lost_on_disk")
    with pytest.raises(
        ConfigError, match=r"dataloader\.train needs .*lost\.json, which does not exist"
    ):
        do_train(FRESH, cfg)


def _named_dataset(folder, name):
    """A data set of two classes and twelve pictures, which nobody reads."""
    images = [
        {"id": n, "file_name": f"{n}.png", "height": 7, "width": 7, "truth": n} for n in range(12)
    ]
    categories = [{"id": 4, "name": "circle"}, {"id": 9, "name": "blue square"}]
    box = {"bbox": [1, 1, 2, 2], "area": 4, "iscrowd": 0, "category_id": 4}
    boxes = [{"id": n + 1, "image_id": n, **box} for n in range(12)]
    coco = {"images": images, "annotations": boxes, "categories": categories}
    (folder / "a.json").write_text(json.dumps(coco))
    return L(get_detection_dataset_dicts)(
        names=L(register_coco_json)(
            name=name, json_file=str(folder / "a.json"), image_root=str(folder)
        )
    )


def test_do_train__class_names_are_in_every_checkpoint(tmp_path):
    cfg = stand_in_config(str(tmp_path))
    cfg.dataloader.train.dataset = _named_dataset(tmp_path, "names_in_the_checkpoint")
    cfg.dataloader.train.mapper = lambda sample: {**still_image(sample), "truth": 0.5}
    do_train(FRESH, cfg)
    files = list(tmp_path.glob("model_*.pth"))
    assert len(files) == 3
    for file in files:
        content = torch.load(file, weights_only=True)
        assert content["class_names"] == ["circle", "blue square"]
    cfg.train.max_iter = 8
    assert do_train(RESUME, cfg)
    do_train(FRESH, stand_in_config(str(tmp_path / "unnamed")))
    assert "class_names" not in torch.load(tmp_path / "unnamed" / "model_final.pth")


def test_do_train__left_out_pictures_are_told_at_the_end(tmp_path, caplog):
    def mapper(sample):
        if sample["image_id"] == 5:
            raise PictureError("5.png is truncated.")
        return still_image(sample)

    cfg = stand_in_config(str(tmp_path))
    cfg.dataloader.train.mapper = mapper
    with pytest.raises(PictureError, match=r"5\.png is truncated \(dataloader\.on_bad_image=skip"):
        do_train(FRESH, cfg)
    cfg.dataloader.on_bad_image = "skip"
    do_train(FRESH, cfg)
    lines = [record.getMessage() for record in caplog.records]
    (line,) = [line for line in lines if line.startswith("dataloader.on_bad_image=skip")]
    assert "dataloader.train left out 1 picture(s) that cannot be used, " in line
    assert "(image id 5)" in line
    assert line.endswith("others were drawn for them.")


def test_evaluate_only__checkpoint_ema_and_resume(tmp_path):
    ema = {"enabled": True, "decay": 0.9}
    trained = do_train(FRESH, stand_in_config(str(tmp_path), model_ema=ema))
    file = str(tmp_path / "model_final.pth")
    only = {**ema, "use_ema_weights_for_eval_only": True}

    def evaluate(args, **train):
        return evaluate_only(args, stand_in_config(str(tmp_path), **train))

    plain, averaged = {"bbox": trained["bbox"]}, {"bbox": trained["ema/bbox"]}
    assert evaluate(FRESH, init_checkpoint=file) == plain
    assert evaluate(FRESH, init_checkpoint=file, model_ema=ema) == plain
    assert evaluate(FRESH, init_checkpoint=file, model_ema=only) == averaged
    assert evaluate(RESUME) == plain
    assert evaluate(RESUME, model_ema=only) == averaged


def test_evaluate_only__ema_that_is_not_there(tmp_path):
    do_train(FRESH, stand_in_config(str(tmp_path), max_iter=1))
    only = {"enabled": True, "use_ema_weights_for_eval_only": True}
    cfg = stand_in_config(
        str(tmp_path), model_ema=only, init_checkpoint=str(tmp_path / "model_final.pth")
    )
    with pytest.raises(CheckpointError, match="no moving average to apply"):
        evaluate_only(FRESH, cfg)


def test_evaluate_only__heads_of_another_number_of_classes(tmp_path):
    do_train(FRESH, stand_in_config(str(tmp_path)))
    content = torch.load(tmp_path / "model_final.pth", weights_only=True)
    content["model"] |= {"head.weight": torch.zeros(2, 5), "head.bias": torch.zeros(2)}
    torch.save(content, tmp_path / "two.pth")
    cfg = stand_in_config(str(tmp_path), init_checkpoint=str(tmp_path / "two.pth"))
    with pytest.raises(CheckpointError, match=r"'head\.weight' .*has the shape \(2, 5\) there"):
        evaluate_only(FRESH, cfg)


def test_evaluate_only__initial_weights_are_warned_about(tmp_path, caplog):
    evaluate_only(FRESH, stand_in_config(str(tmp_path)))
    assert "Evaluating initial weights" in caplog.text
