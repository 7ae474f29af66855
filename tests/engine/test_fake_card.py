import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from detrex.engine.fake_card import FakeCard, Transfer, backward
from tests.reference.tiny_dino import random_inputs, tiny_dino
from tests.reference.versions import since

pytestmark = since("torch", 2, 7, reason="torch 2.6 asks for a driver before it fakes a card")


def _on_card(*shape, dtype=None):
    return torch.zeros(shape, dtype=dtype).to(FakeCard.device)


def test_fake_card__devices_that_meet_are_an_error():
    with FakeCard():
        assert (_on_card(3) + 1 + torch.tensor(2.0)).device.type == "cuda"
        with pytest.raises(RuntimeError, match="device"):
            _on_card(3) + torch.ones(3)


def test_fake_card__numbers_on_the_cpu_are_real():
    with FakeCard() as card:
        assert (torch.arange(4) * 2).tolist() == [0, 2, 4, 6]
        assert torch.ones(3).bool().nonzero().flatten().tolist() == [0, 1, 2]
    assert card.read_backs == []


@pytest.mark.parametrize(
    ("read", "operation", "shape"),
    [
        (lambda x: x.sum().item(), "_local_scalar_dense", ()),
        (lambda x: float(x[0, 0]), "_local_scalar_dense", ()),
        (lambda x: bool((x > 0).all()), "_local_scalar_dense", ()),
        (lambda x: x[0, :1].tolist(), "_local_scalar_dense", ()),
        (lambda x: x.cpu().numpy(), "_to_copy", (2, 3)),
        (lambda x: x.to("cpu", torch.float64), "_to_copy", (2, 3)),
        (lambda x: torch.zeros(2, 3).copy_(x), "copy_", (2, 3)),
        (lambda x: (x > 0).nonzero(), "nonzero", (2, 3)),
        (lambda x: torch.where(x > 0), "nonzero", (2, 3)),
        (lambda x: x[x > 0], "index", (2, 3)),
        (lambda x: x.masked_select(x > 0), "masked_select", (2, 3)),
        (lambda x: torch.equal(x, x + 1), "equal", (2, 3)),
    ],
)
def test_fake_card__read_backs(read, operation, shape):
    with FakeCard() as card:
        x = _on_card(2, 3)
        card.uploads.clear()
        read(x)
    (transfer,) = card.read_backs
    assert transfer == Transfer(transfer.place, operation, shape)
    assert transfer.place.endswith(f"test_fake_card.py:{read.__code__.co_firstlineno}")
    assert card.uploads == []


@pytest.mark.parametrize(
    "send",
    [
        lambda x: torch.tensor([1.0, 2.0], device=x.device),
        lambda x: x.new_tensor([1.0, 2.0]),
        lambda x: x[[1, 0]],
        lambda x: x[torch.tensor([1, 0])],
        lambda x: x.copy_(torch.ones(2, 3)),
    ],
)
def test_fake_card__uploads(send):
    with FakeCard() as card:
        x = _on_card(2, 3)
        card.uploads.clear()
        send(x)
    assert len(card.uploads) == 1
    assert card.read_backs == []


def test_fake_card__what_needs_no_transfer():
    with FakeCard() as card:
        x = _on_card(2, 3)
        card.uploads.clear()
        x[:, 1:].masked_fill(x[:, 1:] > 0, 2.0).topk(1)[0] * 3
        torch.arange(5, device=x.device) + torch.zeros(5, device=x.device)
        x[0, 1] = 4
        x.repeat_interleave(2, dim=0).expand(4, 3).argsort(1)
        assert (torch.empty_like(x, device="meta") + x.to("meta")).shape == (2, 3)
    assert card.read_backs == []
    assert card.uploads == []


def test_fake_card__an_operation_without_an_answer():
    with FakeCard(), pytest.raises(NotImplementedError, match=r"no answer to aten._unique2, at "):
        _on_card(3).unique()


def test_take__ties_stay_and_meta_will_do():
    with torch.device("meta"):
        module = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.BatchNorm1d(3))
    module[1].weight = module[0].weight
    module[0].bias.requires_grad_(False)
    with FakeCard() as card:
        card.take(module)
        assert {t.device.type for t in module.state_dict().values()} == {"cuda"}
    assert module[1].weight is module[0].weight
    assert [p.requires_grad for p in module[0].parameters()] == [True, False]


class _Layers(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 4), nn.Linear(4, 3)
        self.scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, x):
        x = checkpoint(self.first, x, use_reentrant=False)
        x, _ = (x * self.scale).split(4)[0].sort(1)
        return (self.second(x.relu()) + self.second.bias).square().mean()


def test_backward__equals_the_engines():
    for module, inputs in (
        (_Layers(), [torch.randn(5, 3)]),
        (tiny_dino(use_checkpoint=True).train(), [random_inputs([(40, 33)], [2])]),
    ):
        gradients = []
        for send in (torch.Tensor.backward, backward):
            torch.manual_seed(0)
            module.zero_grad()
            outputs = module(*inputs)
            send(sum(outputs.values()) if isinstance(outputs, dict) else outputs)
            gradients.append({n: p.grad for n, p in module.named_parameters()})
        assert None not in gradients[1].values()
        torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)


def test_fake_card__functions_of_torchscript_are_not_tuned_to_it():
    card = FakeCard()
    for _ in range(2):
        with card:
            assert not torch._C._get_graph_executor_optimize()
        assert torch._C._get_graph_executor_optimize()
