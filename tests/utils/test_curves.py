import json

import pytest
from PIL import Image

from detrex.utils import curves


def test_read_metrics__resumed_rows_replace_and_cut_lines_are_reported(tmp_path, caplog):
    rows = [{"iteration": 19, "a": 1}, {"iteration": 39, "a": 2}, {"iteration": 19, "a": 3, "b": 4}]
    text = "\n".join(json.dumps(row) for row in rows) + '\n{"iteration": 5'
    (tmp_path / "metrics.json").write_text(text)
    read = curves.read_metrics(tmp_path / "metrics.json")
    assert read == [{"iteration": 19, "a": 3, "b": 4}, {"iteration": 39, "a": 2}]
    assert "line 4 is no complete row" in caplog.text


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
