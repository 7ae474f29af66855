import io
import os
import re

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer as D2Checkpointer
from detectron2.engine.hooks import BestCheckpointer, PeriodicCheckpointer
from torch import nn

from detrex.checkpoint import detection_checkpoint
from detrex.checkpoint.detection_checkpoint import DetectionCheckpointer
from detrex.errors import CheckpointError
from detrex.files import UNFINISHED


class Counter:
    """Something to checkpoint beside the model."""

    def __init__(self, value=0):
        self.value = value

    def state_dict(self):
        return {"value": self.value}

    def load_state_dict(self, state):
        self.value = state["value"]


def model(width=5):
    return nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width))


def truncate(file):
    file.write_bytes(file.read_bytes()[:-100])


def listed(folder):
    """The folder's files without the digests, of which there is one for each checkpoint."""
    names = sorted(os.listdir(folder))
    digests = [name for name in names if name.endswith(".sha256")]
    assert digests == [f"{name}.sha256" for name in names if name.endswith(".pth")]
    return [name for name in names if name not in digests]


def assert_equal(got, expected):
    torch.testing.assert_close(dict(got.state_dict()), dict(expected.state_dict()), rtol=0, atol=0)


def save_half_and_die(content, stream, save=torch.save):
    whole = io.BytesIO()
    save(content, whole)
    stream.write(whole.getvalue()[: len(whole.getvalue()) // 2])
    stream.flush()
    os._exit(9)


def test_save__layout_and_names(tmp_path):
    DetectionCheckpointer(model(), tmp_path / "new" / "dir", trainer=Counter(7)).save(
        "model_0000004", iteration=4
    )
    folder = tmp_path / "new" / "dir"
    assert listed(folder) == ["last_checkpoint", "model_0000004.pth"]
    assert (folder / "last_checkpoint").read_text() == "model_0000004.pth"
    content = torch.load(folder / "model_0000004.pth", weights_only=True)
    assert list(content) == ["model", "trainer", "iteration"]
    assert list(content["model"]) == list(model().state_dict())
    assert content["trainer"] == {"value": 7}


def test_save__notes_are_plain_and_read_by_others(tmp_path):
    """They survive weights_only, resuming and detectron2's own checkpointer."""
    original = DetectionCheckpointer(model(), tmp_path)
    original.notes["class_names"] = ["circle", "blue square"]
    original.save("model_final", iteration=4)
    content = torch.load(tmp_path / "model_final.pth", weights_only=True)
    assert content["class_names"] == ["circle", "blue square"]
    for other in (DetectionCheckpointer(model(), tmp_path), D2Checkpointer(model(), tmp_path)):
        rest = other.resume_or_load("", resume=True)
        assert rest["iteration"] == 4
        assert_equal(other.model, original.model)
    old = D2Checkpointer(model(), str(tmp_path / "old"))
    (tmp_path / "old").mkdir()
    old.save("model_final", iteration=5)
    assert DetectionCheckpointer(model(), tmp_path / "old").resume_or_load("")["iteration"] == 5


def test_save__nowhere_and_not_by_other_processes(tmp_path):
    DetectionCheckpointer(model()).save("model_final")
    DetectionCheckpointer(model(), str(tmp_path), save_to_disk=False).save("model_final")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["", "a/b", "../x"])
def test_save__bare_names_only(tmp_path, name):
    with pytest.raises(ValueError, match=r"name '.*' must be a bare file name"):
        DetectionCheckpointer(model(), tmp_path).save(name)


def test_save__a_failure_leaves_nothing_behind(tmp_path, monkeypatch):
    checkpointer = DetectionCheckpointer(model(), tmp_path)
    checkpointer.save("model_0000001", iteration=1)

    def fail(content, stream):
        stream.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        checkpointer.save("model_0000002", iteration=2)
    assert listed(tmp_path) == ["last_checkpoint", "model_0000001.pth"]
    assert checkpointer.get_checkpoint_file() == str(tmp_path / "model_0000001.pth")


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("name", ["model_0000002", "model_0000001"])
def test_save__killed_in_the_middle(tmp_path, name):
    saved, counter = model(), Counter(1)
    DetectionCheckpointer(saved, tmp_path, trainer=counter).save("model_0000001", iteration=1)
    process = os.fork()
    if process == 0:
        torch.save = save_half_and_die
        DetectionCheckpointer(model(), tmp_path).save(name, iteration=2)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 9
    assert len(os.listdir(tmp_path)) == 4

    fresh = model()
    checkpointer = DetectionCheckpointer(fresh, tmp_path, trainer=Counter())
    assert checkpointer.resume_or_load("", resume=True) == {"iteration": 1}
    assert_equal(fresh, saved)
    checkpointer.save("model_0000003", iteration=3)
    assert [name for name in listed(tmp_path) if not name.endswith(UNFINISHED)] == [
        "last_checkpoint",
        "model_0000001.pth",
        "model_0000003.pth",
    ]


def test_resume__model_and_checkpointables(tmp_path):
    saved = model()
    DetectionCheckpointer(saved, tmp_path, trainer=Counter(7)).save("model_final", iteration=9)
    fresh, counter = model(), Counter()
    checkpointer = DetectionCheckpointer(fresh, tmp_path, trainer=counter)
    assert checkpointer.has_checkpoint()
    assert checkpointer.resume_or_load("not used", resume=True) == {"iteration": 9}
    assert_equal(fresh, saved)
    assert counter.value == 7


def _flip_a_bit_of_the_padding(file):
    data = bytearray(file.read_bytes())
    data[data.index(b"Z" * 9)] ^= 1
    file.write_bytes(data)


def _replace(file):
    torch.save({"model": model().state_dict(), "iteration": 99}, file)


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (truncate, "is truncated or damaged"),
        (_flip_a_bit_of_the_padding, "is truncated or damaged, or was replaced"),
        (_replace, r"is not the file that model_0000003\.pth\.sha256 beside it was made of"),
    ],
)
def test_resume__passes_over_what_its_digest_does_not_fit(tmp_path, caplog, damage, match):
    saved = model()
    DetectionCheckpointer(saved, tmp_path).save("model_0000002", iteration=2)
    DetectionCheckpointer(model(), tmp_path).save("model_0000003", iteration=3)
    damage(tmp_path / "model_0000003.pth")
    fresh = model()
    assert DetectionCheckpointer(fresh, tmp_path).resume_or_load("") == {"iteration": 2}
    assert_equal(fresh, saved)
    assert re.search(match, caplog.text)
    with pytest.raises(CheckpointError, match=match):
        DetectionCheckpointer(fresh).load(tmp_path / "model_0000003.pth")


