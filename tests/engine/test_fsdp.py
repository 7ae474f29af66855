import argparse

import pytest
import torch
from detectron2.utils import comm
from omegaconf import OmegaConf
from torch import nn

from detrex.checkpoint import read_checkpoint
from detrex.checkpoint.placement import whole_tensor
from detrex.checkpoint.sharded import ShardedCheckpointer
from detrex.engine import Trainer, do_train
from detrex.engine.fsdp import check_fsdp, is_sharded, shard_model, whole_copy
from detrex.engine.optimizer import build_optimizer
from detrex.errors import ConfigError
from detrex.modeling.backbone import TimmBackbone, TorchvisionBackbone
from tests.reference.one_rank import needs_fsdp_on_cpu, one_rank  # noqa: F401
from tests.reference.stand_in import read_losses
from tests.reference.torchrun import run_two_ranks
from tests.reference.two_sharded import CASES, Blocks, run_config


def close(first, second, **tolerances):
    assert first.keys() == second.keys()
    for name, value in second.items():
        torch.testing.assert_close(
            first[name], value, **tolerances, msg=lambda m, n=name: f"{n} {m}"
        )


def check_case(folder, name):
    """Losses of every step to 1e-5, and weights and averages at the end.

    In 16 bits near-equal scores change places, so that later steps may match other objects.
    """
    half = "float16" in name
    bounds = {"rtol": 2e-3, "atol": 2e-3} if half else {"rtol": 1e-5, "atol": 2e-5}
    for rank in (0, 1):
        seen = torch.load(folder / f"{name}{rank}.pth", weights_only=True)
        fsdp, ddp = seen["fsdp"], seen["ddp"]
        losses = [torch.tensor(way["losses"])[: 3 if half else None] for way in (fsdp, ddp)]
        torch.testing.assert_close(*losses, rtol=1e-3 if half else 1e-5, atol=0)
        assert len(fsdp["losses"]) == 10
        assert abs(losses[0][0] - losses[0][-1]) > 0.01
        statistics = {"rtol": 1e-3, "atol": 1e-3}  # of batches of few numbers
        for table in ("weights", "averages"):
            running = {n for n in ddp[table] if "running_" in n}
            for names, tolerances in ((running, statistics), (ddp[table].keys() - running, bounds)):
                close(*({n: way[table][n] for n in names} for way in (fsdp, ddp)), **tolerances)
        tolerances = {"rtol": 2e-2, "atol": 2e-3} if half else {"rtol": 1e-3, "atol": 1e-5}
        torch.testing.assert_close(fsdp["scores"], ddp["scores"], **tolerances)
        assert fsdp["scale"] == ddp["scale"]  # the same steps were left out


@pytest.mark.slow
@needs_fsdp_on_cpu
def test_shard_model__trains_as_ddp_does(tmp_path):
    run_two_ranks("tests.reference.two_sharded", tmp_path, "cases")
    for name in CASES:
        check_case(tmp_path, name)


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory):
    """Runs of two processes, and the run of one that some go on from."""
    folder = tmp_path_factory.mktemp("ranks")
    do_train(argparse.Namespace(resume=False), run_config(folder, "one", max_iter=4))
    run_two_ranks("tests.reference.two_sharded", folder, "runs")
    return folder


@pytest.mark.parametrize(("fsdp", "ddp"), [("fsdp", "ddp"), ("from one, fsdp", "from one, ddp")])
@needs_fsdp_on_cpu
def test_do_train__sharded_equals_ddp(two_ranks, fsdp, ddp):
    """Losses, metrics of the weights and of their average, and all that the checkpoints hold."""
    losses = [read_losses(two_ranks / name) for name in (fsdp, ddp)]
    assert list(losses[0]) == list(losses[1]) == list(range(12))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    metrics = torch.load(two_ranks / "metrics0.pth", weights_only=True)
    assert set(metrics[fsdp]) == {"bbox", "ema/bbox"}
    for task, values in metrics[ddp].items():
        assert metrics[fsdp][task] == pytest.approx(values, rel=1e-5)
    names = {path.name for path in (two_ranks / fsdp).glob("model_*")}
    assert {"model_0000007.dcp", "model_final.pth"} <= names
    assert not [name for name in names if "unfinished" in name]
    for name in ("model_0000007", "model_final"):
        ending = ".pth" if name == "model_final" else ".dcp"
        held = read_checkpoint(two_ranks / fsdp / f"{name}{ending}")
        expected = read_checkpoint(two_ranks / ddp / f"{name}.pth")
        assert held.keys() == expected.keys()
        for key in ("iteration", "class_names"):
            assert held.get(key) == expected.get(key)
        close(held["model"], expected["model"], rtol=1e-5, atol=1e-6)
        close(held["ema_state"], expected["ema_state"], rtol=1e-5, atol=1e-6)
        state, reference = (c["trainer"]["optimizer"]["state"] for c in (held, expected))
        assert state.keys() == reference.keys()
        for number in reference:
            close(state[number], reference[number], rtol=1e-4, atol=1e-6)


@needs_fsdp_on_cpu
def test_do_train__one_process_goes_on_from_two(two_ranks, tmp_path):
    """From the folder that two ranks wrote, and from the same state in one file."""
    weights = []
    for name, checkpoint in (("fsdp", "model_0000007.dcp"), ("ddp", "model_0000007.pth")):
        (tmp_path / name).mkdir()
        (tmp_path / name / checkpoint).symlink_to(two_ranks / name / checkpoint)
        do_train(argparse.Namespace(resume=True), run_config(tmp_path, name, max_iter=10))
        held = read_checkpoint(tmp_path / name / "model_final.pth")
        assert list(read_losses(tmp_path / name)) == [8, 9]
        weights.append(held["model"] | {f"ema {k}": v for k, v in held["ema_state"].items()})
    close(*weights, rtol=1e-5, atol=1e-6)


