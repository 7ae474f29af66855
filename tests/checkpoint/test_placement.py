import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor

from detrex.checkpoint.placement import (
    is_sharded,
    load_values,
    local_part,
    placed_like,
    whole_tensor,
)
from tests.reference.one_rank import one_rank, sharded_network  # noqa: F401


def test_parts__of_whole_and_of_sharded_tensors(one_rank):  # noqa: F811
    plain = torch.randn(5, 3)
    sharded = distribute_tensor(plain, init_device_mesh("cpu", (1,)), [Shard(0)])
    assert [is_sharded(value) for value in (plain, sharded, 3, None)] == [False, True, False, False]
    assert local_part(plain) is plain
    assert whole_tensor(plain) is plain
    torch.testing.assert_close(whole_tensor(sharded), plain, rtol=0, atol=0)
    with torch.no_grad():
        local_part(sharded).add_(1)
    torch.testing.assert_close(whole_tensor(sharded), plain + 1, rtol=0, atol=0)


def test_placed_like__cuts_what_can_be_cut(one_rank):  # noqa: F811
    plain = torch.randn(5, 3)
    mesh = init_device_mesh("cpu", (1,))
    for placement in (Shard(0), Shard(1), Replicate()):
        like = distribute_tensor(torch.zeros(5, 3), mesh, [placement])
        placed = placed_like(plain, like)
        assert placed.placements == (placement,)
        torch.testing.assert_close(whole_tensor(placed), plain, rtol=0, atol=0)
        assert placed_like(placed, like) is placed
    scalar = torch.tensor(3.0)
    assert placed_like(scalar, like) is scalar
    assert placed_like(plain, plain) is plain


def test_load_values__into_a_sharded_module(one_rank):  # noqa: F811
    net = sharded_network()
    values = {name: torch.randn(v.shape) for name, v in net.state_dict().items() if v.dim()}
    kept = values.pop("2.bias")
    load_values(net, values)
    for name, value in values.items():
        torch.testing.assert_close(whole_tensor(net.state_dict()[name]), value, rtol=0, atol=0)
    assert not torch.equal(whole_tensor(net.state_dict()["2.bias"]), kept)
    plain = nn.Linear(5, 7)
    load_values(plain, {"weight": values["0.weight"]})
    torch.testing.assert_close(plain.weight.detach(), values["0.weight"], rtol=0, atol=0)
