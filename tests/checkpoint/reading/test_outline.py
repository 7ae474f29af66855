import pytest
import torch

from detrex.checkpoint.reading.outline import read_outline

CONTENT = {
    "run": {"id": "abc", "started": 1.5},
    "model": {"weight": torch.ones(3, 5).T, "half": torch.ones(2, dtype=torch.bfloat16)},
    "trainer": {"state": [torch.zeros(()), 7]},
}


@pytest.mark.parametrize("as_zip", [True, False])
def test_read_outline__all_but_the_numbers(tmp_path, as_zip):
    torch.save(CONTENT, tmp_path / "a.pth", _use_new_zipfile_serialization=as_zip)
    outline = read_outline(tmp_path / "a.pth")
    assert outline["run"] == CONTENT["run"]
    assert outline["model"]["weight"].shape == (5, 3)
    assert outline["model"]["half"].dtype == torch.bfloat16
    assert outline["trainer"]["state"][1] == 7
    assert outline["model"]["weight"].is_meta == as_zip


def test_read_outline__of_damaged_and_other_files(tmp_path):
    file = tmp_path / "a.pth"
    torch.save(CONTENT, file)
    data = file.read_bytes()
    for damaged in (b"", data[:-300], data[:70], b"PK\x03\x04", b"\x80\x02}."[:2], b"text" * 50):
        file.write_bytes(damaged)
        assert read_outline(file) is None
    torch.save([1, 2], file)
    assert read_outline(file) is None
    assert read_outline(tmp_path / "gone.pth") is None
    assert read_outline(tmp_path) is None