@needs_fsdp_on_cpu
def test_resume_or_load__parts_of_two_ranks_by_one(two_ranks, one_rank, tmp_path):  # noqa: F811
    """Each rank plans what it reads, here all that the two have written."""
    name = "model_0000007.dcp"
    (tmp_path / name).symlink_to(two_ranks / "fsdp" / name)
    model = Blocks()
    optimizer = build_optimizer(run_config(tmp_path, "", fsdp={"enabled": True}), model)
    trainer = Trainer(shard_model(model, optimizer), [], optimizer)
    checkpointer = ShardedCheckpointer(model, tmp_path, trainer=trainer)
    assert checkpointer.resume_or_load("", resume=True)["iteration"] == 7
    expected = read_checkpoint(tmp_path / name)
    close(whole_copy(model).state_dict(), expected["model"], rtol=0, atol=0)
    state = optimizer.state_dict()["state"]
    for number, values in expected["trainer"]["optimizer"]["state"].items():
        held = {name: whole_tensor(value) for name, value in state[number].items()}
        close(held, values, rtol=0, atol=0)


BACKBONES = {
    "timm's": lambda: TimmBackbone("test_convnext"),
    "torchvision's": lambda: TorchvisionBackbone("resnet18"),
}


@pytest.mark.parametrize("name", BACKBONES)
@needs_fsdp_on_cpu
def test_whole_copy__is_a_plain_model(one_rank, name):  # noqa: F811
    """Its outputs are those of the model before it was sharded; it can be copied and called."""
    torch.manual_seed(0)
    model = nn.Module()
    model.backbone = BACKBONES[name]()
    model.forward = lambda x: model.backbone(x)
    model.eval()
    images = torch.randn(2, 3, 37, 50)
    with torch.no_grad():
        expected = model.backbone(images)
    optimizer = torch.optim.AdamW(model.backbone.parameters())
    names = list(model.state_dict())
    assert shard_model(model, optimizer) is model
    assert is_sharded(model)
    assert list(model.state_dict()) == names
    parameters = {id(p) for p in model.parameters()}
    assert {id(p) for group in optimizer.param_groups for p in group["params"]} == parameters
    whole = whole_copy(model)
    assert not is_sharded(whole)
    assert list(whole.state_dict()) == names
    with torch.no_grad():
        found = whole.backbone(images)
    for level in expected:
        torch.testing.assert_close(found[level], expected[level], rtol=1e-5, atol=1e-6)
    averages = {n: torch.zeros_like(v) for n, v in whole.named_parameters()}
    assert not any(p.any() for p in whole_copy(model, averages).parameters())


@needs_fsdp_on_cpu
def test_shard_model__fused_sgd_and_scalars_are_refused(one_rank):  # noqa: F811
    model = nn.Linear(3, 2)
    with pytest.raises(ConfigError, match=r"fused=True does not go with train\.fsdp"):
        shard_model(model, torch.optim.SGD(model.parameters(), lr=0.1, fused=True))
    model.gain = nn.Parameter(torch.tensor(1.0))
    with pytest.raises(ConfigError, match="'gain' is a single number"):
        shard_model(model, torch.optim.SGD(model.parameters(), lr=0.1))


class Meddling(nn.Module):
    """Reads the weights of its blocks itself."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(*(nn.TransformerEncoderLayer(8, 2, 8) for _ in range(2)))

    def forward(self, batch):
        weights = self.backbone[0].linear1.weight
        return (torch.randn(2, 8) @ weights).square().sum()


@needs_fsdp_on_cpu
def test_run_step__a_model_that_cannot_be_sharded_is_told(one_rank):  # noqa: F811
    model = Meddling()
    optimizer = torch.optim.AdamW(model.parameters())
    trainer = Trainer(shard_model(model, optimizer), iter([[]] * 2), optimizer)
    with pytest.raises(ConfigError, match=r"cannot be had with Meddling, which reads weights of"):
        trainer.train(0, 1)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"ddp": {"find_unused_parameters": True}}, "find_unused_parameters=True does not go"),
        ({"ddp": {"fp16_compression": True}}, "fp16_compression=True does not go"),
        ({"model_ema": {"device": "cpu"}}, "model_ema.device=cpu does not go"),
    ],
)
def test_check_fsdp__refuses_in_one_sentence(keys, message):
    check_fsdp(OmegaConf.create({"train": keys}))
    with pytest.raises(ConfigError, match=message):
        check_fsdp(OmegaConf.create({"train": {"fsdp": {"enabled": True}, **keys}}))


def test_check_fsdp__of_a_torch_that_cannot_on_a_cpu(monkeypatch):
    cfg = OmegaConf.create({"train": {"fsdp": {"enabled": True}, "device": "cpu"}})
    monkeypatch.delattr(torch.cpu.Stream, "record_event", raising=False)
    check_fsdp(cfg)  # one process does not shard
    monkeypatch.setattr(comm, "get_world_size", lambda: 2)
    with pytest.raises(ConfigError, match=r"fails on a CPU .*install torch>=2\.7"):
        check_fsdp(cfg)
    cfg.train.device = "cuda"
    check_fsdp(cfg)
