import shutil

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch import nn

from detrex.checkpoint import read_checkpoint
from detrex.checkpoint.detection_checkpoint import DetectionCheckpointer
from detrex.checkpoint.placement import whole_tensor
from detrex.checkpoint.sharded import ShardedCheckpointer
from detrex.engine.optimizer import in_implementation_of
from detrex.errors import RunError
from tests.reference.one_rank import needs_fsdp_on_cpu as pytestmark  # noqa: F401
from tests.reference.one_rank import one_rank, sharded_network  # noqa: F401


class State:
    """An optimizer's, as the trainer keeps it."""

    def __init__(self, optimizer):
        self.optimizer = optimizer

    def state_dict(self):
        return {"optimizer": self.optimizer.state_dict(), "rows": [torch.ones(2), "text"]}

    def load_state_dict(self, state):
        self.optimizer.load_state_dict(in_implementation_of(self.optimizer, state["optimizer"]))


def run(folder, sharded=True, **options):
    net = sharded_network() if sharded else nn.Sequential(*map(plain, sharded_network()))
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.1)
    kind = ShardedCheckpointer if sharded else DetectionCheckpointer
    return net, optimizer, kind(net, folder, trainer=State(optimizer), **options)


def plain(module):
    if isinstance(module, nn.BatchNorm1d):
        return nn.BatchNorm1d(7)
    return nn.Linear(module.in_features, module.out_features)


def step(net, optimizer, count=2):
    for seed in range(count):
        images = torch.randn(4, 5, generator=torch.Generator().manual_seed(seed))
        optimizer.zero_grad()
        net(images).square().sum().backward()
        optimizer.step()


def whole(state):
    if isinstance(state, dict):
        return {key: whole(value) for key, value in state.items()}
    return whole_tensor(state).clone() if isinstance(state, torch.Tensor) else state


def same(first, second):
    torch.testing.assert_close(first, second, rtol=0, atol=0)


@pytest.mark.parametrize("asynchronous", [True, False])
def test_save__holds_the_moment_of_the_call(one_rank, tmp_path, asynchronous):  # noqa: F811
    """Weights, statistics and the optimizer go on changing while they are written."""
    net, optimizer, checkpointer = run(tmp_path, asynchronous=asynchronous)
    checkpointer.notes["class_names"] = ["cat"]
    step(net, optimizer)
    expected = whole({"model": net.state_dict(), "state": optimizer.state_dict()["state"]})
    checkpointer.save("model_0000001", iteration=1)
    if not asynchronous:
        assert (tmp_path / "model_0000001.dcp").is_dir()
    with torch.no_grad():
        for tensor in (*net.parameters(), *net.buffers()):
            tensor.fill_(7)
        for values in optimizer.state.values():
            values["exp_avg"].fill_(7)
    checkpointer.finish()
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000001.dcp"
    held = read_checkpoint(tmp_path / "model_0000001.dcp")
    same(held["model"], expected["model"])
    same(held["trainer"]["optimizer"]["state"], expected["state"])
    assert held["class_names"] == ["cat"]
    assert held["iteration"] == 1
    same(held["trainer"]["rows"][0], torch.ones(2))


@pytest.mark.parametrize("name", ["model_0000001", "model_final"])
@pytest.mark.parametrize("sharded", [True, False])
def test_resume_or_load__by_parts_and_whole(one_rank, tmp_path, name, sharded):  # noqa: F811
    """What a sharded run wrote goes on in a sharded run, and in one that is not, to the bit."""
    net, optimizer, checkpointer = run(tmp_path)
    step(net, optimizer)
    checkpointer.save(name, iteration=1)
    checkpointer.finish()
    assert (tmp_path / f"{name}.pth").exists() == (name == "model_final")
    other, other_optimizer, second = run(tmp_path, sharded)
    assert second.resume_or_load("", resume=True) == {"iteration": 1}
    for network, its in ((net, optimizer), (other, other_optimizer)):
        step(network, its)
    same(whole(dict(other.state_dict())), whole(dict(net.state_dict())))


