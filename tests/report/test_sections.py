import dataclasses
import re

import pytest

from detrex.report import sections
from detrex.report.collect import collect
from tests.reference.report_runs import made_up_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return collect(made_up_run(tmp_path_factory.mktemp("sections"), 6, masks=True), 0)


def _cells(table):
    return [
        [re.sub("<.*?>", "", cell) for cell in re.findall(r"<t[hd].*?</t[hd]>", row)]
        for row in re.findall(r"<tr>.*?</tr>", table)
    ]


def test_summary__says_what_was_trained_and_how_well(run):
    text = sections.summary(run)
    total = run.scores("ema/bbox")["total"]
    assert f"<b>{total['AR']:.1f}</b>AR of boxes, averaged weights" in text
    assert f"plain weights: {total['AP']:.1f}" in text
    for said in ("1,234,567, of which 1,200,000", "100 of 100", "0:01:15", "DINO", "6 pictures"):
        assert said in text
    assert "resumed at iteration 40" in text


def test_summary__a_run_that_was_stopped_says_so(run):
    record = {**run.record, "processes": run.processes()[:1]}
    assert "has not finished (stopped by a signal)" in sections.summary(
        dataclasses.replace(run, record=record)
    )


def test_figures__of_plain_and_averaged_weights(run):
    rows = _cells(sections.figures(run))
    assert rows[0][:4] == ["task", "AP", "AP50", "AP75"]
    assert [row[0] for row in rows[1:]] == [
        *("boxes", "boxes, averaged weights", "masks", "masks, averaged weights")
    ]
    assert rows[1][1:] == rows[2][1:]


def test_figures__of_segmentation_without_boxes(run):
    metrics = [{"iteration": 9, "sem_seg/mIoU": 31.25, "sem_seg/IoU-<b>": 40.5}]
    of_pixels = dataclasses.replace(run, metrics=metrics, record={}, data=None, confusion=None)
    assert _cells(sections.figures(of_pixels)) == [["task", "mIoU"], ["pixels", "31.2"]]
    assert _cells(sections.classes(of_pixels)[0]) == [["class ", "IoU"], ["&lt;b&gt;", "40.5"]] or (
        _cells(sections.classes(of_pixels)[0])[1] == ["&lt;b&gt;", "40.5"]
    )
    assert "mIoU" in sections.curves(of_pixels)


def test_curves__marks_where_the_run_was_resumed(run):
    text = sections.curves(run)
    assert text.count("<figure") == 5
    assert "resumed at iteration 40" in text
    assert "loss_bbox_0" not in text


def test_classes__counts_are_those_of_the_confusion(run):
    boxes, masks = sections.classes(run)
    rows = _cells(boxes)
    matrix = run.confusion.matrix
    for kind, row in enumerate(rows[1:]):
        assert row[0] == run.data.names[kind]
        figures = dict(zip(rows[0], row, strict=True))
        assert int(figures["objects"]) == matrix[kind].sum()
        assert int(figures["right"]) == matrix[kind, kind]
        assert int(figures["missed"]) == matrix[kind].sum() - matrix[kind, kind]
        assert int(figures["wrong"]) == matrix[:, kind].sum() - matrix[kind, kind]
    assert "objects" not in masks


def test_classes__of_which_one_left_the_annotations(run):
    ranks = dict(list(run.data.ranks.items())[:-1])
    fewer = dataclasses.replace(run, data=dataclasses.replace(run.data, ranks=ranks))
    header, *rows = _cells(sections.classes(fewer)[0])
    assert {len(row) for row in rows} == {len(header)}
    assert rows[-1][-6:] == ["-"] * 6


def test_sizes__count_objects_by_their_area(run):
    rows = _cells(sections.sizes(run))
    areas = run.data.areas
    assert rows[1][0] == "small, boxes, averaged weights"
    assert int(rows[1][2]) == (areas <= 32**2).sum()


def test_seconds__add_up_to_the_wall_time(run):
    parts, processes = map(_cells, sections.seconds(run)[1:])
    shown = [float(row[1]) for row in parts[1:]]
    assert sum(shown[:-1]) == pytest.approx(shown[-1]) == pytest.approx(75)
    assert [row[3:6] for row in processes[1:]] == [
        ["0", "39", "stopped by a signal"],
        ["40", "99", "finished"],
    ]


def test_seconds__a_process_that_was_killed_is_listed(run):
    record = {**run.record, "processes": [*run.processes(), {"iteration": 99}]}
    shown = sections.seconds(dataclasses.replace(run, record=record))
    assert "not recorded: it is at work, or was killed" in shown[2]


def test_warnings__are_escaped_and_counted(run):
    assert "pictures are &lt;b&gt;dark&lt;/b&gt;." in sections.warnings(run)[0]


def test_config_and_environment__are_there(run):
    assert "_target_: DINO" in sections.config(run)[0]
    assert len(sections.environment(run)) == 2


@pytest.mark.parametrize(
    ("spent", "said"), [(0.04, "0.0 s"), (59.94, "59.9 s"), (61, "0:01:01"), (90_000, "1 day")]
)
def test_in_words__seconds_and_more(spent, said):
    assert sections.in_words(spent).startswith(said)
