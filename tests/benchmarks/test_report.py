import re

import pytest
from PIL import Image

from benchmarks import report
from benchmarks.protocol import RESULTS
from benchmarks.results_file import Row, write_rows
from benchmarks.summary import NO_UNIT

MACHINE = {"processor": "Some Processor", "threads": "2", "cores": "2", "busy": "1 %"}


@pytest.fixture
def folder(tmp_path):
    case = "ResNet-50, 64 x 64"
    times = {"detectron2": (0.4, 0.5, 0.9), "timm": (0.1, 0.2, 0.3), "detrex": (0.2, 0.25, 0.45)}
    rows = [
        Row(case, name, "detectron2", "s", str(i), str(value))
        for name, values in times.items()
        for i, value in enumerate(values)
    ]
    rows.append(Row(case, "OpenVINO", "detectron2", "s", note="not installed"))
    rows.append(Row("errors", "detrex bf16", "detrex", NO_UNIT, "0", "0.00213"))
    write_rows(tmp_path / "backbones.csv", rows, MACHINE)
    sizes = [
        Row(f"longer side: {side}", name, "R50", "s", "0", str(factor * side**2))
        for side in (320, 640, 1333)
        for name, factor in (("R50", 1e-6), ("DINO", 5e-6))
    ]
    write_rows(tmp_path / "sizes.csv", sizes, MACHINE)
    write_rows(tmp_path / "of_mine.csv", [Row("c", "a", "a", "bytes", "0", "4e6")], {})
    (tmp_path / "export.csv").write_text("family,onnx,reason\nresnet,1.2e-06,\nvit,no,a|b\n")
    return tmp_path


def test_main__page_and_plots_of_what_there_is(folder, capsys):
    report.main(["--results", str(folder), "--page", str(folder / "page.md")])
    page = (folder / "page.md").read_text()
    for line in (
        "| detectron2 | 500.0 | 400.0 | 450.0 to 700.0 | 1.00 |",
        "| timm | 200.0 | 100.0 | 150.0 to 250.0 | 0.33 |",
        "| detrex | 250.0 | 200.0 | 225.0 to 350.0 | 0.50 |",
        "| OpenVINO | not installed | | | |",
        "| detrex bf16 | 0.0021 |",
        "| exponent | 2.00 | 2.00 |",
        "| a | 4.000 | 1.00 |",
        "| resnet | 1.2e-06 |  |",
        "| vit | no | a&#124;b |",
        "- Backbones in evaluation, ResNet-50, 64 x 64: timm takes 0.80 of the time of detrex.",
        "python -m benchmarks.backbones [--quick]",
    ):
        assert f"\n{line}\n" in page
    assert re.findall(r"^## (.*)", page, re.MULTILINE)[2:] == [
        report.TITLES["backbones"],
        report.TITLES["sizes"],
        report.TITLES["export"],
        "of_mine",
    ]
    assert re.findall(r"\(\.\./benchmarks/results/(\w+)\.png\)", page) == ["backbones", "sizes"]
    for name in ("backbones", "sizes"):
        with Image.open(folder / f"{name}.png") as picture:
            assert min(picture.size) > 100
    assert not (folder / "of_mine.png").exists()
    assert "page.md" in capsys.readouterr().out


def test_page__without_results(tmp_path):
    assert "There are no results yet." in report.page(tmp_path)


def test_page__is_what_the_results_give():
    """`python -m benchmarks.report` writes it again."""
    assert report.PAGE.read_text(encoding="utf-8") == report.page(RESULTS)


@pytest.mark.parametrize("name", report.TITLES)
def test_docstring__shows_the_command_of_a_script(name):
    if (report.SCRIPTS / f"{name}.py").is_file():
        command = rf"^```bash\npython (-m benchmarks\.{name}|benchmarks/{name}\.py)\b"
        assert re.search(command, report.docstring(name), re.MULTILINE)
