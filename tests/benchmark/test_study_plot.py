import xml.etree.ElementTree as ET

from detrex.benchmark.study_files import Cost, Run
from detrex.benchmark.study_page import lines_of
from detrex.benchmark.study_plot import draw


def _line(name, ap, milliseconds, weights="random"):
    runs = [Run(name, weights, seed, 300, value, value) for seed, value in enumerate(ap)]
    cost = Cost(name, 10**6, 2 * 10**6, 0.1, 9.0, milliseconds, 90.0, 80.0, 150.0)
    return lines_of(runs, [cost])


def test_draw__names_every_backbone_and_has_no_ground(tmp_path):
    lines = [*_line("resnet18", [20.0, 30.0], 6.0), *_line("mine", [10.0], 16.0)]
    assert draw(lines, tmp_path / "a.svg")
    root = ET.parse(tmp_path / "a.svg").getroot()
    texts = {"".join(e.itertext()).strip() for e in root.iter() if e.tag.endswith("}text")}
    assert {"resnet18", "mine", "convolutions"} <= texts
    ground = next(e for e in root.iter() if e.get("id") == "patch_1")
    assert "fill: none" in ET.tostring(ground, encoding="unicode")


def test_draw__is_the_same_each_time(tmp_path):
    for name in ("a.svg", "b.svg"):
        draw(_line("resnet18", [20.0], 6.0), tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_draw__of_kinds_that_nobody_has_said(tmp_path, recwarn):
    assert draw(_line("mine", [10.0], 16.0), tmp_path / "a.svg")
    assert not [str(each.message) for each in recwarn]


def test_draw__without_costs_there_is_nothing(tmp_path):
    assert not draw(lines_of([Run("a", "random", 0, 3, 1.0, 2.0)], []), tmp_path / "a.svg")
    assert not list(tmp_path.iterdir())
