import sys

import pytest
import torch

from detrex.config.trust import check_named, locate_trusted
from detrex.errors import ConfigError

# Of trusted packages, and able to run or write what a config names, or to hand out what does.
UNFIT = (
    *("detrex.data.stored_records.StoredRecords", "detrex.data.shards.ShardRecords"),
    *("detrex.data.stored_records.store", "detrex.data.tars.samples_of"),
    *("torch.load", "torch.save", "torch.hub.load", "torch.jit.load", "torch.compile"),
    "torch.from_file",
    "torch.ops.load_library",
    "torch.distributed.run.main",
    "torch.Tensor.numpy",
    "torch.utils.cpp_extension.load",
    "torch.utils.collect_env.run",
    "torch.serialization.os.popen",
    *("torch.nn.Linear.__class__", "torch.nn.Linear.__init__.__globals__.get", "torch.fx.wrap"),
    *("torch.nn.parallel.distributed.os.system", "torch.nn.modules.module.warnings.warn"),
    *("torch.package.PackageImporter", "torch.multiprocessing.spawn", "torch.library.Library"),
    *("torch.utils.data.datapipes.utils.decoder.basichandlers", "torch._C.import_ir_module"),
    *("torchvision.io.write_file", "torchvision.utils.save_image", "timm.models.push_to_hf_hub"),
    *("timm.models.load_checkpoint", "timm.models.resnet.partial", "timm.data.create_dataset"),
    *("timm.optim._optim_factory._import_class", "timm.models._hub.os.system"),
    *("detectron2.config.LazyConfig.load", "detectron2.config.instantiate"),
    *("detectron2.utils.registry.locate", "detectron2.utils.file_io.PathManager.rm"),
    *("detectron2.data.MetadataCatalog.get", "detectron2.modeling.BACKBONE_REGISTRY.get"),
    *("detectron2.data.build.load_proposals_into_dataset", "detectron2.engine.launch"),
    *("detectron2.modeling.mmdet_wrapper.MMDetBackbone", "fvcore.common.config.CfgNode"),
    *("detrex.config.load_config", "detrex.files.write_atomically", "detrex.config.trust.locate"),
)


@pytest.mark.parametrize(
    "name",
    [
        *("torch.nn.GroupNorm", "torch.nn.functional.relu", "torch.relu", "torch.optim.AdamW"),
        *("torchvision.ops.MLP", "timm.create_model", "detectron2.layers.ShapeSpec"),
        *("detrex.modeling.dino.DINO", "fvcore.common.param_scheduler.CosineParamScheduler"),
        *("builtins.dict", "detrex.modeling.backbone.ResNet.make_default_stages"),
        *("torch.nn.functional.gelu", "torch.nn.functional.max_pool2d", "torch.optim.AdamW"),
        "torch.nn.init.xavier_uniform_",
        "torch.device",
        "torch.einsum",
        "torch.nn.functional.silu",
        "torchvision.models.resnet50",
        "torchvision.models.get_model",
        "torchvision.datasets.ImageNet",
        *("torchvision.transforms.v2.Resize", "timm.layers.LayerNorm2d", "timm.models.resnet50"),
        *("timm.models._factory.create_model", "timm.optim.Lion", "timm.data.transforms.ToNumpy"),
        *("detectron2.data.build_detection_train_loader", "detectron2.data.DatasetMapper"),
        *("detectron2.data.transforms.ResizeShortestEdge", "detectron2.evaluation.COCOEvaluator"),
        "detectron2.data.detection_utils.create_keypoint_hflip_indices",
        "detectron2.solver.get_default_optimizer_params",
        "detectron2.solver.WarmupParamScheduler",
        "detectron2.modeling.GeneralizedRCNN",
        "detectron2.modeling.backbone.fpn.LastLevelMaxPool",
        *("detectron2.modeling.meta_arch.fcos.FCOSHead", "detectron2.layers.FrozenBatchNorm2d"),
        *("detrex.data.loader.build_train_loader", "detrex.data.DetrDatasetMapper"),
        *("detrex.data.datasets.register_coco_json", "detrex.data.transforms.RandomRotate90"),
        "detrex.data.shards.shard_records",
        *("detrex.data.demo.photographs.fetch_mobilenet_v2_weights", "detrex.layers.LayerNorm"),
        *("detrex.config.optim.backbone_lr_factor", "detrex.modeling.backbone.TimmBackbone"),
        "detrex.modeling.backbone.training.layer_decay.get_layer_decay_params",
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
        ("torch.__version__", "is a TorchVersion, which cannot be called.$"),
        ("torch.optim.sgd", "is a module, .*Did you mean .*'torch.optim.sgd.SGD'"),
        ("torch.nn.functional", "is a module, which cannot be called.$"),
        ("${train.device}", "expected the name of a class"),
        (3, "expected the name of a class"),
        (["os.system"], "expected the name of a class"),
        ("torch..nn", "expected the name of a class"),
        # From Python 3.13 on a module goes before the function by which its package hides it.
        *((name, "is refused|is a module, which cannot be called") for name in UNFIT),
    ],
)
def test_locate_trusted__refuses(name, message):
    with pytest.raises(ConfigError, match=message) as info:
        locate_trusted(name, "model._target_")
    assert str(info.value).startswith("model._target_=")
    assert "\n" not in str(info.value)
    assert len(str(info.value)) < 500


