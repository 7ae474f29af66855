"""What the table of families says exports, exports: an hour on one core."""

import csv

import pytest

from benchmarks.export_table import DEFAULT_OUTPUT, export_one

ROWS = list(csv.DictReader(DEFAULT_OUTPUT.open(newline=""))) if DEFAULT_OUTPUT.is_file() else []


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['library']}-{row['family']}")
def test_family__exports_as_the_table_says(row):
    got = export_one(row["library"], row["architecture"])
    for column in ("torch_export", "onnx"):
        assert row[column] == "no" or got[column] != "no", got["reason"]
