"""Process groups: without one, and with one of a single process."""

import builtins
import socket
import subprocess
from types import SimpleNamespace

import pytest
import torch.distributed

from detrex.errors import ConfigError
from detrex.utils import dist, get_rank, get_world_size, is_dist_avail_and_initialized

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "SLURM_PROCID")


@pytest.fixture(autouse=True)
def _clean(monkeypatch):
    """Hide the launcher's variables; put ``print`` and the process group back."""
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    plain = builtins.print
    yield
    builtins.print = plain
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def test_rank_and_size__without_group():
    assert not is_dist_avail_and_initialized()
    assert (get_rank(), get_world_size()) == (0, 1)


def test_exchange__without_group():
    assert dist.exchange(7) == [7]


def test_failing_together__without_group():
    with pytest.raises(KeyError, match="name"), dist.failing_together():
        raise KeyError("name")


def test_came_by_exchange__follows_what_an_error_was_raised_from():
    heard, own = RuntimeError("heard"), RuntimeError("own")
    heard.is_from_exchange = True
    wrapped = KeyError("wrapped")
    wrapped.__cause__ = heard
    assert dist.came_by_exchange(heard)
    assert dist.came_by_exchange(wrapped)
    assert not dist.came_by_exchange(own)
    own.__context__ = wrapped
    assert dist.came_by_exchange(own)
    assert not dist.came_by_exchange(None)


def _join_alone(monkeypatch):
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    args = SimpleNamespace(dist_url=f"tcp://127.0.0.1:{_free_port()}")
    dist.slurm_init_distributed_mode(args)
    return args


@pytest.mark.parametrize(("value", "backend"), [(0, "gloo"), (2**40 + 1, "gloo"), (-3, "nccl")])
def test_exchange__group_of_one(monkeypatch, value, backend):
    """Beside a group that moves device memory only, one for the CPU is made."""
    _join_alone(monkeypatch)
    monkeypatch.setattr(torch.distributed, "get_backend", lambda *_: backend)
    assert dist.exchange(value) == [value]
    with pytest.raises(ConfigError, match="wrong"), dist.failing_together():
        raise ConfigError("wrong")
    assert dist.exchange(value) == [value]


def test_setup_for_distributed__silences_all_but_the_first(capsys):
    dist.setup_for_distributed(is_master=False)
    builtins.print("hidden")  # noqa: T201
    builtins.print("forced", force=True)  # noqa: T201
    dist.setup_for_distributed(is_master=True)
    builtins.print("shown")  # noqa: T201
    assert capsys.readouterr().out == "forced\nshown\n"


def test_slurm_init__without_variables():
    args = SimpleNamespace()
    dist.slurm_init_distributed_mode(args)
    assert args.distributed is False
    assert not is_dist_avail_and_initialized()


def test_slurm_init__torchrun_variables(monkeypatch):
    args = _join_alone(monkeypatch)
    assert (args.rank, args.world_size, args.gpu, args.distributed) == (0, 1, 0, True)
    assert is_dist_avail_and_initialized()
    assert (get_rank(), get_world_size()) == (0, 1)


def test_slurm_init__slurm_variables(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("SLURM_PROCID", "0")
    monkeypatch.setenv("SLURM_NTASKS", "1")
    monkeypatch.setenv("SLURM_LOCALID", "0")
    monkeypatch.setenv("SLURM_NODELIST", "node[1-2]")
    monkeypatch.setattr(
        subprocess, "run", lambda *_, **__: SimpleNamespace(stdout="127.0.0.1\nnode2\n")
    )
    monkeypatch.setenv("MASTER_PORT", _free_port())
    args = SimpleNamespace()
    dist.slurm_init_distributed_mode(args)
    assert (args.rank, args.world_size, get_world_size()) == (0, 1, 1)
