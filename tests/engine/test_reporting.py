import json
import logging
import math

import pytest
from detectron2.config import LazyCall as L

from detrex.config import get_config
from detrex.data.demo.shapes import write_shapes_dataset
from detrex.engine import do_train, reporting
from detrex.report.record import read_record
from tests.reference.runs import FRESH, RESUME, config, killed_run
from tests.reference.tiny_dino import tiny_dino


def _shapes(folder):
    cfg = get_config("dino/demo_shapes.py")
    write_shapes_dataset(folder / "train", 3, image_size=(64, 64), seed=0)
    write_shapes_dataset(folder / "val", 3, image_size=(64, 64), seed=1)
    size = {"embed_dim": 16, "layers": 1, "levels": 3, "queries": 9, "num_classes": 3}
    cfg.model = L(tiny_dino)(**size, dn_number=2)
    for part in ("train", "test"):
        cfg.dataloader[part].dataset.names.num_classes = 3
    cfg.dataloader.folder = str(folder)
    cfg.dataloader.train.total_batch_size = 1
    train = {"output_dir": str(folder / "run"), "device": "cpu", "max_iter": 3, "log_period": 1}
    cfg.train.update(**train, eval_period=2, model_ema={**cfg.train.model_ema, "enabled": True})
    return cfg


def test_do_train__ends_with_a_report_of_what_it_did(tmp_path, caplog):
    cfg = _shapes(tmp_path)
    with caplog.at_level(logging.INFO, logger="detrex"):
        metrics = do_train(FRESH, cfg)
    page = tmp_path / "run" / "report.html"
    assert caplog.messages[-1] == f"The report of this training: {page}"
    assert page.read_text().count("<img") == 6
    record = read_record(tmp_path / "run")
    assert record["scores"].keys() == metrics.keys() == {"bbox", "ema/bbox"}
    for task, of in record["scores"].items():
        for name, value in of["total"].items():
            expected = metrics[task].get(name, value)
            assert value == pytest.approx(expected) or (value is None and math.isnan(expected))
    (process,) = record["processes"]
    assert (process["iteration"], process["last"], process["ended"]) == (0, 2, "finished")
    parts = {"start", "data", "step", "evaluation", "checkpoints", "records", "rest"}
    assert process["seconds"].keys() == parts
    assert min(process["seconds"].values()) > 0
    assert record["parameters"] > 1000
    assert record["trained_on"] == ["demo_shapes_train"]


def test_do_train__without_a_report_writes_none(tmp_path):
    do_train(FRESH, config(tmp_path, report={"enabled": False}))
    assert not list(tmp_path.glob("report.*"))


def test_do_train__killed_and_resumed_is_shown_as_such(tmp_path):
    killed_run(tmp_path, 3)
    assert not (tmp_path / "report.html").exists()
    assert read_record(tmp_path)["processes"][0]["ended"] == "failed: Killed"
    do_train(RESUME, config(tmp_path))
    processes = read_record(tmp_path)["processes"]
    assert [p["iteration"] for p in processes] == [0, 2]
    assert [p["last"] for p in processes] == [3, 5]
    assert "The run was resumed at iteration 2" in (tmp_path / "report.html").read_text()


def test_do_train__another_run_in_the_folder_keeps_the_earlier_report(tmp_path):
    do_train(FRESH, config(tmp_path))
    first = json.loads((tmp_path / "run.json").read_text())["id"]
    page = (tmp_path / "report.html").read_bytes()
    do_train(FRESH, config(tmp_path))
    assert (tmp_path / f"report.{first}.html").read_bytes() == page
    assert read_record(tmp_path)["run"] != first
    assert len(read_record(tmp_path)["processes"]) == 1


@pytest.mark.parametrize("error", [MemoryError(), KeyError("x"), OSError(28, "No space left")])
def test_do_train__a_failing_report_is_a_warning(tmp_path, monkeypatch, caplog, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(reporting, "write_report", fail)
    monkeypatch.setattr(reporting.record, "begin", fail)
    monkeypatch.setattr(reporting.record, "end", fail)
    assert do_train(FRESH, config(tmp_path))
    warned = [m for m in caplog.messages if "`detrex report" in m]
    assert len(warned) == 3
    assert all("\n" not in message and len(message) < 500 for message in warned)


def test_do_train__a_page_of_the_users_stays(tmp_path, caplog):
    (tmp_path / "report.html").write_text("mine")
    do_train(FRESH, config(tmp_path))
    assert (tmp_path / "report.html").read_text() == "mine"
    assert "is no report of a training" in caplog.text


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("dino/dino_r50_4scale_12ep.py", "ResNet"),
        ("dino/timm_example.py", "TimmBackbone resnet152d"),
        ("mask_rcnn/demo_shapes.py", "FPN of TorchvisionBackbone mobilenet_v2"),
    ],
)
def test_backbone_name__says_what_is_wrapped(name, said):
    assert reporting.backbone_name(get_config(name).model.backbone) == said
