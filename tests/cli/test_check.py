import json
import logging
import re

import pytest

from detrex.cli import main
from detrex.config.config import configs_root
from detrex.data.demo.shapes import write_shapes_dataset

SHAPES = str(configs_root() / "dino" / "demo_shapes.py")


@pytest.fixture
def _data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("train", "val"):
        write_shapes_dataset(tmp_path / "data" / name, 3, (32, 48), seed=len(name))


@pytest.mark.usefixtures("_data")
def test_check__clean_config(capsys):
    assert main(["check", SHAPES, "dataloader.folder=data", "--size", "64x96"]) == 0
    text = capsys.readouterr().out
    assert text.endswith("no mistakes found\n")
    assert "res3      64 channels  stride 8" in text
    assert "GFLOPs forward" in text


@pytest.mark.usefixtures("_data")
def test_check__data_card_and_mistakes_of_the_data(tmp_path, capsys):
    file = tmp_path / "data" / "train" / "annotations.json"
    content = json.loads(file.read_text())
    content["annotations"][0]["bbox"] = [1, 2, 3]
    file.write_text(json.dumps(content))
    words = ["check", SHAPES, "dataloader.folder=data", "--size", "64x96"]
    assert main([*words, "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    (finding,) = told["findings"]
    assert "train/annotations.json: in 1 of" in finding
    assert "bbox is not four numbers" in finding
    (card,) = told["data"]
    assert (card["side"], card["images"]) == ("test", 3)
    del content["annotations"][0]["area"], content["annotations"][0]["bbox"]
    content["annotations"] = content["annotations"][1:]
    file.write_text(json.dumps(content))
    assert main(words) == 0
    assert "train        test\n" in capsys.readouterr().out


@pytest.mark.usefixtures("_data")
def test_check__lists_all_mistakes_at_once(tmp_path, capsys):
    (tmp_path / "taken").write_text("")
    status = main(
        [
            *("check", SHAPES, "--json", "--size", "64x96", "dataloader.folder=elsewhere"),
            *("model.backbone.out_featurs=[res3]", "model.num_queries=many", "train.max_itr=3"),
            *("train.output_dir=taken", "train.init_checkpoint=absent.pth"),
        ]
    )
    findings = "\n".join(json.loads(capsys.readouterr().out)["findings"])
    assert status == 1
    for part in (
        "no 'out_featurs'. Did you mean 'out_features'",
        "no 'max_itr'. Did you mean 'max_iter'",
        "model.num_queries of DINO() must be int, got 'many'",
        "train.output_dir taken cannot be a folder",
        "train.init_checkpoint is 'absent.pth', which does not exist",
        "elsewhere/train/annotations.json, which does not exist",
        "elsewhere/val/images, which does not exist",
    ):
        assert part in findings


def test_check__misspelt_keyword_of_a_wrapper(capsys):
    config = str(configs_root() / "dino" / "timm_example.py")
    words = ["check", config, "model.backbone.model_nme=resnet50", "--size", "64x96"]
    assert main([*words, "model.backbone.model_name=test_resnet"]) == 1
    text = capsys.readouterr().out
    assert "no 'model_nme'. Did you mean 'model_name'" in text
    assert "model.backbone.pretrained=True is left out" in text


@pytest.mark.parametrize(
    "text", ["model=5", "model=null", "dataloader=null", "train=[]", "optimizer=null", "model=[]"]
)
@pytest.mark.usefixtures("_data")
def test_check__parts_that_are_none(text, capsys):
    assert main(["check", SHAPES, "dataloader.folder=data", "--size", "64x96", text]) == 1
    assert re.search(
        rf"\d\. (the config has no )?'?{text.partition('=')[0]}", capsys.readouterr().out
    )


@pytest.mark.usefixtures("_data")
def test_check__remarks_are_no_mistakes(capsys):
    words = ["check", SHAPES, "dataloader.folder=data", "--size", "64x96", "+train.max_itr=3"]
    assert main(words) == 0
    text = capsys.readouterr().out
    assert "remarks\n  train.max_itr is no key that a run reads. Did you mean 'max_iter'?" in text
    assert main([*words, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["remarks"]) == 1


def test_check__remarks_on_images_that_the_weights_do_not_expect(tmp_path, capsys):
    config = tmp_path / "config.py"
    config.write_text(
        "from detrex.config import get_detectron2_config\n"
        "from detrex.modeling.backbone import TimmBackbone\n"
        "model = get_detectron2_config('common/models/fcos.py').model\n"
        "model.backbone.bottom_up = dict(\n"
        "    _target_=TimmBackbone, model_name='test_resnet', pretrained=True,\n"
        "    out_features=['res3', 'res4', 'res5'],\n)\n"
    )
    main(["check", str(config), "--size", "64x64", "--json"])
    (remark,) = json.loads(capsys.readouterr().out)["remarks"]
    assert "the weights of TimmBackbone expect [127.5, 127.5, 127.5]" in remark
    main(["check", str(config), "--size", "64x64", "--json", "model.pixel_mean=auto"])
    told = json.loads(capsys.readouterr().out)
    assert told["remarks"] == []
    assert not any("pixel_mean" in finding for finding in told["findings"])


def test_check__size_follows_the_overrides(capsys):
    config = str(configs_root() / "dino" / "timm_example.py")
    mapper = "dataloader.train.mapper"
    resize = f"{mapper}.augmentation.1"
    words = [f"{resize}.short_edge_length=[96]", f"{resize}.max_size=128"]
    words += [f"{mapper}.augmentation_with_crop=null", "model.backbone.model_name=test_resnet"]
    main(["check", config, *words])
    assert "for an image of 96 x 128" in capsys.readouterr().out


MASK_RCNN = """
from detectron2.config import LazyCall as L
from detrex.config import get_config, get_detectron2_config

dataloader = get_config("common/data/shapes.py").dataloader
dataloader.folder = "data"
optimizer = get_detectron2_config("common/optim.py").SGD
lr_multiplier = get_detectron2_config("common/coco_schedule.py").lr_multiplier_1x
train = get_detectron2_config("common/train.py").train
train.device = "cpu"
model = get_detectron2_config("common/models/mask_rcnn_fpn.py").model
model.roi_heads.num_classes = 3
model.backbone.bottom_up.freeze_at = 2
dataloader.train.mapper.mask_on = True
"""


@pytest.mark.usefixtures("_data")
def test_check__detector_of_detectron2(tmp_path, capsys):
    config = tmp_path / "config.py"
    config.write_text(MASK_RCNN)
    assert main(["check", str(config), "--size", "65x97"]) == 0
    text = capsys.readouterr().out
    assert "frozen: bottom_up.stem, bottom_up.res2; 222,400 of 26,799,296 parameters" in text
    assert "images are padded to 96 x 128" in text
    assert "left out: nothing is fetched" not in text
    assert main(["check", str(config), "--size", "65x97", "model.backbone.out_channels=64"]) == 1
    assert "model.proposal_generator: " in capsys.readouterr().out
    assert main(["check", str(config), "--size", "65x97", "model=5"]) == 1
    assert "model=5 cannot be used" in capsys.readouterr().out


def test_check__config_that_is_not_there(capsys):
    assert main(["check", SHAPES.replace("shapes", "shaps")]) == 1
    assert "does not exist. Did you mean 'demo_shapes.py'" in capsys.readouterr().err
    assert logging.getLogger("detrex").isEnabledFor(logging.WARNING)


def test_check__bad_size(capsys):
    with pytest.raises(SystemExit) as error:
        main(["check", SHAPES, "--size", "wide"])
    assert error.value.code == 2
    assert "--size expects e.g. 800x1333" in capsys.readouterr().err
