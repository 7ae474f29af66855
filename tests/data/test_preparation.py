"""A detector that answers the truth gets 100.0 on every data set that is accepted."""

import argparse
import logging
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from omegaconf import OmegaConf

from detrex.data.coco import inspection
from detrex.data.preparation import coco_sets, inspect_data, prepared_data
from detrex.data.tasks import masks_wanted
from detrex.engine import do_train, evaluate_only
from detrex.errors import ConfigError, DataError
from tests.reference import annotation_files as files
from tests.reference.annotation_files import Oracle, all_objects, config, write
from tests.reference.clean_logging import restored_loggers

ROOT = Path(__file__).resolve().parents[2]
RUN = argparse.Namespace(resume=False)
VARIANTS = files.VARIANTS


@pytest.fixture(autouse=True)
def _loggers():
    with restored_loggers():
        yield


@pytest.fixture
def name():
    unique = f"prepared_{uuid.uuid4().hex}"
    yield unique
    for side in ("_train", "_test"):
        for catalogue in (DatasetCatalog, MetadataCatalog):
            if unique + side in catalogue.list():
                catalogue.remove(unique + side)


def assert_perfect(metrics):
    assert metrics["bbox"]["AP"] == pytest.approx(100, abs=1e-6)
    assert metrics["bbox"]["AP50"] == pytest.approx(100, abs=1e-6)


@pytest.mark.parametrize("variant", VARIANTS)
def test_do_train__oracle(tmp_path, name, variant):
    folder = write(tmp_path / "data", **VARIANTS[variant])
    before = {side: (folder / f"{side}.json").read_bytes() for side in files.STEMS}
    assert_perfect(do_train(RUN, config(folder, name)))
    assert Oracle.seen == all_objects()
    assert sorted(Oracle.numbers.values()) == [0, 1, 2]
    assert before == {side: (folder / f"{side}.json").read_bytes() for side in files.STEMS}


def test_do_train__oracle_in_two_processes(tmp_path):
    """The first rank reads and mends for both, and the other opens no annotations at all."""
    variants = ["ids_from_0", "other_order", "left_out"]
    for variant in variants:
        write(tmp_path / variant, **VARIANTS[variant])
    command = [*("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")]
    command += ["-m", "tests.reference.annotation_files", str(tmp_path), *variants]
    command = [sys.executable, *command]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200)
    errors = set()
    for rank, values in enumerate(("[100.0, 100.0]", "[]")):
        *said, error, read = (tmp_path / f"rank{rank}.txt").read_text().splitlines()
        assert said == [f"{v} {values} 13 objects" for v in variants], run.stderr[-2000:]
        assert read == ("read []" if rank else "read ['test', 'train']")
        errors.add(error)
    assert len(errors) == 1
    assert errors.pop().startswith("error /dev/null is no regular file, expected annotations")


@pytest.mark.parametrize("other", [False, True], ids=["same order", "other order"])
def test_evaluate_only__oracle(tmp_path, name, other):
    folder = write(tmp_path / "data", **VARIANTS["other_order" if other else "ids_from_0"])
    assert_perfect(evaluate_only(RUN, config(folder, name)))
    copies = list((folder / "out" / "evaluation_annotations").iterdir())
    assert [copy.suffix for copy in copies] == [".json"]


def test_evaluate_only__without_the_training_annotations(tmp_path, name, caplog):
    folder = write(tmp_path / "data")
    (folder / "train.json").unlink()
    with caplog.at_level(logging.WARNING, logger="detrex"):
        assert_perfect(evaluate_only(RUN, config(folder, name)))
    assert "the test set's own order of classes is taken" in caplog.text


def test_evaluate_only__classes_are_numbered_as_the_checkpoint_has_them(tmp_path, name):
    folder = write(tmp_path / "data")
    (folder / "train.json").unlink()
    cfg = config(folder, name)
    names = [files.NAMES[i] for i in (2, 0, 1)]
    state = {"model": {"weight": torch.zeros(1)}, "class_names": names}
    torch.save(state, folder / "model.pth")
    cfg.train.init_checkpoint = str(folder / "model.pth")
    cfg.model.numbers = {0: 1, 1: 2, 2: 0}
    assert_perfect(evaluate_only(RUN, cfg))
    names[1] = "disc"
    torch.save(state, folder / "model.pth")
    with pytest.raises(
        DataError, match=r"has objects of 'Kreis', which .*model\.pth does not know"
    ):
        evaluate_only(RUN, cfg)


@pytest.mark.parametrize("evaluate", [False, True])
def test_prepared_data__an_error_comes_before_the_model(tmp_path, name, evaluate):
    def change(content):
        content["annotations"][3]["category_id"] = 9

    cfg = config(write(tmp_path / "data", test=change), name)
    Oracle.seen = None
    with pytest.raises(
        DataError, match=r"test\.json: .*annotation 704 of image 502 .*category_id 9"
    ):
        (evaluate_only if evaluate else do_train)(RUN, cfg)
    assert Oracle.seen is None


