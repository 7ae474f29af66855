import json
import logging
import os
import shutil

import pytest
import torch
from detectron2.config import LazyCall as L

from detrex.engine import do_train, evaluate_only
from detrex.engine.run_folder.identity import config_file, read_run
from detrex.errors import CheckpointError
from tests.reference.runs import FRESH, RESUME, Killed, config, kill_at, killed_run, records
from tests.reference.stand_in import read_weights

WEIGHTS = "swin_tiny_patch4_window7_224.pth"


def names(folder):
    return {file.name for file in folder.iterdir()}


def identity_of(file):
    return torch.load(file, weights_only=True)["run"]["id"]


def strip(file, *keys):
    """Write a checkpoint as earlier versions and others did, without some of its parts."""
    content = torch.load(file, weights_only=True)
    torch.save({key: value for key, value in content.items() if key not in keys}, file)
    (file.parent / f"{file.name}.sha256").unlink(missing_ok=True)


def test_run__is_named_in_its_folder_and_its_checkpoints_and_keeps_its_name(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    killed_run(tmp_path, 3)
    run = json.loads((tmp_path / "run.json").read_text())
    assert len(run["id"]) == 12
    assert run["pid"] == os.getpid()
    assert run["config"]["train.max_iter"] == 6
    do_train(RESUME, config(tmp_path))
    assert (
        "another config:\n  dataloader.train.mapper: kill_at.<locals>.mapper -> still"
        in caplog.text
    )
    do_train(RESUME, config(tmp_path))
    assert "goes on with the same config" in caplog.text
    do_train(RESUME, config(tmp_path, max_iter=8))
    assert "goes on with another config:\n  train.max_iter: 6 -> 8" in caplog.text
    again = json.loads((tmp_path / "run.json").read_text())
    assert (again["id"], again["started"]) == (run["id"], run["started"])
    assert again["config_digest"] != run["config_digest"]
    assert {identity_of(file) for file in tmp_path.glob("*.pth")} == {run["id"]}
    do_train(FRESH, config(tmp_path / "other"))
    assert read_run(tmp_path / "other").id != run["id"]


def test_fresh_run__in_a_used_folder_leaves_the_earlier_ones_files(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    do_train(FRESH, config(tmp_path, checkpointer={"period": 2, "max_to_keep": None}))
    torch.save({"model": {"x": torch.zeros(3)}}, tmp_path / WEIGHTS)
    first, before = read_run(tmp_path).id, records(tmp_path)
    weights = read_weights(tmp_path)
    files = {file.name: file.read_bytes() for file in tmp_path.glob("*.pth")}
    killed_run(tmp_path, 1, seed=4)
    second = read_run(tmp_path).id
    assert second != first
    assert {name: (tmp_path / name).read_bytes() for name in files} == files
    assert [line["iteration"] for line in records(tmp_path)] == [0]
    assert f"run.{first}.json" in names(tmp_path)
    assert len(list((tmp_path / f"events.{first}").iterdir())) == 1

    caplog.clear()
    do_train(RESUME, config(tmp_path, seed=4))
    assert read_run(tmp_path).id == second
    assert "no checkpoint of this run, which starts from the beginning" in caplog.text
    assert "model_final" in caplog.text
    do_train(FRESH, config(tmp_path / "straight", seed=4))
    assert records(tmp_path) == records(tmp_path / "straight")
    torch.testing.assert_close(
        read_weights(tmp_path), read_weights(tmp_path / "straight"), rtol=0, atol=0
    )
    lines = (tmp_path / f"metrics.{first}.json").read_text().splitlines()
    assert [json.loads(line)["iteration"] for line in lines] == [
        line["iteration"] for line in before
    ]
    kept = torch.load(tmp_path / f"model_final.{first}.pth", weights_only=True)["model"]
    torch.testing.assert_close(kept, weights, rtol=0, atol=0)
    for name in ("model_0000001", "model_0000003", "model_0000005", "model_final"):
        moved = tmp_path / f"{name}.{first}.pth"
        assert moved.read_bytes() == files[f"{name}.pth"], "max_to_keep is not of others' files"
        assert (tmp_path / f"{moved.name}.sha256").is_file()
    assert (tmp_path / WEIGHTS).is_file()
    assert not (tmp_path / "model_0000001.pth").exists()


def test_max_to_keep__counts_what_is_on_the_disk(tmp_path):
    keep = {"checkpointer": {"period": 1, "max_to_keep": 2}}
    for end in range(2, 9):
        killed_run(tmp_path, 2, FRESH if end == 2 else RESUME, max_iter=99, **keep)
    expected = [f"model_00000{n}.pth" for n in (12, 13)]
    assert sorted(file.name for file in tmp_path.glob("*.pth")) == expected
    assert sorted(file.name for file in tmp_path.glob("*.sha256")) == [
        f"{name}.sha256" for name in expected
    ]


def test_resume__two_runs_in_a_folder_each_of_its_own_checkpoints(tmp_path):
    """The second run is resumed from its own, though the first one's are further and newer."""
    killed_run(tmp_path, 5)
    first = read_run(tmp_path).id
    killed_run(tmp_path, 3, seed=9)
    os.utime(tmp_path / "model_0000003.pth")
    (tmp_path / "last_checkpoint").write_text("model_0000003.pth")
    assert identity_of(tmp_path / "model_0000003.pth") == first
    do_train(RESUME, config(tmp_path, seed=9))
    do_train(FRESH, config(tmp_path / "straight", seed=9))
    assert records(tmp_path) == records(tmp_path / "straight")


@pytest.mark.parametrize("keys", [["run"], ["run", "class_names"]])
def test_resume__of_an_earlier_version_or_the_original(tmp_path, caplog, keys):
    caplog.set_level(logging.INFO)
    killed_run(tmp_path, 5)
    (tmp_path / "run.json").unlink()
    for file in tmp_path.glob("*.pth"):
        strip(file, *keys)
    killed_run(tmp_path, 1, RESUME)  # before it has a checkpoint of its own
    assert "names no run" in caplog.text
    do_train(RESUME, config(tmp_path))
    do_train(FRESH, config(tmp_path / "straight"))
    torch.testing.assert_close(
        read_weights(tmp_path), read_weights(tmp_path / "straight"), rtol=0, atol=0
    )
    assert len(list(tmp_path.glob("model_0*.pth"))) == 2, "they count as the run's"


def test_resume__of_detectron2s_other_trainer_goes_on_with_its_iteration(tmp_path):
    do_train(FRESH, config(tmp_path, max_iter=4))
    for name in names(tmp_path) - {"model_final.pth"}:
        path = tmp_path / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    strip(tmp_path / "model_final.pth", "run", "trainer")
    do_train(RESUME, config(tmp_path, max_iter=6))
    assert [line["iteration"] for line in records(tmp_path)] == [4, 5, 6]


def test_resume__a_folder_without_its_record_is_taken_up(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    killed_run(tmp_path, 5)
    run = read_run(tmp_path).id
    for damage in (lambda file: file.unlink(), lambda file: file.write_text('{"id": 3')):
        damage(tmp_path / "run.json")
        killed_run(tmp_path, 1, RESUME)
        assert read_run(tmp_path).id == run
    assert "which this folder takes up" in caplog.text


def test_resume__weights_alone_are_no_checkpoint(tmp_path):
    for name in (WEIGHTS, "model_final.pth", "maskrcnn_20200214.pth"):
        torch.save({"model": {"x": torch.zeros(3)}}, tmp_path / name)
    do_train(RESUME, config(tmp_path, max_iter=2))
    assert records(tmp_path)[0]["iteration"] == 0
    assert "model_final.earlier.pth" in names(tmp_path)


def poison(part):
    def damage(file):
        content = torch.load(file, weights_only=True)
        part(content).reshape(-1)[0] = float("nan")
        torch.save(content, file)
        (file.parent / f"{file.name}.sha256").unlink()

    return damage


def flip(file):
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 4
    file.write_bytes(data)


def become_a_folder(file):
    file.unlink()
    file.mkdir()


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.write_bytes(file.read_bytes()[:-200]),
        lambda file: file.write_bytes(b""),
        flip,
        become_a_folder,
        lambda file: file.unlink(),
        poison(lambda content: content["model"]["head.weight"]),
        poison(lambda content: content["ema_state"]["head.weight"]),
        poison(lambda content: content["trainer"]["optimizer"]["state"][0]["exp_avg"]),
    ],
    ids=["short", "empty", "flipped", "folder", "gone", "nan", "nan-ema", "nan-optimizer"],
)
def test_resume__passes_over_a_damaged_newest_checkpoint(tmp_path, caplog, damage):
    ema = {"model_ema": {"enabled": True, "decay": 0.5}}
    killed_run(tmp_path, 5, **ema)
    damage(tmp_path / "model_0000003.pth")
    with pytest.raises(Killed):
        do_train(RESUME, config(tmp_path, kill_at(1), **ema))
    assert [line["iteration"] for line in records(tmp_path)] == [0, 1, 2]
    if "gone" not in os.environ["PYTEST_CURRENT_TEST"]:
        assert "Passing over a checkpoint" in caplog.text


def test_fresh_run__killed_in_a_folder_of_damaged_files_starts_again(tmp_path):
    killed_run(tmp_path, 5)
    for file in tmp_path.glob("*.pth"):
        file.write_bytes(b"PK\x03\x04")
        os.utime(file, (1, 1))
    killed_run(tmp_path, 1)
    do_train(RESUME, config(tmp_path, max_iter=2))
    assert [line["iteration"] for line in records(tmp_path)] == [0, 1, 2]


def test_resume__of_a_run_all_of_whose_checkpoints_are_damaged(tmp_path):
    killed_run(tmp_path, 5)
    for file in tmp_path.glob("*.pth"):
        file.write_bytes(b"PK\x03\x04")
    before = records(tmp_path)
    with pytest.raises(CheckpointError, match=r"none of the 2 checkpoints .* can be read"):
        do_train(RESUME, config(tmp_path))
    assert records(tmp_path) == before


def test_enter_run__removes_what_a_killed_process_left(tmp_path):
    for name in ("model_0000001.pth.ab.unfinished", "metrics.json.cd.unfinished"):
        (tmp_path / name).write_text("x")
    for name in ("model_0000001.dcp.unfinished", "model_0000002.dcp.removed.unfinished", "mine"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__0_0.distcp").write_bytes(b"half")
    (tmp_path / "mine").rename(tmp_path / "mine.unfinished")
    do_train(FRESH, config(tmp_path, max_iter=1))
    assert [name for name in names(tmp_path) if "unfinished" in name] == ["mine.unfinished"]
    assert "run.lock" not in names(tmp_path)


def test_evaluate_only__resumes_the_folders_run_and_changes_nothing(tmp_path, caplog):
    metrics = do_train(FRESH, config(tmp_path))
    assert evaluate_only(RESUME, config(tmp_path)) == metrics
    killed_run(tmp_path, 1, seed=5)
    before = {name: (tmp_path / name).stat().st_mtime_ns for name in names(tmp_path)}
    evaluate_only(RESUME, config(tmp_path))
    assert "Evaluating initial weights" in caplog.text
    assert {name: (tmp_path / name).stat().st_mtime_ns for name in names(tmp_path)} == before


def test_resume__of_the_earlier_run_after_all(tmp_path):
    """A fresh run was a mistake: with its record, the earlier one gets its metrics back."""
    killed_run(tmp_path, 5)
    run = read_run(tmp_path).id
    killed_run(tmp_path, 1, seed=5)
    (tmp_path / f"run.{run}.json").replace(tmp_path / "run.json")
    (tmp_path / "metrics.json").unlink()
    do_train(RESUME, config(tmp_path))
    do_train(FRESH, config(tmp_path / "straight"))
    assert records(tmp_path) == records(tmp_path / "straight")


def test_config_file__of_earlier_runs_and_evaluations(tmp_path):
    assert config_file(tmp_path, fresh=True) == tmp_path / "config.yaml"
    do_train(FRESH, config(tmp_path, max_iter=1))
    (tmp_path / "config.yaml").write_text("first")
    assert config_file(tmp_path, False, evaluation=True) == tmp_path / "config.evaluation.yaml"
    assert config_file(tmp_path, fresh=False) == tmp_path / "config.yaml"
    assert (tmp_path / "config.yaml").exists()
    for text in ("second", "third"):  # starts that got to nothing
        assert config_file(tmp_path, fresh=True) == tmp_path / "config.yaml"
        (tmp_path / "config.yaml").write_text(text)
    assert (tmp_path / f"config.{read_run(tmp_path).id}.yaml").read_text() == "first"


@pytest.mark.parametrize("change", ["optimizer", "groups"])
def test_resume__with_another_optimizer_is_a_sentence(tmp_path, change):
    killed_run(tmp_path, 3)
    cfg = config(tmp_path)
    if change == "optimizer":
        cfg.optimizer = L(torch.optim.SGD)(params=cfg.optimizer.params, lr=0.01, momentum=0.9)
    else:
        cfg.optimizer.params.bias_lr_factor = 2.0
    with pytest.raises(CheckpointError, match=r"the trainer in .*model_0000001\.pth does not fit"):
        do_train(RESUME, cfg)


@pytest.mark.parametrize("identity", ["../../x", "", 7, "a" * 99, "a\nb"])
def test_read_run__an_identity_that_is_no_name(tmp_path, caplog, identity):
    (tmp_path / "run.json").write_text(
        json.dumps({"id": identity, "config_digest": "", "started": 0.0})
    )
    assert read_run(tmp_path) is None
    assert "it has no proper id" in caplog.text
