import pytest

from detrex.config.trust import check_named, locate_trusted
from detrex.errors import ConfigError


@pytest.mark.parametrize(
    "name",
    [
        *("torch.nn.GroupNorm", "torch.nn.functional.relu", "torch.relu", "torch.optim.AdamW"),
        *("torchvision.ops.MLP", "timm.create_model", "detectron2.layers.ShapeSpec"),
        *("detrex.modeling.dino.DINO", "fvcore.common.param_scheduler.CosineParamScheduler"),
        *("builtins.dict", "detrex.modeling.backbone.ResNet.make_default_stages"),
    ],
)
def test_locate_trusted__packages_of_the_field(name):
    assert callable(locate_trusted(name, "model._target_"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("os.system", "is refused: YAML and the command line may name things of torch, "),
        ("torch.os.system", "is refused"),
        ("torch.os.path.join", "is refused"),
        ("detrex.config.config.os.system", "is refused"),
        ("detectron2.config.lazy.yaml.unsafe_load", "is refused"),
        ("builtins.eval", "is refused"),
        ("torch.sys.exit", "is refused"),
        ("torchx.nn.Linear", "is refused"),
        ("torch.nn.GroupNrom", "cannot be imported.*Did you mean 'GroupNorm'"),
        ("torch.no_such_module.x", "cannot be imported"),
        ("torch.__version__", "which cannot be called"),
        ("${train.device}", "expected the name of a class"),
        (3, "expected the name of a class"),
        (["os.system"], "expected the name of a class"),
    ],
)
def test_locate_trusted__refuses(name, message):
    with pytest.raises(ConfigError, match=message) as info:
        locate_trusted(name, "model._target_")
    assert str(info.value).startswith("model._target_=")
    assert "\n" not in str(info.value)


@pytest.mark.parametrize(
    "value",
    [
        {"a": [{"b": {"_target_": "os.system"}}]},
        {"_target_": {"_target_": "torch.nn.GELU"}},
        {"a": "${oc.create:{_target_:os.system}}"},
        {"a": "x ${oc.decode:${b}}"},
        {"a": "${${b}:{_target_:os.system}}"},
        {"a": "${oc.env:X,${oc.create:{_target_:os.system}}}"},
    ],
)
def test_check_named__finds_it_anywhere(value):
    with pytest.raises(ConfigError):
        check_named(value)


def test_check_named__takes_the_rest():
    check_named({"a": "${b.c}", "b": "${oc.env:HOME,null}", "c": [{"_target_": "torch.nn.GELU"}]})
    check_named("${a", "an unfinished reference is no call")
