"""What one process of a machine does for all."""

import multiprocessing
import os

import pytest
import torch.distributed
from detectron2.utils import comm

from detrex.errors import DataError
from detrex.utils import machines
from detrex.utils.machines import fields_of, kernel


def test_once_a_machine__two_ranks(tmp_path):
    context = multiprocessing.get_context("fork")
    told = context.SimpleQueue()
    ranks = [context.Process(target=_rank, args=(tmp_path, rank, told)) for rank in (0, 1)]
    for process in ranks:
        process.start()
    said = dict(told.get() for _ in ranks)
    for process in ranks:
        process.join()
    for rank in (0, 1):
        shared, error, apart = said[rank]
        assert shared == "made by 0, call 1"
        assert error == "rank 0 cannot read it."
        assert apart == f"made by {rank}, call 1"


def test_once_a_machine__one_process():
    value = object()
    assert machines.once_a_machine(lambda: value) is value


def test_machine__without_proc_each_process_is_one(monkeypatch):
    def absent(*_, **__):
        raise FileNotFoundError

    monkeypatch.setattr(machines.Path, "read_text", absent)
    assert "process" in machines.machine.__wrapped__()


def _rank(folder, rank, told):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2
    )
    calls, said = [], []

    def make():
        calls.append(comm.get_rank())
        return f"made by {calls[-1]}, call {len(calls)}"

    def fail():
        raise DataError(f"rank {comm.get_rank()} cannot read it.")

    said.append(machines.once_a_machine(make))
    with pytest.raises(DataError) as caught:
        machines.once_a_machine(fail)
    said.append(str(caught.value))
    calls.clear()
    machines.machine = lambda: str(rank)
    said.append(machines.once_a_machine(make))
    told.put((rank, said))


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="there is no /proc")
def test_fields_of__state_and_parent():
    assert fields_of(os.getpid())[:2] == ["R", str(os.getppid())]
    assert fields_of(2**31 - 1) == []
    boot, processes = kernel()
    assert len(boot) == 36
    assert processes.startswith("pid:")
