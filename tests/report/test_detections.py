import json

import numpy as np
import pytest

from detrex.errors import DataError
from detrex.report import detections
from detrex.report.detections import read_data_set, read_detections, rows_of

CONTENT = {
    "images": [{"id": 7, "file_name": "a.png"}, {"id": 3, "file_name": "b.png"}],
    "categories": [{"id": 9, "name": "late"}, {"id": 2, "name": "early"}],
    "annotations": [
        {"id": 1, "image_id": 3, "category_id": 9, "bbox": [1, 2, 3, 4], "iscrowd": 1, "area": 5},
        {"id": 2, "image_id": 7, "category_id": 2, "bbox": [0, 0, 2, 2]},
    ],
}


def row(image=7, category=9, score=0.5, box=(1, 2, 3, 4)):
    return {"image_id": image, "category_id": category, "bbox": list(box), "score": score}


@pytest.fixture
def data(tmp_path):
    (tmp_path / "truth.json").write_text(json.dumps(CONTENT))
    return read_data_set(str(tmp_path / "truth.json"))


def _read(tmp_path, data, content):
    file = tmp_path / "results.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return read_detections(file, data)


def test_read_data_set__sorts_by_picture_and_ranks_classes_by_id(data):
    assert data.names == ("early", "late")
    assert data.truth.picture.tolist() == [0, 1]
    assert data.truth.kind.tolist() == [0, 1]
    assert data.truth.boxes.tolist() == [[0, 0, 2, 2], [1, 2, 4, 6]]
    assert data.truth.scores.tolist() == [1, 0]
    assert data.areas.tolist() == [4, 5]
    assert data.truth.of(1).kind.tolist() == [1]
    assert len(data.truth.of(5).kind) == 0


def test_read_data_set__without_what_it_needs_is_a_sentence(tmp_path):
    content = {**CONTENT, "annotations": [{"image_id": 7, "category_id": 2}]}
    (tmp_path / "truth.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"truth\.json is not as the evaluation needs it"):
        read_data_set(str(tmp_path / "truth.json"))


def test_read_detections__the_best_of_each_picture_by_falling_score(tmp_path, data, monkeypatch):
    monkeypatch.setattr(detections, "MOST_DETECTIONS", 2)
    scores = [(3, 0.3), (7, 0.2), (3, 0.9), (7, 0.6), (3, 0.04), (7, 0.7), (3, 0.05)]
    found, rich = _read(tmp_path, data, [row(image, score=score) for image, score in scores])
    assert found.picture.tolist() == [0, 0, 1, 1]
    assert found.scores.tolist() == [0.7, 0.6, 0.9, 0.3]
    assert found.boxes[0].tolist() == [1, 2, 4, 6]
    assert not rich
    assert _read(tmp_path, data, [row() | {"keypoints": []}])[1]


def test_read_detections__a_score_that_is_no_number_is_low(tmp_path, data):
    found, _ = _read(tmp_path, data, [row(score=float("nan")), row(score=0.5)])
    assert found.scores.tolist() == [0.5]


def test_read_detections__of_nothing(tmp_path, data):
    found, _ = _read(tmp_path, data, "[]")
    assert found.boxes.shape == (0, 4)
    assert len(found.of(0).scores) == 0


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([row(image=1)], "no detection in the annotations' pictures and classes"),
        ([row(category=1)], "no detection in the annotations'"),
        ([row(box=(1, 2, 3))], "no detection in the annotations'"),
        ([row(box=(1, 2, 3, float("nan")))], "a box that is not finite"),
        ([{"score": 0.9}], "no detection in the annotations'"),
        ([row(score="high")], "no detection in the annotations'"),
        ([7], "something else than objects"),
        ({"images": []}, "does not begin with a list"),
        ('[{"image_id": 7, "sc', "is no list of detections"),
        ("", "is no list of detections"),
    ],
)
def test_read_detections__a_mistake_is_one_sentence(tmp_path, data, content, said):
    with pytest.raises(DataError, match=said) as caught:
        _read(tmp_path, data, content)
    assert len(str(caught.value)) < 500


def test_read_detections__a_file_that_is_not_there(tmp_path, data):
    with pytest.raises(DataError, match=r"cannot be read.*dataloader\.evaluator\.output_dir"):
        read_detections(tmp_path / "none.json", data)


@pytest.mark.parametrize("piece", [1, 2, 7, 64, 10_000])
@pytest.mark.parametrize("indent", [None, 2])
def test_rows_of__pieces_of_any_size_give_the_same(tmp_path, monkeypatch, piece, indent):
    rows = [row(score=i / 10) | {"note": '}, {"\\é' * i} for i in range(5)]
    (tmp_path / "r.json").write_text(json.dumps(rows, indent=indent))
    monkeypatch.setattr(detections, "_PIECE", piece)
    assert list(rows_of(tmp_path / "r.json")) == rows
    np.testing.assert_equal(list(rows_of(tmp_path / "r.json"))[4]["note"], rows[4]["note"])