@pytest.mark.parametrize("masks", [True, False])
def test_prepared_data__masks_are_asked_for_by_the_mapper(tmp_path, name, masks):
    def change(content):
        content["annotations"][3]["segmentation"] = [[1, 2, 3, 4]]

    cfg = config(write(tmp_path / "data", train=change), name)
    cfg.dataloader.train.mapper.mask_on = masks
    assert masks_wanted(cfg) is masks
    with prepared_data(cfg):
        records = DatasetCatalog.get(f"{name}_train")
    assert sum(len(record["annotations"]) for record in records) == 13 - masks


def test_prepared_data__number_of_classes_against_the_model(tmp_path, name):
    cfg = config(write(tmp_path / "data"), name)
    cfg.model.num_classes = 4
    with (
        pytest.raises(ConfigError, match=r"has 3 categories .*set model\.num_classes=3"),
        prepared_data(cfg),
    ):
        pass


@pytest.mark.parametrize("side", files.STEMS)
def test_prepared_data__nothing_to_train_on_or_to_evaluate_against(tmp_path, name, side):
    def change(content):
        for annotation in content["annotations"]:
            annotation["iscrowd"] = 1

    cfg = config(write(tmp_path / "data", **{side: change}), name)
    use = {"train": "train on", "test": r"evaluate against.* set dataloader\.evaluator=null"}[side]
    with (
        pytest.raises(DataError, match=rf"{side}\.json: 1\d annotations, .* an object to {use}"),
        prepared_data(cfg),
    ):
        pass


def test_evaluate_only__images_without_annotations(tmp_path, name, caplog):
    folder = write(tmp_path / "data", test=lambda c: c.pop("annotations") and None)
    with caplog.at_level(logging.WARNING, logger="detrex"):
        assert evaluate_only(RUN, config(folder, name)) == {}
    assert "test.json has no annotations, so no AP is computed" in caplog.text


@pytest.mark.parametrize("skip", [False, True])
def test_prepared_data__missing_pictures_where_they_are_skipped(tmp_path, name, skip, caplog):
    folder = write(tmp_path / "data")
    (folder / "images" / "train1.png").unlink()
    cfg = config(folder, name)
    cfg.dataloader.on_bad_image = "skip" if skip else "error"
    if not skip:
        with (
            pytest.raises(DataError, match=r"1 of 5 pictures are not there \('train1.png'\)"),
            prepared_data(cfg),
        ):
            pass
        return
    with caplog.at_level(logging.WARNING, logger="detrex"), prepared_data(cfg):
        assert len(DatasetCatalog.get(f"{name}_train")) == 5
    assert caplog.text.count("pictures are not there") == 1


def test_prepared_data__a_mapper_of_ones_own_may_take_pictures_from_elsewhere(
    tmp_path, name, caplog
):
    folder = write(tmp_path / "data")
    (folder / "images" / "train1.png").unlink()
    cfg = config(folder, name)
    cfg.dataloader.train.mapper = {"_target_": "builtins.dict"}
    with caplog.at_level(logging.WARNING, logger="detrex"), prepared_data(cfg):
        pass
    assert "1 of 5 pictures are not there" in caplog.text


def test_prepared_data__sets_that_detectron2_registered(tmp_path, name):
    folder = write(tmp_path / "data", **VARIANTS["other_order"])
    cfg = config(folder, name)
    for side in files.STEMS:
        arguments = (str(folder / f"{side}.json"), str(folder / "images"))
        metadata = {"thing_classes": list(files.NAMES)} if side == "test" else {}
        register_coco_instances(f"{name}_{side}", metadata, *arguments)
        cfg.dataloader[side].dataset.names = f"{name}_{side}"
    assert_perfect(do_train(RUN, cfg))
    assert_perfect(evaluate_only(RUN, cfg))


def test_prepared_data__the_same_pictures_on_both_sides(tmp_path, name, caplog):
    folder = write(tmp_path / "data")
    cfg = config(folder, name)
    cfg.dataloader.test.dataset.names.json_file = str(folder / "train.json")
    with caplog.at_level(logging.WARNING, logger="detrex"), prepared_data(cfg):
        pass
    assert "5 of 5 pictures to evaluate on are trained on, too" in caplog.text


def test_inspect_data__reads_a_file_once_for_all_its_uses(tmp_path, name, monkeypatch):
    read = []
    original = inspection.read_document
    monkeypatch.setattr(
        inspection, "read_document", lambda path: read.append(path) or original(path)
    )
    cfg = config(write(tmp_path / "data"), name)
    with prepared_data(cfg):
        for side in files.STEMS:
            DatasetCatalog.get(f"{name}_{side}")
    assert len(read) == 2
    inspect_data(cfg)
    assert len(read) == 4


@pytest.mark.parametrize(
    "dataloader",
    [{}, {"train": []}, {"train": {"dataset": [1]}}, {"train": {"dataset": {"names": "nobody"}}}],
)
def test_coco_sets__others_are_left_alone(dataloader):
    assert coco_sets(OmegaConf.create({"dataloader": dataloader}), "train") == []
