import pytest
import torch

from detrex.checkpoint import read_checkpoint
from detrex.cli import main
from tests.reference.sharded_files import in_parts


def test_merge__one_file_of_all_parts(tmp_path, capsys):
    whole = in_parts(tmp_path / "run.dcp")
    file = tmp_path / "new" / "model.pth"
    assert main(["merge", str(tmp_path / "run.dcp"), "--output", str(file)]) == 0
    assert capsys.readouterr().out.strip().endswith("MiB: weight")
    held = torch.load(file, weights_only=True)
    torch.testing.assert_close(held["weight"], whole, rtol=0, atol=0)
    assert read_checkpoint(file).keys() == {"weight"}
    assert file.with_name("model.pth.sha256").is_file()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere", "--output", "a.pth"], "nowhere is no checkpoint in parts"),
        (["run.dcp", "--output", "there.pth"], "there.pth is there already"),
        (["run.dcp/__1_0.distcp", "--output", "a.pth"], "is no checkpoint in parts"),
        (["broken.dcp", "--output", "a.pth"], "broken.dcp/__1_0.distcp is truncated or damaged"),
        (["run.dcp", "--output", "there.pth/a.pth"], "cannot be written"),
    ],
)
def test_merge__a_mistake_is_one_sentence(words, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("run.dcp", "broken.dcp"):
        in_parts(tmp_path / name)
    (tmp_path / "there.pth").write_bytes(b"")
    data = (tmp_path / "broken.dcp" / "__1_0.distcp").read_bytes()
    (tmp_path / "broken.dcp" / "__1_0.distcp").write_bytes(bytes(len(data)))
    assert main(["merge", *words]) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("detrex: ")
    assert said in error
    assert not (tmp_path / "a.pth").exists()
