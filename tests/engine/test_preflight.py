import argparse
import copy
import json

import pytest
from detectron2.config import LazyCall as L
from fvcore.common.param_scheduler import MultiStepParamScheduler
from omegaconf import OmegaConf

from detrex.cli.check import static_findings
from detrex.config import get_config, load_config
from detrex.config.config import configs_root
from detrex.engine import build_model, build_optimizer, command_line, preflight
from detrex.engine.dry_run import dry_run
from detrex.engine.preflight import check_config, find_mistakes
from detrex.errors import ConfigError, DetrexError
from tests.reference.malformed import BROKEN, LEGAL, REFUSED
from tests.reference.stand_in import StandIn, stand_in_config


def test_find_mistakes__datasets_and_parts():
    cfg = get_config("dino/dino_r50_4scale_12ep.py")
    cfg.dataloader.train.dataset.names = "coco_2017_trian"
    del cfg["optimizer"]
    findings = "\n".join(find_mistakes(cfg))
    assert "'coco_2017_trian', which is not registered. Did you mean 'coco_2017_train'" in findings
    assert "the config has no 'optimizer'" in findings


def test_find_mistakes__keys_evaluator_and_output_below_a_file(tmp_path):
    cfg = get_config("dino/dino_r50_4scale_12ep.py")
    (tmp_path / "file").write_text("")
    cfg.train.output_dir = str(tmp_path / "file" / "run")
    cfg.train.max_iters = cfg.train.max_iter
    del cfg.train["max_iter"]
    cfg.dataloader.evaluator.dataset_name = "coco_2017_train"
    findings = "\n".join(find_mistakes(cfg))
    assert "no 'train.max_iter', which a run needs. Did you mean 'max_iters'" in findings
    assert f"cannot be a folder, for {tmp_path / 'file'} is a file" in findings
    assert "evaluator.dataset_name is 'coco_2017_train', but dataloader.test loads" in findings


def test_find_mistakes__device_of_the_moving_average_where_there_is_one():
    cfg = get_config("dino/dino_r50_4scale_12ep.py")
    cfg.train.device = "cpu"
    cfg.train.model_ema.device = "moon"
    about = [text for text in find_mistakes(cfg) if "moon" in text]
    assert about == []
    cfg.train.model_ema.enabled = True
    (about,) = [text for text in find_mistakes(cfg) if "moon" in text]
    assert about.startswith("train.model_ema.device=moon is no device that PyTorch knows")


def test_find_mistakes__names_that_no_file_can_have():
    cfg = get_config("dino/dino_r50_4scale_12ep.py")
    cfg.train.device = "cpu"
    cfg.train.init_checkpoint = f"{'n' * 300}.pth"
    assert any("nnn.pth', which does not exist" in text for text in find_mistakes(cfg))


SHAPES = configs_root() / "dino" / "demo_shapes.py"
FLAGS = argparse.Namespace(config_file="shapes.py", resume=False, eval_only=False)


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    """The demo's config with data of one picture, as a function that copies it.

    What it gives for overrides outside the model has a model of milliseconds.
    """
    folder = tmp_path_factory.mktemp("shapes")
    for name in ("train", "val"):
        (folder / name / "images").mkdir(parents=True)
        (folder / name / "images" / "1.png").write_bytes(b"")
        boxes = [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 30, 20]}]
        annotations = {
            "images": [{"id": 1, "width": 64, "height": 48, "file_name": "1.png"}],
            "categories": [{"id": i, "name": f"class {i}"} for i in (1, 2, 3)],
            "annotations": [{**box, "area": 600, "iscrowd": 0} for box in boxes],
        }
        (folder / name / "annotations.json").write_text(json.dumps(annotations))
    cfg = load_config(SHAPES)
    cfg.dataloader.folder = str(folder)
    cfg.train.device = "cpu"
    small = copy.deepcopy(cfg)
    small.model = L(StandIn)()
    for loader in (small.dataloader.train, small.dataloader.test):
        loader.dataset.names.num_classes = 3
    return lambda text: copy.deepcopy(cfg if "model" in text else small)