def test_resume__passes_over_weights_that_are_not_finite(tmp_path, caplog):
    saved = model()
    DetectionCheckpointer(saved, tmp_path).save("model_0000002", iteration=2)
    broken = model()
    broken[0].weight.data[1, 1] = float("nan")
    DetectionCheckpointer(broken, tmp_path).save("model_0000003", iteration=3)
    fresh = model()
    assert DetectionCheckpointer(fresh, tmp_path).resume_or_load("") == {"iteration": 2}
    assert_equal(fresh, saved)
    assert "holds NaN or infinite values in 1 of its 7 tensors, '0.weight' (1 NaN" in caplog.text


def test_keep_newest__what_was_passed_over_does_not_count(tmp_path):
    for iteration in (2, 3, 4):
        name = f"model_000000{iteration}"
        DetectionCheckpointer(model(), tmp_path).save(name, iteration=iteration)
    _flip_a_bit_of_the_padding(tmp_path / "model_0000004.pth")
    checkpointer = DetectionCheckpointer(model(), tmp_path)
    checkpointer.resume_or_load("")
    checkpointer.save("model_0000005", iteration=5)
    checkpointer.keep_newest(2)
    assert {name for name in listed(tmp_path) if name.endswith(".pth")} == {
        "model_0000003.pth",
        "model_0000004.pth",
        "model_0000005.pth",
    }