def test_resume_or_load__of_a_run_that_was_not_sharded(one_rank, tmp_path):  # noqa: F811
    net, optimizer, checkpointer = run(tmp_path, sharded=False)
    step(net, optimizer)
    checkpointer.save("model_0000001", iteration=1)
    other, other_optimizer, second = run(tmp_path)
    assert second.resume_or_load("", resume=True) == {"iteration": 1}
    for network, its in ((net, optimizer), (other, other_optimizer)):
        step(network, its)
    same(whole(dict(other.state_dict())), dict(net.state_dict()))


@pytest.mark.parametrize("how", ["a flipped byte", "a file that is gone", "NaN"])
def test_resume_or_load__passes_over_a_damaged_folder(one_rank, tmp_path, caplog, how):  # noqa: F811
    net, optimizer, checkpointer = run(tmp_path)
    checkpointer.save("model_0000001", iteration=1)
    expected = whole(dict(net.state_dict()))
    step(net, optimizer)
    if how == "NaN":
        with torch.no_grad():
            net[2].weight.to_local()[1, 2] = float("nan")
    checkpointer.save("model_0000003", iteration=3)
    checkpointer.finish()
    file = tmp_path / "model_0000003.dcp" / "__0_0.distcp"
    if how == "a flipped byte":
        data = bytearray(file.read_bytes())
        weight = whole_tensor(net[2].weight).detach().numpy().tobytes()
        data[data.index(weight) + 5] ^= 4
        file.write_bytes(data)
    elif how == "a file that is gone":
        file.unlink()
    other, _, second = run(tmp_path)
    assert second.resume_or_load("", resume=True) == {"iteration": 1}
    assert "Passing over a checkpoint: " in caplog.text
    same(whole(dict(other.state_dict())), expected)


def test_save__what_was_left_half_written_goes(one_rank, tmp_path):  # noqa: F811
    """A killed process leaves a folder under another name, which is no checkpoint."""
    net, optimizer, checkpointer = run(tmp_path)
    checkpointer.save("model_0000001", iteration=1)
    checkpointer.finish()
    half = tmp_path / "model_0000003.dcp.unfinished"
    shutil.copytree(tmp_path / "model_0000001.dcp", half)
    assert run(tmp_path)[2].resume_or_load("", resume=True) == {"iteration": 1}
    step(net, optimizer)
    checkpointer.save("model_0000001", iteration=9)  # again, in the place of the first
    checkpointer.finish()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "last_checkpoint",
        "model_0000001.dcp",
    ]
    assert read_checkpoint(tmp_path / "model_0000001.dcp")["iteration"] == 9


def test_finish__says_why_it_could_not_be_written(one_rank, tmp_path, monkeypatch):  # noqa: F811
    """Once; the next save starts afresh, and what was there stays."""
    _, _, checkpointer = run(tmp_path)
    checkpointer.save("model_0000001", iteration=1)
    checkpointer.finish()

    def full(*_args):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(dcp.FileSystemWriter, "write_data", full)
        checkpointer.save("model_0000003", iteration=3)
        with pytest.raises(RunError, match=r"0000003\.dcp cannot be written: the disk is full"):
            checkpointer.save("model_0000005", iteration=5)
    checkpointer.finish()
    checkpointer.save("model_0000007", iteration=7)
    checkpointer.finish()
    names = {path.name for path in tmp_path.glob("*.dcp")}
    assert names == {"model_0000001.dcp", "model_0000007.dcp"}


def test_save__nowhere_and_out_of_the_folder(one_rank, tmp_path):  # noqa: F811
    run("")[2].save("model_0000001")
    with pytest.raises(ValueError, match="must be a bare file name"):
        run(tmp_path)[2].save("../model_0000001")
