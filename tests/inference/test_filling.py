import pytest
import torch
from omegaconf import OmegaConf

from detrex.errors import CheckpointError
from detrex.inference.filling import fill, read_first
from detrex.modeling.ema import EMAState
from tests.reference.tiny_run import build, save, tiny_config

PLAIN = OmegaConf.create()
AVERAGED = OmegaConf.create(
    {"train": {"model_ema": {"enabled": True, "use_ema_weights_for_eval_only": True}}}
)


@pytest.fixture(scope="module")
def cfg(tmp_path_factory):
    return tiny_config(tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize(("config", "averaged"), [(PLAIN, False), (AVERAGED, True)])
def test_fill__the_weights_that_the_evaluation_takes(cfg, config, averaged, caplog):
    model, other = build(cfg, 0), build(cfg, 1)
    average = EMAState.FromModel(build(cfg, 2))
    fill(other, {"model": model.state_dict(), "ema_state": average.state_dict()}, "a.pth", config)
    expected = average.state if averaged else model.state_dict()
    for name, value in other.named_parameters():
        torch.testing.assert_close(value.data, expected[name], rtol=0, atol=0)
    assert ("holds a moving average" in caplog.text) == (not averaged)


def test_fill__an_average_that_is_not_there_is_an_error(cfg):
    with pytest.raises(CheckpointError, match="there is no moving average to apply"):
        fill(build(cfg), {"model": build(cfg).state_dict()}, "a.pth", AVERAGED)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda state: {k: v for k, v in state.items() if "bbox_embed" not in k},
            r"a\.pth has no values for \d+ of the \d+ tensors of DINO",
        ),
        (
            lambda state: {k: v[:2] if "class_embed" in k else v for k, v in state.items()},
            r"is of another DINO than the config describes: .*has the shape \(2",
        ),
        (
            lambda state: {
                k.removeprefix("backbone."): v for k, v in state.items() if "backbone." in k
            },
            "holds weights of a backbone alone",
        ),
    ],
)
def test_fill__what_would_stay_random_is_an_error(cfg, change, message):
    model = build(cfg)
    with pytest.raises(CheckpointError, match=message):
        fill(build(cfg, 1), {"model": change(model.state_dict())}, "a.pth", PLAIN)


def test_fill__other_classes_are_one_sentence(cfg, caplog):
    state = {k: v[:2] if "class_embed" in k else v for k, v in build(cfg).state_dict().items()}
    with pytest.raises(CheckpointError, match="is of another DINO"):
        fill(build(cfg, 1), {"model": state}, "a.pth", PLAIN)
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_read_first__passes_over_what_is_damaged(cfg, tmp_path, caplog):
    model = build(cfg)
    whole, broken, infinite = (tmp_path / f"{name}.pth" for name in "abc")
    save(model, whole)
    broken.write_bytes(whole.read_bytes()[:3000])
    next(model.parameters()).data[:] = torch.nan
    save(model, infinite)
    checkpoint, name = read_first([str(broken), str(infinite), str(whole)])
    assert name == str(whole)
    assert checkpoint["iteration"] == 9
    assert caplog.text.count("Passing over a checkpoint") == 2
    with pytest.raises(CheckpointError):
        read_first([str(broken)])
    assert read_first([]) == ({}, "")
