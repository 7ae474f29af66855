import pytest
from detectron2.config import LazyCall as L
from omegaconf import OmegaConf

from detrex.engine import apply_overrides
from detrex.engine.overrides import load_overridden, override
from detrex.errors import ConfigError


def build(width=1, *, depth=2):
    return width, depth


def build_open(width=1, **kwargs):
    return width, kwargs


@pytest.fixture
def cfg():
    cfg = OmegaConf.create(
        {"train": {"max_iter": 10, "output_dir": "out", "missing": None}, "sizes": [3, {"a": 5}]},
        flags={"allow_objects": True},
    )
    cfg.model = L(build)(width=3)
    cfg.open = L(build_open)(width="${model.width}")
    cfg.link = {"same": "${train}", "lost": "${nowhere}"}
    return cfg


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("train.max_iter=20", "train.max_iter", 20),
        ("train.output_dir=/tmp/a-b_1.2", "train.output_dir", "/tmp/a-b_1.2"),
        ("train.missing=[1,2]", "train.missing", [1, 2]),
        ("sizes.0=7", "sizes[0]", 7),
        ("sizes.1.a=11", "sizes[1].a", 11),
        ("model.depth=5", "model.depth", 5),
        ("open.drop_path=0.1", "open.drop_path", 0.1),
        ("+train.note=new", "train.note", "new"),
        ("++train.note.deep=1", "train.note.deep", 1),
        ("link.same.max_iter=4", "link.same.max_iter", 4),
    ],
)
def test_apply_overrides__sets(cfg, text, key, value):
    assert OmegaConf.select(apply_overrides(cfg, [text]), key) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "train.max_itr=5",
            r"train\.max_itr does not exist: train has no 'max_itr'. Did you mean 'max_iter'",
        ),
        ("trian.max_iter=5", r"the config has no 'trian'. Did you mean 'train'"),
        ("train.zzz=5", r"no 'zzz'. There are max_iter, output_dir, missing"),
        ("train.zzz=5", r"\+train\.zzz=\.\.\. adds a new key"),
        ("model.dpeth=5", "no 'dpeth'"),
        ("model.depth.more=5", "model has no 'depth'"),
        ("open.widht=5", "no 'widht'. Did you mean 'width'"),
        ("train.max_iter.x=5", "train.max_iter is 10, which has no parts"),
        ("sizes.2=5", "sizes has no '2'"),
        ("--resume", "--resume stands among the key=value overrides"),
        ("train.max_iter", "is not an override: expected key=value"),
        ("train.max_iter 5", "is not an override"),
        ("~train.max_iter", "train.max_iter=null"),
        ("train@x=3", "names no key"),
        ("=3", "names no key"),
        ("model._target_=os.system", "model._target_='os.system' is refused"),
        ("+train.x={_target_:os.system}", "train.x._target_='os.system' is refused"),
        ("train.max_iter=1,2", r"write a list as 'train.max_iter=\[1,2\]'"),
    ],
)
def test_apply_overrides__refuses(cfg, text, message):
    before = OmegaConf.to_container(cfg, resolve=False)
    with pytest.raises(ConfigError, match=message):
        apply_overrides(cfg, ["train.output_dir=elsewhere", text])
    assert OmegaConf.to_container(cfg, resolve=False) == before


def test_apply_overrides__string_targets_have_signatures_too(cfg):
    cfg.model._target_ = "tests.reference.stand_in.StandIn"
    assert apply_overrides(cfg, ["model.dropout=0.0"]).model.dropout == 0.0
    with pytest.raises(ConfigError, match=r"model\.droput"):
        apply_overrides(cfg, ["model.droput=0.0"])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a b",
        "it's",
        "a\\",
        "a\\'b",
        "\\\\",
        "x=1,2",
        "[a]",
        "ü",
        "a\\\\'",
        "c:\\d\\e'",
        "null",
        '"',
    ],
)
def test_override__any_text(text):
    cfg = OmegaConf.create({"train": {"output_dir": "x"}})
    apply_overrides(cfg, [override("train.output_dir", text)])
    assert cfg.train.output_dir == text


def test_override__a_text_that_would_be_a_reference():
    with pytest.raises(ConfigError, match=r"^train\.output_dir runs/\$\{x\} has \$\{ in its name"):
        override("train.output_dir", "runs/${x}")


def test_load_overridden__by_its_place_in_the_package():
    cfg = load_overridden("dino/demo_shapes.py", ["train.max_iter=7"])
    assert cfg.train.max_iter == 7
    with pytest.raises(ConfigError, match="max_itr"):
        load_overridden("dino/demo_shapes.py", ["train.max_itr=7"])
