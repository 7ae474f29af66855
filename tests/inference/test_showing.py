import base64
import io
import re

import numpy as np
import pytest
import torch
from PIL import Image

from detrex.inference import showing
from tests.inference.test_result import result


def test_sentence__of_a_picture_and_of_a_frame():
    assert repr(result()) == "Result(a <b>.png, 47 x 31: 2 disc, 1 circle)"
    frame = result(path="a.mp4", frame=3).filter(0.95)
    assert showing.sentence(frame) == "a.mp4, frame 3, 47 x 31: nothing"


def test_sentence__names_of_strangers_are_written_on_one_line():
    found = result(class_names=("a\x1b[2Jb", "c\nd"), path="e\nf.png")
    told = [showing.sentence(found), *(name for name, *_ in showing.rows(found))]
    assert all(text.isprintable() for text in told)
    assert r"2 c\nd, 1 a\x1b[2Jb" in told[0]


def test_rows__one_for_each_object():
    assert showing.rows(result())[0] == ("disc", "0.90", "1.0  2.0  11.0  22.0")


def test_drawn__the_surest_are_on_top():
    boxes = torch.tensor([[5.0, 5.0, 40.0, 30.0]]).repeat(2, 1)
    parts = {"masks": None, "keypoints": None, "class_names": ("a", "b")}
    both = result(
        boxes=boxes, scores=torch.tensor([0.9, 0.1]), labels=torch.tensor([0, 1]), **parts
    )
    best = both.filter(0.5)
    edge = (slice(5, 30), 5)  # below the labels
    np.testing.assert_array_equal(showing.drawn(both, 0)[edge], showing.drawn(best, 0)[edge])


def test_table__rich_prints_names_as_they_are():
    console = pytest.importorskip("rich.console").Console(width=90, file=io.StringIO())
    console.print(result(class_names=("[red]", "disc")))
    text = console.file.getvalue()
    assert "[red]" in text
    assert "0.90" in text


def test_html__a_picture_and_a_table_in_which_names_are_escaped():
    page = result(class_names=("<i>", "disc"))._repr_html_()
    assert "a &lt;b&gt;.png" in page
    assert "<td>&lt;i&gt;</td>" in page
    assert page.count("<tr>") == 4
    data = re.search(r"base64,([^\"]+)", page).group(1)
    assert max(Image.open(io.BytesIO(base64.b64decode(data))).size) == 640
