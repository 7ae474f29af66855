import copy
from itertools import cycle

import pytest
import torch
from detectron2.utils.events import EventStorage
from torch import nn

from detrex.engine import Trainer
from detrex.errors import ConfigError, NonFiniteLossError
from tests.reference.stand_in import StandIn, make_dataset, still_image


def make_batches(batch_size: int, num_images: int = 12) -> list[list[dict]]:
    images = [still_image(sample) for sample in make_dataset(num_images)]
    return [images[i : i + batch_size] for i in range(0, num_images, batch_size)]


def make_model(**kwargs) -> StandIn:
    torch.manual_seed(11)
    model = StandIn(**kwargs)
    model.backbone[1] = nn.Identity()  # batch norm would see the size of a batch
    return model


def train(model: nn.Module, batches: list, iterations: int = 3, **kwargs) -> Trainer:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    trainer = Trainer(model, cycle(batches), optimizer, **kwargs)
    trainer.train(0, iterations)
    return trainer


def test_run_step__equals_a_naive_loop():
    model, reference = make_model(dropout=0.0), make_model(dropout=0.0)
    batches = make_batches(4)
    train(model, batches, clip_grad_params={"max_norm": 0.1, "norm_type": 2})
    optimizer = torch.optim.SGD(reference.parameters(), lr=0.1)
    for batch in batches:
        optimizer.zero_grad()
        sum(reference(batch).values()).backward()
        nn.utils.clip_grad_norm_(reference.parameters(), 0.1)
        optimizer.step()
    torch.testing.assert_close(model.state_dict(), reference.state_dict(), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("clip", [{"max_norm": 0.1}, None])
@pytest.mark.parametrize("accumulate_steps", [2, 3])
def test_accumulate_steps__equals_a_larger_batch(accumulate_steps, clip):
    small, large = make_model(dropout=0.0), make_model(dropout=0.0)
    size = 12 // accumulate_steps
    trainers = [
        train(small, make_batches(size), accumulate_steps=accumulate_steps, clip_grad_params=clip),
        train(large, make_batches(12), clip_grad_params=clip),
    ]
    torch.testing.assert_close(small.state_dict(), large.state_dict(), rtol=1e-5, atol=1e-6)
    losses = [t.storage.history("total_loss").values() for t in trainers]
    torch.testing.assert_close(*(torch.tensor(values) for values in losses), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_amp__stays_near_float32_on_cpu(dtype):
    mixed, full = make_model(dropout=0.0), make_model(dropout=0.0)
    trainer = train(mixed, make_batches(4), amp=True, amp_dtype=dtype)
    train(full, make_batches(4))
    assert trainer.grad_scaler.is_enabled() == (dtype is torch.float16)
    assert all(p.dtype == torch.float32 for p in mixed.parameters())
    torch.testing.assert_close(mixed.state_dict(), full.state_dict(), rtol=0.05, atol=0.02)


def test_amp__clips_the_gradients_that_are_not_scaled():
    mixed, full, start = (make_model(dropout=0.0) for _ in range(3))
    clip = {"max_norm": 0.1}
    scaler = torch.amp.GradScaler("cpu", init_scale=128.0)
    train(mixed, make_batches(4), amp=True, grad_scaler=scaler, clip_grad_params=clip)
    train(full, make_batches(4), clip_grad_params=clip)
    before = nn.utils.parameters_to_vector(start.parameters())
    updates = [nn.utils.parameters_to_vector(m.parameters()) - before for m in (mixed, full)]
    # Three steps of 0.1 * 0.1 at most.
    assert 0.01 < updates[1].norm().item() <= 0.03 + 1e-6
    torch.testing.assert_close(*updates, rtol=0.02, atol=2e-4)


def test_amp__overflowing_gradients_skip_the_step():
    model = make_model(dropout=0.0)
    before = copy.deepcopy(model.state_dict())
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**100)
    train(model, make_batches(4), iterations=1, amp=True, grad_scaler=scaler)
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    assert scaler.get_scale() < 2.0**100


def test_seed__makes_each_step_a_function_of_its_number():
    straight, resumed = make_model(), make_model()
    batches = make_batches(4)
    train(straight, batches, iterations=3, seed=5)
    first = train(resumed, batches, iterations=2, seed=5)
    state = copy.deepcopy(first.state_dict())
    torch.rand(7)
    second = Trainer(resumed, iter(batches[2:]), torch.optim.SGD(resumed.parameters(), lr=0.1))
    second.load_state_dict(state)
    assert second.seed == 5
    second.train(2, 3)
    torch.testing.assert_close(straight.state_dict(), resumed.state_dict(), rtol=0, atol=0)


def test_run_step__nan_names_iteration_and_loss():
    model = make_model(nan_at=2)
    trainer = Trainer(
        model, cycle(make_batches(4)), torch.optim.SGD(model.parameters(), lr=0.1), seed=1
    )
    with pytest.raises(
        NonFiniteLossError, match="iteration 2: the loss loss_bbox became nan on rank 0"
    ):
        trainer.train(0, 5)
    assert all(torch.isfinite(p).all() for p in model.parameters())


def test_run_step__infinite_losses_are_all_named():
    class Broken(nn.Linear):
        def forward(self, batch):
            return {f"loss_{i}": self.weight.sum() / 0.0 for i in range(5)}

    with pytest.raises(
        NonFiniteLossError, match=r"loss_0 became .*inf.*and 4 more: loss_1, loss_2"
    ):
        train(Broken(1, 1), [[]])


def test_run_step__an_error_of_the_matcher_gets_its_iteration():
    class Diverged(nn.Linear):
        def forward(self, batch):
            raise NonFiniteLossError("The matcher got boxes with 3 of 8 numbers NaN.")

    with pytest.raises(NonFiniteLossError, match=r"stopped at iteration 0.*The matcher got boxes"):
        train(Diverged(1, 1), [[]])


def test_run_step__a_single_tensor_is_a_loss():
    class Scalar(nn.Linear):
        def forward(self, batch):
            return self.weight.square().sum()

    trainer = train(Scalar(3, 2), [[]])
    values = [value for value, _ in trainer.storage.history("total_loss").values()]
    assert values == sorted(values, reverse=True)


def test_state_dict__scaler_comes_back():
    batches = make_batches(4)
    trainer = train(
        make_model(), batches, amp=True, grad_scaler=torch.amp.GradScaler("cpu", 1024.0)
    )
    other = train(make_model(), batches, iterations=1, amp=True)
    other.load_state_dict(trainer.state_dict())
    assert other.grad_scaler.get_scale() == 1024.0
    other.load_state_dict({k: v for k, v in trainer.state_dict().items() if k != "grad_scaler"})


def test_clip_grads__without_gradients():
    model = make_model()
    trainer = Trainer(model, [], torch.optim.SGD(model.parameters(), lr=0.1))
    assert trainer.clip_grads(model.parameters()) is None


def test_init__accumulate_steps_must_be_positive():
    model = make_model()
    with pytest.raises(ConfigError, match="accumulate_steps=0 is too small"):
        Trainer(model, [], torch.optim.SGD(model.parameters(), lr=0.1), accumulate_steps=0)


def test_run_step__records_every_loss():
    trainer = train(make_model(), make_batches(4))
    with EventStorage():
        names = trainer.storage.histories()
    assert {"total_loss", "loss_class", "loss_bbox", "data_time"} <= set(names)
