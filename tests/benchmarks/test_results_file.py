import pytest

from benchmarks.results_file import Row, holds_rows, read_rows, read_table, write_rows


def test_write_rows__are_read_back(tmp_path):
    rows = [
        Row('R50, 640 x 800, "wide"', "plain", "timm", "s", "0", "0.25"),
        Row("R50", "peer", "timm", "s", note="not installed: pip install peer, then again"),
    ]
    described = {"processor": "Some: make, 3 GHz", "flags": "avx2 avx512f"}
    file = tmp_path / "new folder" / "backbones.csv"
    write_rows(file, rows, described)
    assert read_rows(file) == (rows, described)
    assert file.read_text().startswith("# processor: Some: make, 3 GHz\n# flags: ")


def test_read_rows__of_no_samples(tmp_path):
    write_rows(tmp_path / "a.csv", [], {})
    assert read_rows(tmp_path / "a.csv") == ([], {})


def test_read_table__takes_other_columns(tmp_path):
    file = tmp_path / "table.csv"
    file.write_text('# date: today\nfamily,onnx\n"a, b",yes\n')
    assert not holds_rows(file)
    assert read_table(file) == [["family", "onnx"], ["a, b", "yes"]]
    with pytest.raises(ValueError, match=r"table\.csv has other columns"):
        read_rows(file)