def test_resume__passes_over_a_truncated_file(tmp_path, caplog):
    saved = model()
    checkpointer = DetectionCheckpointer(saved, tmp_path)
    checkpointer.save("model_0000001", iteration=1)
    checkpointer.save("model_0000002", iteration=2)
    os.utime(tmp_path / "model_0000001.pth", (1, 1))
    os.utime(tmp_path / "model_0000002.pth", (2, 2))
    DetectionCheckpointer(model(), tmp_path).save("model_0000003", iteration=3)
    truncate(tmp_path / "model_0000003.pth")
    fresh = model()
    assert DetectionCheckpointer(fresh, tmp_path).resume_or_load("") == {"iteration": 2}
    assert_equal(fresh, saved)
    assert "model_0000003.pth is truncated or damaged" in caplog.text


def test_resume__every_file_truncated(tmp_path):
    checkpointer = DetectionCheckpointer(model(), tmp_path)
    checkpointer.save("model_0000001")
    truncate(tmp_path / "model_0000001.pth")
    with pytest.raises(CheckpointError, match=r"none of the 1 checkpoints in .* remove them"):
        checkpointer.resume_or_load("")


def test_resume__any_error_of_the_main_process_reaches_the_others(tmp_path, monkeypatch):
    """They wait for the file that it chooses."""
    checkpointer, told = DetectionCheckpointer(model(), tmp_path), []

    def fail():
        raise MemoryError

    def gather(value):
        told.append(value)
        return [value]

    monkeypatch.setattr(checkpointer, "_newest_complete", fail)
    monkeypatch.setattr(detection_checkpoint.comm, "all_gather", gather)
    with pytest.raises(MemoryError):
        checkpointer.resume_or_load("")
    assert told == [("", "MemoryError")]
    monkeypatch.setattr(detection_checkpoint.comm, "is_main_process", lambda: False)
    monkeypatch.setattr(detection_checkpoint.comm, "all_gather", lambda _: told)
    with pytest.raises(CheckpointError, match="MemoryError"):
        checkpointer.resume_or_load("")


def test_resume__killed_before_the_first_tag(tmp_path):
    checkpointer = DetectionCheckpointer(model(), tmp_path)
    checkpointer.save("model_0000001", iteration=1)
    (tmp_path / "last_checkpoint").unlink()
    assert checkpointer.resume_or_load("") == {"iteration": 1}


def test_resume__of_another_model(tmp_path):
    DetectionCheckpointer(model(), tmp_path).save("model_0000001")
    with pytest.raises(CheckpointError, match=r"is of another model than .*for '0\.weight'"):
        DetectionCheckpointer(model(width=7), tmp_path).resume_or_load("")


def test_resume__missing_state_is_warned_of(tmp_path, caplog):
    DetectionCheckpointer(model(), tmp_path).save("model_0000001", iteration=1)
    DetectionCheckpointer(model(), tmp_path, ema_state=Counter()).resume_or_load("")
    assert "holds no 'ema_state', which starts afresh" in caplog.text


def test_resume_or_load__starts_from_weights(tmp_path):
    source, fresh, counter = model(), model(), Counter(3)
    content = {"model": source.state_dict(), "trainer": {"value": 9}, "iteration": 5}
    torch.save(content, tmp_path / "start.pth")
    checkpointer = DetectionCheckpointer(fresh, tmp_path / "run", trainer=counter)
    assert not checkpointer.has_checkpoint()
    assert checkpointer.get_checkpoint_file() == ""
    assert checkpointer.resume_or_load(tmp_path / "start.pth", resume=True)["iteration"] == 5
    assert_equal(fresh, source)
    assert counter.value == 3
    assert DetectionCheckpointer(model(), tmp_path).resume_or_load("", resume=False) == {}


def test_load__weights_and_checkpointables(tmp_path):
    source, fresh, counter = model(), model(), Counter()
    DetectionCheckpointer(source, tmp_path, ema_state=Counter(4)).save("model_final", iteration=8)
    rest = DetectionCheckpointer(fresh, ema_state=counter).load(str(tmp_path / "model_final.pth"))
    assert rest == {"iteration": 8}
    assert_equal(fresh, source)
    assert counter.value == 4


def test_load__bare_state_dict(tmp_path):
    source, fresh = model(), model()
    torch.save(source.state_dict(), tmp_path / "w.pth")
    assert DetectionCheckpointer(fresh).load(tmp_path / "w.pth") == {}
    assert_equal(fresh, source)


def test_load__what_does_not_fit(tmp_path):
    torch.save({"x.y": torch.zeros(3)}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=r"w\.pth does not fit Sequential: 0 of its 6 "):
        DetectionCheckpointer(model()).load(tmp_path / "w.pth")


