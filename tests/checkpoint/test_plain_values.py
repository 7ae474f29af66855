import io

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from omegaconf import OmegaConf
from torch import nn

from detrex.checkpoint.detection_checkpoint import DetectionCheckpointer
from detrex.checkpoint.plain_values import plain


def test_plain__only_what_a_config_holds_changes():
    config = OmegaConf.create({"a": [0.9, {"b": "${c}"}], "c": 3})
    tensor = torch.ones(2)
    state = {"groups": [{"betas": config.a, "params": [0, 1]}], "one": (config, tensor), 2: {}}
    assert plain(state) == {
        "groups": [{"betas": [0.9, {"b": 3}], "params": [0, 1]}],
        "one": ({"a": [0.9, {"b": 3}], "c": 3}, tensor),
        2: {},
    }
    assert plain(state)["one"][1] is tensor
    assert plain(state)["groups"][0]["params"] is state["groups"][0]["params"]
    assert state["one"][0] is config, "the state itself stays as it is"
    untouched = {"state": {0: {"step": tensor}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
    assert plain(untouched) is untouched


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (torch.optim.AdamW, {"betas": (0.8, 0.95)}),
        (torch.optim.NAdam, {"betas": (0.8, 0.95)}),
        (torch.optim.RAdam, {"betas": (0.8, 0.95)}),
        (torch.optim.Adamax, {"betas": (0.8, 0.95)}),
        (torch.optim.Adafactor, {"eps": (1e-20, 1e-3)}),
        (torch.optim.Rprop, {"etas": (0.4, 1.3)}),
    ],
)
def test_checkpoint__of_an_optimizer_with_a_tuple_of_a_config_is_read_back(kind, options, tmp_path):
    def trained(steps, folder=None):
        torch.manual_seed(0)
        model = nn.Linear(3, 5)
        optimizer = instantiate(L(kind)(params=model.parameters(), lr=0.1, **options))
        checkpointer = DetectionCheckpointer(model, tmp_path, optimizer=optimizer)
        if folder:
            checkpointer.resume_or_load("", resume=True)
        for step in steps:
            optimizer.zero_grad()
            model(torch.full((2, 3), float(step))).square().sum().backward()
            optimizer.step()
        return model, optimizer, checkpointer

    undisturbed, _, _ = trained(range(5))
    trained(range(2))[2].save("model_0000001")
    resumed, optimizer, _ = trained(range(2, 5), folder=tmp_path)
    torch.testing.assert_close(resumed.state_dict(), undisturbed.state_dict(), rtol=0, atol=0)
    torch.save(optimizer.state_dict(), io.BytesIO())
    (name, value), *_ = options.items()
    assert tuple(optimizer.param_groups[0][name]) == value
