import json
import logging

import pytest

from detrex.errors import RunError
from detrex.report import collect as collecting
from detrex.report.collect import collect, read_log
from detrex.report.page import page_of
from tests.reference.report_runs import made_up_run


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return made_up_run(tmp_path_factory.mktemp("collect"), 6)


@pytest.fixture
def run(made, tmp_path):
    """A copy of the run's folder; its data set stays where it is."""
    for file in made.iterdir():
        if file.is_file():
            (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def _change(folder, **data):
    record = json.loads((folder / "report.json").read_text())
    record["data"] |= data
    (folder / "report.json").write_text(json.dumps(record))


def test_collect__tasks_with_plain_weights_first_and_their_last_figures(run):
    seen = collect(run, 2)
    assert seen.tasks() == ["bbox", "ema/bbox"]
    assert seen.final("bbox")["AP"] == pytest.approx(seen.scores("bbox")["total"]["AP"])
    assert seen.final("segm") == {}
    assert len(seen.drawn) == 2
    assert seen.notes == []


def test_collect__the_config_keeps_no_password(run):
    seen = collect(run, 0)
    assert "init_checkpoint: https://host/x.pth" in seen.config
    assert "hunter2" not in seen.config + str(seen.log.warnings)


def test_collect__a_run_of_before_has_its_metrics_and_says_what_is_missing(run):
    (run / "report.json").unlink()
    (run / "config.yaml").write_text("model: 1")
    seen = collect(run)
    assert seen.config == "model: 1"
    assert seen.final("bbox")["AP-circle"] >= 0
    assert "left no report.json" in seen.notes[0]
    assert "did not note which annotations" in seen.notes[1]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"results": None}, "dataloader.evaluator.output_dir"),
        ({"json_file": "gone.json"}, "gone.json does not exist"),
        ({"results": "/nowhere/else.json"}, "else.json cannot be read"),
    ],
)
def test_collect__what_cannot_be_compared_is_a_note(run, data, said):
    _change(run, **data)
    seen = collect(run)
    assert said in " ".join(seen.notes)
    assert seen.drawn == []
    assert seen.final("bbox")


@pytest.mark.parametrize(
    ("file", "place", "value", "said"),
    [
        (
            "report.json",
            ("processes", 0, "started"),
            "noon",
            "report.json is not as a run leaves it (processes.0.started is 'noon'",
        ),
        ("report.json", ("scores", "bbox", "total", "AP"), [1], "scores.bbox.total.AP is [1]"),
        ("coco_instances_results.json", (4, "score"), "high", "row 5 is no detection"),
        ("coco_instances_results.json", (0, "bbox"), [1, 2], "row 1 is no detection"),
        ("coco_instances_results.json", (0, "bbox", 2), 10**400, "row 1 is no detection"),
        ("coco_instances_results.json", (3,), "text", "no list of detections behind row 3"),
    ],
)
def test_collect__a_value_out_of_place_is_a_note(run, file, place, value, said):
    _change(run, results="/nowhere/coco_instances_results.json")
    content = json.loads((run / file).read_text())
    inner = content
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    (run / file).write_text(json.dumps(content))
    seen = collect(run, 1)
    assert said in " ".join(seen.notes)
    assert page_of(seen)


@pytest.mark.parametrize(
    "wrong",
    [
        {"segmentation": {"size": [9, 9], "counts": "\x00garbage"}},
        {"segmentation": [["a"] * 6]},
        {"segmentation": 7},
        {"keypoints": [1, 2]},
        {"keypoints": "x"},
    ],
)
def test_collect__an_outline_that_cannot_be_drawn_ends_nothing(tmp_path, wrong):
    run = made_up_run(tmp_path, 2, masks=True)
    file = run / "coco_instances_results.json"
    rows = json.loads(file.read_text())
    file.write_text(json.dumps([row | wrong | {"score": 0.9} for row in rows]))
    seen = collect(run, 2)
    assert seen.confusion is not None
    assert len(seen.drawn) == 2 or "objects cannot be drawn" in seen.notes[0]


def test_collect__a_moved_folder_has_its_own_results(run):
    _change(run, results="/nowhere/coco_instances_results.json")
    assert collect(run, 1).confusion is not None


def test_collect__pictures_that_are_gone_are_counted(run):
    _change(run, image_root="/nowhere")
    seen = collect(run, 3)
    assert seen.drawn == []
    assert seen.confusion is not None
    assert "3 of the worst pictures cannot be shown" in seen.notes[0]


def test_collect__pictures_stop_where_the_page_is_full(run, monkeypatch):
    whole = collect(run, 3)
    two = sum(len(d.truth[0]) + len(d.found[0]) for d in whole.drawn[:2])
    monkeypatch.setattr(collecting, "_MOST_BYTES", two)
    seen = collect(run, 3)
    assert seen.drawn == whole.drawn[:2]
    assert "Of 3 pictures the first 2 are shown" in seen.notes[0]


def test_collect__a_folder_of_no_run(tmp_path):
    with pytest.raises(RunError, match=r"holds no metrics\.json"):
        collect(tmp_path)
    (tmp_path / "metrics.json").write_text('{"loss": 1}\n')
    with pytest.raises(RunError, match=r"metrics\.json cannot be read"):
        collect(tmp_path)


def test_read_log__of_the_last_run_alone(run):
    log = read_log(run / "log.txt")
    assert log.warnings == {
        "3 of 9 pictures are <b>dark</b>.": 2,
        "fetched from https://host/x.pth": 1,
    }
    assert log.environment == [("sys.platform", "linux"), ("Python", "3.11.7")]
    assert read_log(run / "none.txt").warnings == {}


def test_read_log__understands_what_detectron2_writes(tmp_path):
    from detectron2.utils.logger import setup_logger

    log = setup_logger(str(tmp_path), name="detrex.of_this_test", color=False)
    try:
        log.info("Environment:\n%s", "----  ----\nPython  3\n----  ----")
        log.warning("one\nand its second line")
        log.info("nothing")
    finally:
        for handler in log.handlers:
            handler.close()
        log.handlers.clear()
        logging.getLogger("detrex.of_this_test").setLevel(logging.NOTSET)
    found = read_log(tmp_path / "log.txt")
    assert found.warnings == {"one": 1}
    assert found.environment == [("Python", "3")]
