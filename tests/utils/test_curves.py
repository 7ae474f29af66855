import json
import math

import pytest
from PIL import Image

from detrex.errors import RunError
from detrex.utils import curves


def test_read_metrics__resumed_rows_replace_and_cut_lines_are_reported(tmp_path, caplog):
    rows = [{"iteration": 19, "a": 1}, {"iteration": 39, "a": 2}, {"iteration": 19, "a": 3, "b": 4}]
    text = "\n".join(json.dumps(row) for row in rows) + '\n{"iteration": 5'
    (tmp_path / "metrics.json").write_text(text)
    read = curves.read_metrics(tmp_path / "metrics.json")
    assert read == [{"iteration": 19, "a": 3, "b": 4}, {"iteration": 39, "a": 2}]
    assert "line 4, the last, is no complete row" in caplog.text
    (tmp_path / "metrics.json").write_text('{"iteration": 5, "lo')
    assert curves.read_metrics(tmp_path / "metrics.json") == []
    assert "line 1, the last, is no complete row" in caplog.text
    (tmp_path / "metrics.json").write_text("something else")
    with pytest.raises(RunError, match="line 1 is no JSON"):
        curves.read_metrics(tmp_path / "metrics.json")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"iteration": 1, "a": 0.', "line 2 is no JSON"),
        ("[1]", r"line 2 is \[1\]"),
        ("7", "line 2 is 7"),
        ("\udc80\udcff\x00", "line 2 is no JSON"),
        ("[" * 100_000, "line 2 is no JSON"),
        ('{"a": 1}', "line 2 has no iteration"),
        ('{"iteration": NaN}', "line 2 has nan for 'iteration'"),
        ('{"iteration": 1.5}', "line 2 has 1.5 for 'iteration'"),
        ('{"iteration": 1, "a": "x"}', "line 2 has 'x' for 'a'"),
        ('{"iteration": 1, "a": null}', "line 2 has None for 'a'"),
        ('{"iteration": 1, "a": [2]}', r"line 2 has \[2\] for 'a'"),
        ('{"iteration": 1, "a": 1%s}' % ("0" * 400), "line 2 has 100000"),
    ],
)
def test_read_metrics__a_line_that_is_no_row_is_named(tmp_path, line, said):
    file = tmp_path / "metrics.json"
    content = f'{{"iteration": 0}}\n{line}\n{{"iteration": 2}}\n'
    file.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(RunError, match=rf"metrics\.json cannot be read: {said}") as caught:
        curves.read_metrics(file)
    assert len(str(caught.value)) < 500
    assert "\n" not in str(caught.value)


def test_read_metrics__numbers_of_nothing_measured_stay(tmp_path):
    (tmp_path / "metrics.json").write_text('{"iteration": 3, "AP": NaN, "loss": Infinity}\n\n')
    (row,) = curves.read_metrics(tmp_path / "metrics.json")
    assert math.isnan(row["AP"])
    assert row["loss"] == math.inf


@pytest.mark.parametrize("plot", [curves.plot_losses, curves.plot_ap])
def test_plot__writes_a_picture(tmp_path, plot):
    rows = [
        {"iteration": 0, "total_loss": 3.0, "loss_class": 2.0, "loss_class_0": 1.0},
        {"iteration": 7, "total_loss": 1.0, "loss_class": 0.5, "bbox/AP": 11.0, "bbox/AP50": 13.0},
    ]
    path = plot(rows, tmp_path / "new" / "plot.png", title="a run")
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert len(picture.convert("RGB").getcolors(1 << 20)) > 20


def test_plot__says_so_when_there_is_nothing(tmp_path):
    with pytest.raises(ValueError, match=r"nothing to plot in .*evaluate once"):
        curves.plot_ap([{"iteration": 0, "total_loss": 1.0}], tmp_path / "ap.png")


def test_is_own_term__other_layers_are_left_out():
    names = ["loss_class", "loss_bbox_dn", "loss_giou_enc", "loss_class_3", "loss_bbox_dn_0", "lr"]
    assert [n for n in names if curves.is_own_term(n)] == names[:3]
