import sys
from pathlib import Path
from types import SimpleNamespace
from xml.etree.ElementTree import fromstring

import numpy as np
import pytest

from detrex.errors import ConfigError, DataError
from detrex.project import supervised
from tests.project.labelled import voc_object, voc_xml

pytest.importorskip("supervision")


def test_require_supervision__is_one_sentence_without_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "supervision.dataset.formats.yolo", None)
    supervised._readers.cache_clear()
    with pytest.raises(ConfigError, match=r"pip install supervision") as error:
        supervised.require_supervision()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("taken_off", [0, 1])
def test_voc_boxes__alike_in_all_versions(monkeypatch, taken_off):
    def read(root, classes, resolution_wh):
        texts = [[float(v.text) for v in o.find("bndbox")] for o in root.findall("object")]
        boxes = np.array(texts, dtype=np.float32) - [1, 1, taken_off, taken_off]
        return SimpleNamespace(xyxy=boxes, class_id=[0] * len(boxes)), ["cat"]

    monkeypatch.setattr(supervised, "_readers", lambda: (None, read))
    supervised._correction.cache_clear()
    root = fromstring(voc_xml(voc_object("cat", (3, 4, 5, 9))))
    assert supervised.voc_boxes(root, Path("a.xml")) == ([[2, 3, 5, 9]], ["cat"])
    supervised._correction.cache_clear()


def test_boxes__nothing_is_nothing():
    assert supervised.yolo_boxes([], (4, 3), Path("a.txt")) == ([], [])
    assert supervised.voc_boxes(fromstring("<annotation/>"), Path("a.xml")) == ([], [])


def test_yolo_boxes__what_it_refuses_names_the_file():
    with pytest.raises(DataError, match=r"a\.txt cannot be read \("):
        supervised.yolo_boxes(["x 1 1 1 1"], (4, 3), Path("a.txt"))
