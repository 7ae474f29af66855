import json

import pytest

from detrex.cli import main
from detrex.cli.runs import choose_checkpoint
from detrex.inference.finding import run_checkpoints
from tests.reference.clean_logging import restored_loggers
from tests.reference.stand_in_file import stand_in_file

TRUSTED = ["--trust", "tests.reference.stand_in"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of two iterations, and its config."""
    folder = tmp_path_factory.mktemp("run")
    config = stand_in_file(folder, "out", max_iter=2)
    with restored_loggers():
        assert main(["train", str(config)]) == 0
    return folder / "out", config


def test_eval__of_a_run_and_of_its_weights_agree(run, tmp_path, capsys):
    folder, config = run
    before = (folder / "config.yaml").read_bytes()
    files = [tmp_path / "a.json", tmp_path / "b.json"]
    assert main(["eval", str(folder), *TRUSTED, "--json", str(files[0])]) == 0
    *_, head, row = capsys.readouterr().out.splitlines()
    assert (head.split()[:2], row.split()[0]) == (["TASK", "AP"], "bbox")
    weights = ["--weights", str(folder / "model_final.pth"), "--output", str(tmp_path / "else")]
    files[1].write_bytes(files[0].read_bytes())  # of an earlier evaluation, which is replaced
    assert main(["eval", str(config), *weights, "--json", str(files[1])]) == 0
    assert files[1].stat().st_mtime_ns > files[0].stat().st_mtime_ns
    first, second = (json.loads(file.read_text()) for file in files)
    last = json.loads((folder / "metrics.json").read_text().splitlines()[-1])
    assert first == second
    assert first["bbox"]["AP"] == last["bbox/AP"]
    assert (folder / "config.yaml").read_bytes() == before, "the run's own record stays"
    assert (tmp_path / "else" / "config.yaml").is_file()


def test_choose_checkpoint__where_the_run_was_best_else_its_last(run, tmp_path, capsys):
    last = (run[0] / "model_final.pth").read_bytes()
    for name, why in [
        ("model_0000007.pth", "the last of the run"),
        ("model_best.pth", "where the run was best"),
    ]:
        (tmp_path / name).write_bytes(last)
        assert choose_checkpoint(tmp_path) == str(tmp_path / name)
        assert run_checkpoints(tmp_path)[0] == str(tmp_path / name), "as `detrex.load` does"
        assert capsys.readouterr().err == f"weights: {tmp_path / name}, {why}\n"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["{empty}"], "holds no config.yaml, as the folder of a run does"),
        (["{bare}"], "holds no checkpoint of its run"),
        (["{run}"], "is refused"),
        (["{config}", "--json", "no/m.json"], "no folder to write no/m.json to"),
        (["{config}", "--json", "{run}/metrics.json"], "metrics.json exists and holds no metrics"),
        (["{config}", "--json", "empty"], "empty exists and holds no metrics of an evaluation"),
        (["{run}/model_final.pth"], "model_final.pth is no .py or .yaml file: name one, or a run"),
        (["{shared}"], "is a shared detector, which comes without data: name a config"),
        (
            ["{around}"],
            "holds no config.yaml, as the folder of a run does: name that folder, or a ",
        ),
        (["{around}"], "out'?"),
        (["nowhere"], "Config file nowhere does not exist"),
        (["{config}", "--weights", "no.pth"], "'no.pth', which does not exist"),
        (["{config}", "dataloader.evaluator=null"], "evaluator"),
    ],
)
def test_eval__a_mistake_is_one_sentence(words, told, run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "config.yaml").write_text("train: {output_dir: x}\n")
    (tmp_path / "empty").mkdir()
    (tmp_path / "shared").mkdir()
    for name in ("config.yaml", "detrex.json"):
        (tmp_path / "shared" / name).write_text("model: {}\n")
    places = {
        "around": run[0].parent,
        "shared": "shared",
        "run": run[0],
        "config": run[1],
        "bare": "bare",
        "empty": "empty",
    }
    assert main(["eval", *(word.format(**places) for word in words)]) == 1
    sentence = capsys.readouterr().err.splitlines()[-1]
    assert sentence.startswith("detrex: ")
    assert told in sentence