def test_load__another_number_of_classes(tmp_path):
    def detector(classes):
        return nn.ModuleDict({"body": nn.Linear(7, 11), "heads": nn.Linear(11, classes)})

    torch.save({"model": detector(5).state_dict()}, tmp_path / "model.pth")
    checkpointer = DetectionCheckpointer(detector(3))
    checkpointer.load(tmp_path / "model.pth")
    with pytest.raises(
        CheckpointError, match=r"'heads\..*has the shape \(5.* there and \(3.* here: .*num_classes"
    ):
        checkpointer.load(tmp_path / "model.pth", new_heads=False)


def test_periodic_checkpointer__max_to_keep(tmp_path):
    hook = PeriodicCheckpointer(DetectionCheckpointer(model(), tmp_path), 2, max_to_keep=2)
    hook.max_iter = 9
    for iteration in range(9):
        hook.step(iteration)
    assert listed(tmp_path) == [
        "last_checkpoint",
        "model_0000005.pth",
        "model_0000007.pth",
        "model_final.pth",
    ]
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"


def test_best_checkpointer__is_not_resumed_from(tmp_path):
    checkpointer = DetectionCheckpointer(model(), tmp_path)
    checkpointer.save("model_0000001", iteration=1)
    hook = BestCheckpointer(1, checkpointer, "AP")
    hook._checkpointer.save(hook._file_prefix, iteration=2)
    assert (tmp_path / "model_best.pth").is_file()
    assert checkpointer.get_checkpoint_file() == str(tmp_path / "model_0000001.pth")


def test_distributed_wrapper_is_taken_off(tmp_path):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1
    )
    try:
        source = model()
        wrapped = nn.parallel.DistributedDataParallel(source)
        DetectionCheckpointer(wrapped, tmp_path / "run").save("model_final")
        fresh = nn.parallel.DistributedDataParallel(model())
        DetectionCheckpointer(fresh, tmp_path / "run").resume_or_load("")
        assert_equal(fresh.module, source)
    finally:
        torch.distributed.destroy_process_group()


def test_package__exports_it_lazily():
    import detrex.checkpoint

    assert detrex.checkpoint.DetectionCheckpointer is DetectionCheckpointer
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = detrex.checkpoint.nothing


@pytest.mark.parametrize("text", [b"", b"gone.pth", b"\xff\xfe\x00", b"x" * 9999, b".."])
def test_has_checkpoint__a_damaged_tag_leaves_the_newest(tmp_path, text):
    (tmp_path / "model_final.pth").write_bytes(b"")
    (tmp_path / "last_checkpoint").write_bytes(text)
    checkpointer = DetectionCheckpointer(nn.Linear(1, 1), str(tmp_path))
    assert checkpointer.get_checkpoint_file() == str(tmp_path / "model_final.pth")


@pytest.mark.parametrize("state", [None, 5, {}, [1], "text"])
def test_resume__state_that_does_not_fit(tmp_path, state):
    content = {"model": model().state_dict(), "trainer": state, "iteration": 3}
    torch.save(content, tmp_path / "model_final.pth")
    checkpointer = DetectionCheckpointer(model(), tmp_path, trainer=Counter())
    with pytest.raises(CheckpointError, match=r"the trainer in .* does not fit this run \("):
        checkpointer.resume_or_load("")


@pytest.mark.parametrize("iteration", [None, "3", [3], 1.5])
def test_resume__iteration_that_is_none(tmp_path, iteration):
    content = {"model": model().state_dict(), "iteration": iteration}
    torch.save(content, tmp_path / "model_final.pth")
    with pytest.raises(CheckpointError, match="as its 'iteration', expected an integer"):
        DetectionCheckpointer(model(), tmp_path).resume_or_load("")


@pytest.mark.parametrize("table", [None, [1], "text", 5])
def test_resume__model_that_is_no_table(tmp_path, table):
    torch.save({"model": table, "iteration": 3}, tmp_path / "model_final.pth")
    with pytest.raises(CheckpointError, match="where its weights should be, expected a state dict"):
        DetectionCheckpointer(model(), tmp_path).resume_or_load("")
