import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from detrex.checkpoint.detection_checkpoint import DetectionCheckpointer
from detrex.errors import CheckpointError, ConfigError
from detrex.modeling import ema


class Model(nn.Module):
    """Parameters, an alias, float and integer buffers, and one that is not saved."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5))
        self.decoder = nn.Module()
        self.decoder.head = nn.Linear(5, 7)
        self.head = self.decoder.head
        self.register_buffer("cache", torch.randn(3), persistent=False)


def config(enabled=True, decay=0.9, device=""):
    settings = {"enabled": enabled, "decay": decay, "device": device}
    return OmegaConf.create({"train": {"model_ema": settings}})


def change(model):
    with torch.no_grad():
        for value in model.parameters():
            value.add_(torch.randn_like(value))
        for name, value in model.named_buffers():
            value.add_(1000 if "num_batches" in name else 0.5)


def weights(model):
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


NAMES = [
    "net.0.weight",
    "net.0.bias",
    "net.1.weight",
    "net.1.bias",
    "decoder.head.weight",
    "decoder.head.bias",
    "net.1.running_mean",
    "net.1.running_var",
    "net.1.num_batches_tracked",
]


def test_state_dict__layout():
    assert list(ema.EMAState.FromModel(Model()).state_dict()) == NAMES


def test_update__is_the_formula_and_keeps_integers():
    model = Model()
    state = ema.EMAState.FromModel(model)
    updater = ema.EMAUpdater(state, decay=0.9)
    expected = {name: value.clone() for name, value in state.state_dict().items()}
    for _ in range(5):
        change(model)
        updater.update(model)
        for name, value in model.state_dict().items():
            if name in expected:
                mean = 0.9 * expected[name] + 0.1 * value
                expected[name] = mean if value.is_floating_point() else value.clone()
    torch.testing.assert_close(state.state_dict(), expected, rtol=1e-5, atol=1e-6)
    assert state.state_dict()["net.1.num_batches_tracked"] == 5000


def test_update__what_stays_equal_stays_exact():
    model = Model()
    state = ema.EMAState.FromModel(model)
    updater = ema.EMAUpdater(state, decay=0.999)
    for _ in range(100):
        updater.update(model)
    expected = {name: weights(model)[name] for name in NAMES}
    torch.testing.assert_close(state.state_dict(), expected, rtol=0, atol=0)


@pytest.mark.parametrize("decay", [-0.1, 1.5])
def test_updater__decay_is_a_share(decay):
    with pytest.raises(ConfigError, match=r"decay is .*, expected a number from 0 to 1"):
        ema.EMAUpdater(ema.EMAState(), decay=decay)


def test_apply_model_ema__and_back():
    model = Model()
    ema.may_build_model_ema(config(), model)
    state = ema.get_model_ema_state(model)
    state.save_from(model)
    averaged = weights(model)
    change(model)
    own = weights(model)
    with ema.apply_model_ema_and_restore(model):
        torch.testing.assert_close(weights(model), averaged, rtol=0, atol=0)
        assert model.head is model.decoder.head
    torch.testing.assert_close(weights(model), own, rtol=0, atol=0)

    kept = ema.apply_model_ema(model, save_current=True)
    torch.testing.assert_close(weights(model), averaged, rtol=0, atol=0)
    assert ema.apply_model_ema(model, kept) is None
    torch.testing.assert_close(weights(model), own, rtol=0, atol=0)


def test_apply_and_restore__restores_after_an_error():
    model = Model()
    state = ema.EMAState.FromModel(model)
    change(model)
    own = weights(model)
    with pytest.raises(RuntimeError), ema.apply_model_ema_and_restore(model, state):
        raise RuntimeError("evaluation failed")
    torch.testing.assert_close(weights(model), own, rtol=0, atol=0)


def test_get_ema_model__leaves_the_model_alone():
    model = Model()
    ema.may_build_model_ema(config(), model)
    model.ema_state.save_from(model)
    averaged = weights(model)
    change(model)
    own = weights(model)
    copied = model.ema_state.get_ema_model(model)
    torch.testing.assert_close(weights(copied), averaged, rtol=0, atol=0)
    torch.testing.assert_close(weights(model), own, rtol=0, atol=0)
    assert copied.head is copied.decoder.head
    assert model.ema_state is not None


def test_apply_to__empty_or_of_another_model():
    state = ema.EMAState()
    assert not state.has_inited()
    assert state.device is None
    with pytest.raises(CheckpointError, match=r"no moving average to apply: train with"):
        state.apply_to(Model())
    state.save_from(Model())
    with pytest.raises(CheckpointError, match=r"of another model, 11 names differ, such as"):
        state.apply_to(nn.Linear(3, 5))
    other = ema.EMAState.FromModel(nn.Linear(3, 7))
    with pytest.raises(CheckpointError, match=r"of weight has shape \(7, 3\) and .*\(5, 3\)"):
        other.apply_to(nn.Linear(3, 5))


def test_load_state_dict__strict_and_not():
    model = Model()
    state = ema.EMAState.FromModel(model)
    some = {"net.0.bias": torch.ones(5), "unknown": torch.ones(1)}
    with pytest.raises(CheckpointError, match="of another model"):
        state.load_state_dict(some)
    state.load_state_dict(some, strict=False)
    assert list(state.state_dict()) == NAMES
    torch.testing.assert_close(state.state_dict()["net.0.bias"], torch.ones(5), rtol=0, atol=0)


def test_state__another_alias_is_understood():
    model = Model()
    state = ema.EMAState()
    names = {"decoder.head.weight": "head.weight", "decoder.head.bias": "head.bias"}
    saved = {names.get(name, name): weights(model)[name] for name in NAMES}
    state.load_state_dict(saved)
    change(model)
    state.apply_to(model)
    torch.testing.assert_close(
        {name: weights(model)[name] for name in saved}, saved, rtol=0, atol=0
    )


def test_state__device_and_clear():
    state = ema.EMAState.FromModel(Model(), device="cpu")
    assert state.device == torch.device("cpu")
    assert state.to("meta").device == torch.device("meta")
    assert not state.clear().has_inited()


def test_hook__trains_saves_and_resumes(tmp_path):
    cfg = config(decay=0.5)
    model = Model()
    ema.may_build_model_ema(cfg, model)
    hook = ema.EMAHook(cfg, model)
    hook.before_train()
    start = weights(model)
    change(model)
    hook.before_step()
    hook.after_step()
    hook.after_train()
    expected = (start["net.0.weight"] + model.net[0].weight.detach()) / 2
    average = model.ema_state.state_dict()["net.0.weight"]
    torch.testing.assert_close(average, expected, rtol=1e-6, atol=1e-6)
    model.eval()
    change(model)
    hook.after_step()
    torch.testing.assert_close(average, expected, rtol=1e-6, atol=1e-6)

    states = ema.may_get_ema_checkpointer(cfg, model)
    DetectionCheckpointer(model, tmp_path, **states).save("model_final", iteration=1)
    content = torch.load(tmp_path / "model_final.pth", weights_only=True)
    assert list(content) == ["model", "ema_state", "iteration"]
    assert list(content["ema_state"]) == NAMES

    fresh = Model()
    ema.may_build_model_ema(cfg, fresh)
    states = ema.may_get_ema_checkpointer(cfg, fresh)
    DetectionCheckpointer(fresh, tmp_path, **states).resume_or_load("")
    ema.EMAHook(cfg, fresh).before_train()
    torch.testing.assert_close(
        fresh.ema_state.state_dict(), model.ema_state.state_dict(), rtol=0, atol=0
    )


def test_disabled__nothing_is_built():
    model = Model()
    ema.may_build_model_ema(config(enabled=False), model)
    assert not hasattr(model, "ema_state")
    assert ema.may_get_ema_checkpointer(config(enabled=False), model) == {}
    with pytest.raises(ConfigError, match=r"Model has no moving average: set train.model_ema"):
        ema.EMAHook(config(), model)


def test_may_build_model_ema__once():
    model = Model()
    ema.may_build_model_ema(config(), model)
    with pytest.raises(ConfigError, match="has an attribute 'ema_state' already"):
        ema.may_build_model_ema(config(), model)


def test_data_parallel_wrapper_is_taken_off():
    model = Model()
    wrapped = nn.DataParallel(model)
    ema.may_build_model_ema(config(), wrapped)
    state = ema.get_model_ema_state(wrapped)
    state.save_from(wrapped)
    assert list(state.state_dict()) == NAMES
    state.apply_to(wrapped)
    assert ema.EMAHook(config(), wrapped).model is model