@pytest.fixture
def verdicts(shapes, tmp_path, monkeypatch):
    """What a run says to an override before its first step, and what `detrex check` says."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "afile").write_text("")
    found = {}

    def find_once(cfg, **options):
        """Spare half the time where both ask about the same config."""
        key = str(OmegaConf.to_container(cfg))
        if key not in found:
            found[key] = find_mistakes(cfg, **options)
        return found[key]

    monkeypatch.setattr(preflight, "find_mistakes", find_once)

    def of_both(text):
        monkeypatch.setattr(command_line, "load_config", lambda *_: shapes(text))
        try:
            cfg = command_line.load_run_config(argparse.Namespace(**vars(FLAGS), opts=[text]))
            if text not in LEGAL:
                build_optimizer(cfg, build_model(cfg, 0))
            said = ""
        except DetrexError as error:
            said = f"{type(error).__name__}: {error}"
        cfg = shapes(text)
        findings = static_findings(cfg, [text])
        # The model is built part by part where it can be wrong.
        if not findings and text not in LEGAL:
            findings = dry_run(cfg.model, (32, 32)).findings
        return said, findings

    return of_both


REFUSED_OVERRIDES = [f"{key}={value}" for key, row in REFUSED.items() for value in row.split()]


@pytest.mark.parametrize("text", [*REFUSED_OVERRIDES, *BROKEN])
def test_run_and_check__refuse_in_one_sentence(verdicts, text):
    said, findings = verdicts(text)
    assert said
    assert "\n" not in said
    assert len(said) < 500
    assert findings
    assert all("\n" not in finding and len(finding) < 500 for finding in findings)


@pytest.mark.parametrize("text", LEGAL)
def test_run_and_check__take_what_is_legal(verdicts, text):
    assert verdicts(text) == ("", [])


def test_find_mistakes__evaluation_needs_no_training(tmp_path):
    cfg = stand_in_config(str(tmp_path))
    assert find_mistakes(cfg) == []
    for name in ("optimizer", "lr_multiplier"):
        del cfg[name]
    del cfg.train["max_iter"]
    cfg.dataloader.train.total_batch_size = 0
    assert find_mistakes(cfg, eval_only=True) == []
    assert len(find_mistakes(cfg)) == 4


def test_find_mistakes__resumed_run_needs_no_first_weights(tmp_path):
    cfg = stand_in_config(str(tmp_path), init_checkpoint=str(tmp_path / "gone.pth"))
    assert find_mistakes(cfg, resume=True) == []
    assert "gone.pth', which does not exist" in find_mistakes(cfg)[0]
    cfg.train.init_checkpoint += "#model"
    assert "gone.pth', which does not exist" in find_mistakes(cfg)[0]


def test_find_mistakes__first_weights_of_any_ending(tmp_path):
    cfg = stand_in_config(str(tmp_path), init_checkpoint=str(tmp_path / "gone"))
    assert "gone', which does not exist" in find_mistakes(cfg)[0]
    for good in (str(tmp_path), "", "detectron2://gone", "hf-hub:some/network"):
        cfg.train.init_checkpoint = good
        assert find_mistakes(cfg) == []


@pytest.mark.parametrize("names", [None, "", []])
def test_find_mistakes__names_of_no_dataset(names):
    cfg = get_config("dino/dino_r50_4scale_12ep.py")
    cfg.dataloader.test.dataset.names = cfg.dataloader.train.dataset.names = names
    found = "\n".join(find_mistakes(cfg))
    for side in ("train", "test"):
        assert f"dataloader.{side}.dataset.names={names!r} names no data set" in found


def test_find_mistakes__no_records(tmp_path):
    cfg = stand_in_config(str(tmp_path))
    cfg.dataloader.train.dataset = []
    assert "dataloader.train.dataset is empty" in find_mistakes(cfg)[0]


def test_find_mistakes__changes_nothing(tmp_path):
    cfg = stand_in_config(str(tmp_path), max_iter=1e3, amp=None)
    before = OmegaConf.to_yaml(cfg.train)
    assert find_mistakes(cfg) == []
    assert OmegaConf.to_yaml(cfg.train) == before
    assert check_config(cfg).train.amp == {"enabled": False, "dtype": "float16"}


def test_find_mistakes__what_optimizer_and_schedule_refuse(tmp_path):
    cfg = stand_in_config(str(tmp_path))
    cfg.optimizer.foreach, cfg.optimizer.fused = True, True
    cfg.lr_multiplier = L(MultiStepParamScheduler)(values=[1.0, 0.1], milestones=[3, 2, 1])
    told = find_mistakes(cfg)
    assert [finding.split(" cannot")[0] for finding in told] == ["optimizer", "lr_multiplier"]


def test_check_config__first_mistake_and_number_of_the_others(tmp_path):
    cfg = stand_in_config(str(tmp_path), max_iter=0, log_period=0, seed="abc")
    with pytest.raises(ConfigError, match=r"^train\.max_iter=0 .* \(2 more: `detrex check` lists"):
        check_config(cfg)
