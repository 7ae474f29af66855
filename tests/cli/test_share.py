import shutil
from pathlib import Path

import pytest

import detrex
from detrex.cli import main
from detrex.cli.runs import choose_checkpoint
from detrex.inference.finding import find_source
from detrex.inference.pretrained import read_pretrained
from tests.reference.hub_server import hub_on_this_machine
from tests.reference.tiny_run import CLASSES, write_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    write_run(folder, pictures=1)
    return folder / "run"


def test_share__to_a_folder(run, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (run / "metrics.json").write_text('{"iteration": 9, "total_loss": 2.0, "bbox/AP": 12.5}\n')
    words = ["--licence", "MIT", "--dataset", "my set", "--threshold", "0.25"]
    assert main(["share", str(run), "shapes", *words]) == 0
    printed = capsys.readouterr()
    assert printed.out == "shapes: load it by detrex.load('shapes')\n"
    assert printed.err == f"weights: {run}/model_final.pth, the last of the run\n"
    facts = read_pretrained("shapes").facts
    assert (facts.licence, facts.datasets, facts.threshold) == ("MIT", ("my set",), 0.25)
    assert (facts.metrics, facts.iteration) == ({"bbox": {"AP": 12.5}}, 9)
    assert facts.class_names == tuple(CLASSES)
    assert {path.name for path in (tmp_path / "shapes").iterdir()} == {
        *("README.md", "ap.png", "config.yaml", "detrex.json", "loss.png", "model.safetensors")
    }
    shared = Path("shapes")
    assert choose_checkpoint(shared) == "shapes/model.safetensors"
    for source in (shared / "config.yaml", shared / "detrex.json", shared / "model.safetensors"):
        assert find_source(source).shared.folder == shared
    other = find_source(shared, weights=run / "model_final.pth")
    assert (other.shared, other.weights) == (None, (str(run / "model_final.pth"),))
    detector = detrex.load("shapes")
    assert main(["share", "shapes", "again"]) == 0
    again = read_pretrained("again").facts  # what was measured of the same weights still holds
    assert (again.licence, again.metrics) == ("MIT", facts.metrics)
    detector.model.label_enc.weight.data += 1
    detector.save_pretrained("trained_on")
    assert read_pretrained("trained_on").facts.metrics == {}
    assert main(["share", "shapes", str(run)]) == 1
    assert "holds other files, and nothing is written over" in capsys.readouterr().err


def test_share__no_ap_but_of_the_weights_that_are_saved(run, tmp_path):
    """Of weights that were trained on, of another run's, and of none nothing was measured."""
    (run / "metrics.json").write_text('{"iteration": 9, "total_loss": 2.0, "bbox/AP": 12.5}\n')
    detector = detrex.load(run)
    facts = read_pretrained(detector.save_pretrained(tmp_path / "same")).facts
    assert facts.metrics == {"bbox": {"AP": 12.5}}
    detector.model.label_enc.weight.data += 1
    elsewhere = shutil.copy(run / "model_final.pth", tmp_path / "other.pth")
    others = [detector, detrex.load(run, weights=elsewhere), detrex.load(run, weights="random")]
    for number, other in enumerate(others):
        folder = other.save_pretrained(tmp_path / str(number))
        assert (read_pretrained(folder).facts.metrics, read_pretrained(folder).facts.iteration) == (
            {},
            -1,
        )
        assert not (folder / "ap.png").exists()


def test_share__to_the_hub(run, tmp_path, capsys, monkeypatch):
    with hub_on_this_machine(monkeypatch, tmp_path / "hub") as hub:
        assert main(["share", str(run), "hf-hub:owner/name@next", "--private"]) == 0
        told = "hf-hub:owner/name@next: load it by detrex.load('hf-hub:owner/name@next')\n"
        assert capsys.readouterr().out == told
        assert hub.private == {"owner/name": True}
        assert [commit[:2] for commit in hub.commits] == [("owner/name", "next")]


def test_share__options_of_the_hub_for_a_folder(capsys):
    with pytest.raises(SystemExit) as info:
        main(["share", "run", "folder", "--private"])
    assert info.value.code == 2
    assert "--private is for hf-hub:owner/name, and folder is none" in capsys.readouterr().err
