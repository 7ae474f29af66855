import base64
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from detrex.errors import PictureError
from detrex.report.confusion import confusion
from detrex.report.detections import read_data_set, read_detections
from detrex.report.pictures import FAILED, RIGHT, as_address, draw, rich_rows
from tests.reference.report_runs import made_up_run


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    results = made_up_run(folder, 4, masks=True) / "coco_instances_results.json"
    data = read_data_set(str(folder / "val/annotations.json"))
    found, rich = read_detections(results, data)
    assert rich
    made = confusion(data.truth, found, 4, data.names, 0.4)
    return data, found, made, results, folder / "val/images"


def _pixels(address: str) -> np.ndarray:
    data = base64.b64decode(address.partition("base64,")[2])
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), dtype=int)


def _has(picture, colour) -> bool:
    return bool((np.abs(picture - colour).max(axis=2) < 60).any())


def test_draw__counts_what_the_confusion_counts(seen):
    data, found, made, _, root = seen
    for place in range(4):
        drawn = draw(place, data, found, made, image_root=str(root))
        right, missed, wrong = made.right[place], made.missed[place], made.wrong[place]
        assert drawn.summary == f"{right} right, {missed} missed, {wrong} wrong"
        assert drawn.name == data.images[place]["file_name"]
        objects = data.truth.of(place).kind
        for kind, name in enumerate(data.names):
            assert (f"{(objects == kind).sum()} {name}" in drawn.truth[1]) == (kind in objects)


def test_draw__what_is_missed_stands_out(seen):
    data, found, _, _, root = seen
    nothing = found.taken(slice(0, 0))
    empty = confusion(data.truth, nothing, 4, data.names, 0.4)
    drawn = draw(0, data, nothing, empty, image_root=str(root))
    assert _has(_pixels(drawn.truth[0]), FAILED)
    assert drawn.found[1] == "predictions: nothing"
    exact = replace(data.truth, scores=np.full(len(data.truth.kind), 0.9))
    whole = confusion(data.truth, exact, 4, data.names, 0.4)
    drawn = draw(0, data, exact, whole, image_root=str(root))
    assert _has(_pixels(drawn.truth[0]), RIGHT)
    assert _has(_pixels(drawn.found[0]), RIGHT)


def test_rich_rows__give_masks_to_both_halves(seen):
    data, found, made, results, root = seen
    rows = rich_rows(results, data, [2])
    assert rows.keys() == {2}
    scores = [row["score"] for row in rows[2]]
    assert scores == sorted(scores, reverse=True)
    plain = draw(2, data, found, made, image_root=str(root))
    tinted = draw(2, data, found, made, image_root=str(root), rich=rows)
    for before, after in ((plain.truth, tinted.truth), (plain.found, tinted.found)):
        changed = np.abs(_pixels(before[0]) - _pixels(after[0])).max(axis=2) > 40
        assert 0.005 < changed.mean() < 0.5
        assert before[1] == after[1]


def test_draw__large_pictures_are_made_small(seen, tmp_path):
    data, found, made, _, _ = seen
    Image.new("RGB", (3000, 1000), "white").save(tmp_path / Path(data.images[0]["file_name"]).name)
    drawn = draw(0, data, found, made, image_root=str(tmp_path))
    assert max(_pixels(drawn.truth[0]).shape) <= 1000


def test_draw__a_picture_that_is_gone(seen):
    data, found, made, _, _ = seen
    with pytest.raises(PictureError):
        draw(0, data, found, made, image_root="/nowhere")


@pytest.mark.parametrize("webp", [True, False])
def test_as_address__holds_the_picture(webp, monkeypatch):
    monkeypatch.setattr(features, "check", lambda _: webp)
    picture = np.full((5, 7, 3), (200, 100, 50), dtype=np.uint8)
    address = as_address(picture)
    assert address.startswith(f"data:image/{'webp' if webp else 'jpeg'};base64,")
    np.testing.assert_allclose(_pixels(address), picture, atol=8)
