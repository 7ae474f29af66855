import pytest
import torch
from detectron2.utils import comm
from torch import nn

from detrex.engine.distributed import (
    agree_on,
    broadcast_from_main,
    resolve_device,
    unwrap_ddp,
    wrap_ddp,
)
from detrex.errors import ConfigError


def test_resolve_device__cpu():
    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_device(torch.device("cpu")) == torch.device("cpu")


@pytest.mark.parametrize("name", ["cdua", "", "7up"])
def test_resolve_device__unknown(name):
    with pytest.raises(ConfigError, match="no device that PyTorch knows"):
        resolve_device(name)


def test_resolve_device__cuda_without_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"train\.device=cuda asks for a GPU.*train\.device=cpu"):
        resolve_device("cuda")


def test_resolve_device__mps_without_it(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="Apple's GPU"):
        resolve_device("mps")


@pytest.mark.parametrize("name", ["meta", "xpu", "hpu", "vulkan"])
def test_resolve_device__another_kind_that_does_not_work(name):
    with pytest.raises(ConfigError, match=rf"device={name} cannot be used .*: pass device=cpu"):
        resolve_device(name, "device")


def test_resolve_device__gpu_that_is_not_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device("cuda:1") == torch.device("cuda", 1)
    assert resolve_device("cuda") == torch.device("cuda")
    with pytest.raises(ConfigError, match="means GPU 2, but this machine has 2"):
        resolve_device("cuda:2")


def test_resolve_device__each_process_its_own_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr("detrex.engine.distributed.comm.get_world_size", lambda: 2)
    monkeypatch.setattr("detrex.engine.distributed.comm.get_local_rank", lambda: 1)
    assert resolve_device("cuda") == torch.device("cuda", 1)


def test_wrap_ddp__single_process_is_left_alone():
    model = nn.Linear(1, 1)
    assert wrap_ddp(model, torch.device("cpu"), {"broadcast_buffers": False}) is model
    assert unwrap_ddp(model) is model


def test_broadcast_from_main__single_process():
    value = object()
    assert broadcast_from_main(value) is value


@pytest.mark.parametrize("seen", [("a.pth", "a.pth"), ("", ""), ("a.pth", ""), ("", "b.pth")])
def test_agree_on__file_that_all_ranks_see(monkeypatch, seen):
    pairs = [(path, f"node{rank}") for rank, path in enumerate(seen)]
    monkeypatch.setattr(comm, "all_gather", lambda mine: pairs)
    if seen[0] == seen[1]:
        assert agree_on(lambda: seen[0], "train.output_dir") == seen[0]
        return
    wanted = r"Rank 0 \(node0\) finds .*, and rank 1 \(node1\) .*: train.output_dir has to be a"
    with pytest.raises(ConfigError, match=wanted):
        agree_on(lambda: seen[0], "train.output_dir", tries=1)