@pytest.mark.parametrize("trusted", [["torch.serialization"], ["torch"], ["os", "torch"]])
def test_locate_trusted__what_the_user_trusts(trusted):
    assert locate_trusted("torch.load", "model._target_", trusted) is torch.load
    with pytest.raises(ConfigError, match=r"'torch\.os\.system' is refused"):
        locate_trusted("torch.os.system", "model._target_", trusted)


def test_locate_trusted__a_package_of_the_user(tmp_path, monkeypatch):
    (tmp_path / "package_of_mine.py").write_text("import os\nclass Neck: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match="add --trust PACKAGE"):
        locate_trusted("package_of_mine.Neck", "model._target_")
    assert "package_of_mine" not in sys.modules
    neck = locate_trusted("package_of_mine.Neck", "model._target_", ["package_of_mine"])
    assert neck.__name__ == "Neck"
    with pytest.raises(ConfigError, match="is refused"):
        locate_trusted("package_of_mine.os.system", "model._target_", ["package_of_mine"])


@pytest.mark.parametrize(
    "value",
    [
        {"a": [{"b": {"_target_": "os.system"}}]},
        {"_target_": {"_target_": "torch.nn.GELU"}},
        {"a": "${oc.create:{_target_:os.system}}"},
        {"a": "x ${oc.decode:${b}}"},
        {"a": "${${b}:{_target_:os.system}}"},
        {"a": "${oc.env:X,${oc.create:{_target_:os.system}}}"},
        {"a": "${oc.select:absent,{_target_:os.system}}"},
        {"a": "${oc.select:absent,[{_target_:os.system}]}"},
        {"a": {"proposal_files": ["proposals.pkl"]}},
    ],
)
def test_check_named__finds_it_anywhere(value):
    with pytest.raises(ConfigError):
        check_named(value)


def test_check_named__an_override_of_a_part_is_found():
    with pytest.raises(ConfigError, match="is read by pickle"):
        check_named("proposals.pkl", "dataloader.train.dataset.proposal_files.0")


def test_check_named__takes_the_rest():
    check_named({"a": "${b.c}", "b": "${oc.env:HOME,null}", "c": [{"_target_": "torch.nn.GELU"}]})
    check_named("${a", "an unfinished reference is no call")
    check_named({"proposal_files": []})


def test_check_named__below_a_target():
    with pytest.raises(ConfigError):
        check_named("os.system", "model._target_.name")
