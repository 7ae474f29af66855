import json
import random

import numpy as np
import pytest
import torch
from detectron2.config import instantiate
from detectron2.evaluation import COCOEvaluator

import detrex
from detrex.engine import do_test
from detrex.errors import ConfigError
from detrex.inference.loading import choose_device
from tests.reference.tiny_run import CLASSES, build, images_of, save, tiny_config, write_run


@pytest.fixture(scope="module")
def other_ids(tmp_path_factory):
    """A run whose validation set has ids of categories and of images that count from elsewhere."""
    folder = tmp_path_factory.mktemp("ids")
    cfg = write_run(folder)
    for side in ("train", "val"):
        file = folder / "data" / side / "annotations.json"
        content = json.loads(file.read_text())
        moved = {c["id"]: 10 * c["id"] + 1 for c in content["categories"]}
        for category in content["categories"]:
            category["id"] = moved[category["id"]]
        for annotation in content["annotations"]:
            annotation["category_id"] = moved[annotation["category_id"]]
        file.write_text(json.dumps(content))
    return folder, cfg


def test_load__predicts_what_the_runs_evaluation_writes(other_ids):
    folder, cfg = other_ids
    cfg.dataloader.evaluator.output_dir = str(folder / "evaluated")
    cfg.dataloader.evaluator.use_fast_impl = False
    model = instantiate(cfg.model)
    model.load_state_dict(torch.load(folder / "run" / "model_final.pth")["model"])
    do_test(cfg, model)
    written = json.loads((folder / "evaluated" / "coco_instances_results.json").read_text())

    detector = detrex.load(folder / "run", threshold=0.0)
    found = [
        each
        for image_id, file in images_of(folder)
        for each in detector.predict(file).to_coco(image_id)
    ]
    assert len(found) == len(written) > 50
    key = lambda each: (each["image_id"], -each["score"])  # noqa: E731
    for one, other in zip(sorted(found, key=key), sorted(written, key=key), strict=True):
        assert one["image_id"] == other["image_id"]
        assert one["category_id"] == other["category_id"]
        assert one["score"] == pytest.approx(other["score"], abs=1e-5)
        assert one["bbox"] == pytest.approx(other["bbox"], abs=1e-3)
    assert {each["category_id"] for each in found} <= {11, 21, 31}
    assert COCOEvaluator  # what wrote them


def test_load__needs_no_data_and_leaves_random_numbers_alone(trained, tmp_path):
    cfg = tiny_config(tmp_path)
    cfg.dataloader.folder = "nowhere"
    cfg.model.backbone.weights = None
    states = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
    detector = detrex.load(cfg, weights=trained / "run" / "model_final.pth")
    assert random.getstate() == states[0]
    np.testing.assert_array_equal(np.random.get_state()[1], states[1])
    assert torch.equal(torch.get_rng_state(), states[2])
    assert detector.class_names == tuple(CLASSES)
    assert detector.category_ids == ()
    assert (detector.min_size, detector.max_size) == (72, 120)
    assert not detector.model.training
    assert cfg.model.device == "cpu"


def test_load__takes_the_average_where_the_evaluation_does(trained, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text((trained / "run" / "config.yaml").read_text())
    cfg = tiny_config(trained)
    average = {name: value + 1 for name, value in build(cfg).named_parameters()}
    model = build(cfg)
    buffers = {k: v for k, v in model.named_buffers() if k in model.state_dict()}
    save(model, run / "model_final.pth", ema_state={**average, **buffers})
    on = [f"train.model_ema.{key}=True" for key in ("enabled", "use_ema_weights_for_eval_only")]
    for overrides, expected in (([], dict(model.named_parameters())), (on, average)):
        loaded = detrex.load(run, overrides=overrides).model
        for name, value in loaded.named_parameters():
            torch.testing.assert_close(value.data, expected[name].data, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("amp", "inference", "expected"),
    [
        ({"enabled": False}, {}, None),
        ({"enabled": True, "dtype": "bfloat16"}, {}, torch.bfloat16),
        ({"enabled": True, "dtype": "float16"}, {}, None),  # no arithmetic for it on a processor
        ({}, {"enabled": True, "dtype": "bfloat16"}, torch.bfloat16),
        ({}, {"enabled": False, "dtype": "bfloat16"}, None),
    ],
)
def test_load__number_format_is_that_of_the_evaluation(tmp_path, amp, inference, expected):
    cfg = tiny_config(tmp_path)
    cfg.train.amp.update(amp)
    cfg.train.inference.update(inference)
    assert detrex.load(cfg, weights="random", device="cpu").dtype == expected


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"overrides": "model.num_clases=3"}, "Did you mean 'num_classes'"),
        ({"device": "gpu"}, "device=gpu is no device that PyTorch knows"),
        ({"threshold": 2}, "threshold=2 is no score: expected a number from 0 to 1"),
        ({"overrides": ["model.num_clases=3"]}, "Did you mean 'num_classes'"),
    ],
)
def test_load__wrong_options_are_said(keywords, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        detrex.load(tiny_config(tmp_path), weights="random", **keywords)


@pytest.mark.parametrize("keywords", [{"overrides": 5}, {"overrides": [3]}, {"trust": 7}])
def test_load__texts_are_texts(keywords, tmp_path):
    with pytest.raises(TypeError, match=r"\w+ is a text or a list of texts, got \[?\d"):
        detrex.load(tiny_config(tmp_path), weights="random", **keywords)


def test_load__a_wrong_number_format_is_said_at_once(tmp_path):
    with pytest.raises(ConfigError, match="'float31', expected 'auto', 'float32'"):
        detrex.load(tiny_config(tmp_path), weights="random", dtype="float31")


def test_load__random_weights_are_told(tmp_path, caplog):
    detrex.load(tiny_config(tmp_path), weights="random", device="cpu")
    assert "weights are random: it has learnt nothing" in caplog.text


def test_choose_device__the_processor_where_there_is_no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto").type == "cpu"
