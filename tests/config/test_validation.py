import pytest
from detectron2.config import LazyCall as L
from omegaconf import OmegaConf
from torch import nn

from detrex.config import get_config, get_detectron2_config
from detrex.config.validation import check_values, misspelt_keys, peek, read, settle, shown
from detrex.errors import ConfigError

OPTIONAL = [
    *("seed", "eval_period", "log_period", "accumulate_steps", "init_checkpoint", "amp", "ddp"),
    *("clip_grad", "checkpointer", "wandb", "model_ema", "fast_dev_run"),
]


def config(**train):
    return OmegaConf.create({"train": train})


@pytest.mark.parametrize(
    ("train", "sentence"),
    [
        (
            {"max_iter": "abc"},
            "train.max_iter='abc' cannot be used: expected a whole number of at least 1.",
        ),
        (
            {"amp": {"dtype": "flaot16"}},
            "train.amp.dtype='flaot16' cannot be used: expected float16 or bfloat16. "
            "Did you mean 'float16' or 'bfloat16'?",
        ),
        (
            {"amp": 5},
            "train.amp=5 cannot be used: expected a group of keys, such as enabled, dtype.",
        ),
        ({"max_iter": None}, "train.max_iter is null: expected a whole number of at least 1."),
        (
            {"ddp": {"static_grap": True}},
            "train.ddp.static_grap is no keyword of DistributedDataParallel(). "
            "Did you mean 'static_graph'?",
        ),
    ],
)
def test_check_values__names_key_value_and_what_is_expected(train, sentence):
    assert check_values(config(**train)) == [sentence]


def test_check_values__tells_all():
    assert len(check_values(config(max_iter=0, log_period=0, amp={"enabled": "maybe"}))) == 3


def test_check_values__numbers_of_detectron2s_detectors():
    model = get_detectron2_config("common/models/mask_rcnn_fpn.py").model
    assert (
        list(check_values(OmegaConf.create({"model": model}, flags={"allow_objects": True}))) == []
    )
    model.roi_heads.positive_fraction = -1
    model.proposal_generator.pre_nms_topk = (0, 1000)
    cfg = OmegaConf.create({"model": model}, flags={"allow_objects": True})
    findings = list(check_values(cfg))
    assert [finding.partition("=")[0] for finding in findings] == [
        "model.proposal_generator.pre_nms_topk",
        "model.roi_heads.positive_fraction",
    ]


def test_check_values__numbers_of_constructors():
    cfg = OmegaConf.create(flags={"allow_objects": True})
    cfg.model = L(nn.Identity)(
        num_queries=-1,
        heads=[1, 2],
        pixel_std=[1.0, 0.0],
        backbone=L(nn.Identity)(num_classes=0, x=float("nan")),
    )
    told = "\n".join(check_values(cfg))
    assert "model.num_queries=-1 cannot be used: expected numbers of at least 1." in told
    assert "model.backbone.x=nan" in told
    assert "model.pixel_std=[1.0, 0.0] cannot be used: expected numbers above 0." in told
    assert "num_classes" not in told


@pytest.mark.parametrize("how", ["removed", "null"])
@pytest.mark.parametrize("name", OPTIONAL)
def test_settle__fills_in_what_is_left_out(name, how):
    cfg = OmegaConf.create({"train": get_config("common/train.py").train})
    if how == "null":
        cfg.train[name] = None
    else:
        del cfg.train[name]
    assert check_values(cfg) == []
    assert cfg.train[name] is None if how == "null" else name not in cfg.train
    settle(cfg)
    expected = {"log_period": 20, "eval_period": 0, "accumulate_steps": 1, "init_checkpoint": ""}
    expected["seed"] = -1
    if name in expected:
        assert cfg.train[name] == expected[name]
    else:
        assert not cfg.train[name].get("enabled", False)
        assert len(cfg.train[name]) > 0


def test_settle__gives_values_their_types():
    cfg = config(max_iter=1e3, device="cpu", output_dir=2024, amp={"enabled": "no"}, mine="1e3")
    cfg.optimizer = {"_target_": "torch.optim.AdamW", "lr": "1e-4", "betas": [0, "0.5"]}
    settle(cfg)
    assert (cfg.train.max_iter, type(cfg.train.max_iter)) == (1000, int)
    assert cfg.train.amp.enabled is False
    assert cfg.train.output_dir == "2024"
    assert cfg.train.mine == "1e3"
    assert cfg.optimizer.lr == 1e-4
    assert [type(beta) for beta in cfg.optimizer.betas] == [float, float]
    assert "weight_decay" not in cfg.optimizer


def test_settle__keeps_references_and_nulls_that_mean_something():
    cfg = config(max_iter=7, device="cpu", output_dir="a", log_period="${train.max_iter}")
    cfg.train.checkpointer = {"period": 3, "max_to_keep": None}
    cfg.train.seed = "${nowhere}"
    settle(cfg)
    cfg.train.max_iter = 9
    assert cfg.train.log_period == 9
    assert cfg.train.checkpointer.max_to_keep is None
    assert OmegaConf.is_interpolation(cfg.train, "seed")


def test_settle__refuses():
    with pytest.raises(ConfigError, match=r"train\.max_iter=-5 cannot be used"):
        settle(config(max_iter=-5))


def test_misspelt_keys__near_names_only():
    cfg = config(
        max_iter=3, max_itr=5, amp={"enable": True}, notes="mine", ddp={"static_graph": True}
    )
    assert misspelt_keys(cfg) == [
        "train.max_itr is no key that a run reads. Did you mean 'max_iter'?",
        "train.amp.enable is no key that a run reads. Did you mean 'enabled'?",
    ]
    assert misspelt_keys(config(max_iter=3, notes="mine")) == []


def test_read_and_peek__broken_references():
    cfg = OmegaConf.create({"a": "${b}", "b": "${a}", "c": None, "d": {"e": "???"}})
    assert read(cfg, "a") is ...
    assert read(cfg, "x") is ...
    assert read(cfg.d, "e") is ...
    assert peek(cfg, "a") is ...
    assert peek(cfg, "c") is None
    assert peek(cfg, "d.x.y") is None


def test_shown__is_short():
    assert len(shown(OmegaConf.create([{"key": "x" * 1000}] * 100))) < 100
