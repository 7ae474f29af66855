"""What loaders do about pictures that cannot be read, with and without worker processes."""

import copy
import json
import logging
import os
import pickle
from itertools import islice

import numpy as np
import pytest
from detectron2.data import DatasetMapper, build_detection_test_loader, build_detection_train_loader
from detectron2.data import transforms as T
from detectron2.structures import BoxMode, polygons_to_bitmask
from PIL import Image

from detrex.data import DetrDatasetMapper, bad_pictures
from detrex.data.bad_pictures import BadPicture, MarkBadPictures, ReadableBatches, checked_policy
from detrex.data.demo.shapes import write_shapes_dataset
from detrex.data.loader import build_train_loader
from detrex.errors import ConfigError, PictureError

HEIGHT, WIDTH = 20, 30


@pytest.fixture
def records(tmp_path):
    """Six pictures; the third is cut short, and the fifth is of another size than recorded."""
    pixels = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    for number in range(6):
        picture = Image.fromarray(pixels[: HEIGHT - (number == 4)])
        picture.save(tmp_path / f"{number}.jpg", quality=95)
    (tmp_path / "2.jpg").write_bytes((tmp_path / "2.jpg").read_bytes()[:-300])
    size = {"height": HEIGHT, "width": WIDTH, "annotations": []}
    return [{"file_name": str(tmp_path / f"{n}.jpg"), "image_id": n, **size} for n in range(6)]


def mapper(is_train=True):
    return MarkBadPictures(DetrDatasetMapper([], None, is_train=is_train))


def d2_mapper(augmentations=(), **options):
    options = {"is_train": False, "image_format": "RGB"} | options
    return DatasetMapper(augmentations=list(augmentations), **options)


def train_batches(records, policy, count, num_workers=0, start=0, mapper=mapper):
    inner = build_train_loader(
        records, mapper(), total_batch_size=2, num_workers=num_workers, aspect_ratio_grouping=False
    )
    loader = ReadableBatches(inner, "dataloader.train", policy)
    loader.seek(start, seed=3)
    return loader, list(islice(loader, count))


def ids(batches):
    return [[sample["image_id"] for sample in batch] for batch in batches]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_train_loader__error_is_one_sentence_with_the_files_name(records, num_workers):
    with pytest.raises(PictureError) as caught:
        train_batches(records, "error", 6, num_workers)
    message = str(caught.value)
    assert "\n" not in message
    assert "2.jpg is truncated" in message or "4.jpg has 30 x 19 pixels" in message
    assert "dataloader.on_bad_image=skip goes on" in message


def test_train_loader__skip_draws_others_and_resumes_exactly(records, caplog):
    loader, batches = train_batches(records, "skip", 12)
    assert all(len(batch) == 2 for batch in batches)
    assert {i for batch in ids(batches) for i in batch} == {0, 1, 3, 5}
    assert {name[-5:] for name in loader.left_out} == {"2.jpg", "4.jpg"}
    # Four epochs of six: each bad picture came up once in each, and by chance when drawn anew.
    assert all(count >= 4 for count in loader.left_out.values())
    assert caplog.text.count("Left out: ") == 2
    _, resumed = train_batches(records, "skip", 5, start=7)
    assert ids(resumed) == ids(batches[7:])
    loader, parallel = train_batches(records, "skip", 12, num_workers=2)
    assert ids(parallel) == ids(batches)
    assert {name[-5:] for name in loader.left_out} == {"2.jpg", "4.jpg"}


@pytest.mark.parametrize("num_workers", [0, 1])
def test_train_loader__nothing_but_bad_pictures_ends(records, num_workers):
    with pytest.raises(PictureError, match=r"none of 100 pictures in a row .*2\.jpg is") as caught:
        train_batches([records[2]], "skip", 1, num_workers)
    assert "\n" not in str(caught.value)


def test_train_loader__detectron2s_own_leaves_smaller_batches(records):
    inner = build_detection_train_loader(
        records,
        mapper=MarkBadPictures(d2_mapper()),
        total_batch_size=6,
        num_workers=0,
    )
    loader = ReadableBatches(inner, "dataloader.train", "skip")
    batches = list(islice(loader, 4))
    assert {i for batch in ids(batches) for i in batch} == {0, 1, 3, 5}
    assert sum(loader.left_out.values()) + loader.kept == 24


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("batch_size", [1, 2, 4])
@pytest.mark.parametrize("make", [lambda: mapper(False), lambda: MarkBadPictures(d2_mapper())])
def test_test_loader__skip_counts_and_loses_nothing_else(
    records, caplog, num_workers, batch_size, make
):
    inner = build_detection_test_loader(
        records, mapper=make(), batch_size=batch_size, num_workers=num_workers
    )
    loader = ReadableBatches(inner, "dataloader.test", "skip")
    assert len(loader) == len(inner)
    for _ in range(2):  # two evaluations count each for itself
        caplog.clear()
        assert [i for batch in ids(loader) for i in batch] == [0, 1, 3, 5]
        loader.report("so be it")
        (line,) = [r.getMessage() for r in caplog.records if "on_bad_image" in r.getMessage()]
        assert "dataloader.test left out 2 picture(s) that cannot be used, 2 time(s) (" in line
        assert line.endswith("; so be it")
        assert "2.jpg" in line
        assert "4.jpg" in line


def test_test_loader__error_is_the_default(records):
    inner = build_detection_test_loader(records, mapper=mapper(False), num_workers=1)
    loader = ReadableBatches(inner, "dataloader.test")
    with pytest.raises(PictureError, match=r"2\.jpg is truncated") as caught:
        list(loader)
    assert "\n" not in str(caught.value)


def test_report__is_silent_where_all_is_well(records, caplog):
    inner = build_detection_test_loader([records[0]], mapper=mapper(False))
    loader = ReadableBatches(inner, "dataloader.test", "skip")
    list(loader)
    with caplog.at_level(logging.INFO):
        loader.report("so be it")
    assert "on_bad_image" not in caplog.text


def test_report__adds_up_the_processes_and_names_five(records, caplog, monkeypatch):
    loader = ReadableBatches([], "dataloader.test", "skip")

    def two_processes(mine):
        others = {f"{letter}.jpg": 3 for letter in "abcdef"}
        return [mine, (others, 7)]

    monkeypatch.setattr(bad_pictures.comm, "all_gather", two_processes)
    loader.left_out.update({"a.jpg": 1})
    loader.report("so be it")
    assert (
        "6 picture(s) that cannot be used, 19 time(s) (a.jpg, b.jpg, c.jpg, d.jpg, e.jpg, ...)"
        in (caplog.text)
    )


def test_report__an_evaluation_of_nothing_is_an_error(records):
    inner = build_detection_test_loader([records[2], records[4]], mapper=mapper(False))
    loader = ReadableBatches(inner, "dataloader.test", "skip")
    assert list(loader) == []
    with pytest.raises(PictureError, match=r"none of the 2 pictures of dataloader\.test .*2\.jpg"):
        loader.report("so be it")


def test_mark_bad_pictures__detectron2s_mapper_may_not_clip_16_bits(tmp_path):
    Image.new("I;16", (WIDTH, HEIGHT)).save(tmp_path / "wide.png")
    record = {"file_name": str(tmp_path / "wide.png"), "image_id": 7}
    marked = MarkBadPictures(d2_mapper())(record)
    assert isinstance(marked, BadPicture)
    assert "wide.png has more than 8 bits" in marked.error
    assert marked == record
    assert MarkBadPictures(DetrDatasetMapper([], None, False))(record)["image"].shape == (
        *(3, HEIGHT, WIDTH),
    )


def test_mark_bad_pictures__detectron2s_mapper_and_a_strip(tmp_path):
    Image.new("RGB", (3000, 1)).save(tmp_path / "strip.png")
    record = {"file_name": str(tmp_path / "strip.png"), "image_id": 7}
    for inner in (
        d2_mapper([T.ResizeShortestEdge(800, 1333)]),
        DetrDatasetMapper([T.ResizeShortestEdge(800, 1333)], None, False),
    ):
        marked = MarkBadPictures(inner)(record)
        assert "strip.png, 3000 x 1 pixels (width x height), cannot be augmented" in marked.error
        assert "\n" not in marked.error


def test_mark_bad_pictures__another_size_is_said_by_every_mapper(records):
    def broken(_):
        raise KeyError("mine")

    for inner in (d2_mapper(), DetrDatasetMapper([], None, False), broken):
        marked = MarkBadPictures(inner)(records[4])
        assert "4.jpg has 30 x 19 pixels (width x height), but its record says" in marked.error


@pytest.mark.parametrize("record", [{"image_id": 1}, None])
def test_mark_bad_pictures__a_mappers_own_fault_stays(records, record):
    def broken(_):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        MarkBadPictures(broken)(record or records[0])
    assert "2.jpg is truncated" in MarkBadPictures(broken)(records[2]).error


def test_mark_bad_pictures__missing_package_is_named(records):
    def needy(_):
        raise ModuleNotFoundError("No module named 'ocr'", name="ocr")

    with pytest.raises(ConfigError, match=r"the package ocr, .*pip install ocr\.$"):
        MarkBadPictures(needy)(records[0])


def test_mark_bad_pictures__detectron2s_mapper_crops_masks_with_or_without_shapely(tmp_path):
    json_file, images = write_shapes_dataset(tmp_path, 3, (61, 83), max_objects=4)
    content = json.loads(json_file.read_text())
    crop = T.CropTransform(20, 10, 40, 30)
    own = DetrDatasetMapper([crop], None, mask_on=True)
    for image in content["images"]:
        record = {**image, "file_name": str(images / image["file_name"])}
        record["annotations"] = [
            {**a, "bbox_mode": BoxMode.XYWH_ABS, "category_id": a["category_id"] - 1}
            for a in content["annotations"]
            if a["image_id"] == image["id"]
        ]
        theirs = d2_mapper([crop], use_instance_mask=True, is_train=True)
        masks = [
            [polygons_to_bitmask(p, 30, 40) for p in mapper(record)["instances"].gt_masks.polygons]
            for mapper in (own, MarkBadPictures(theirs))
        ]
        np.testing.assert_array_equal(*masks)


def test_bad_picture__goes_through_a_pipe(records):
    picture = BadPicture(records[2], PictureError("it is cut"))
    again = pickle.loads(pickle.dumps(picture))
    assert isinstance(again, BadPicture)
    assert again == picture
    assert again.error == "it is cut"


def test_readable_batches__is_its_loader_otherwise(records):
    loader, _ = train_batches(records[:2], "error", 1)
    assert loader.batch_size == 2
    assert loader.num_samples == 2
    assert getattr(loader, "absent", None) is None
    assert copy.copy(loader).key == "dataloader.train"


@pytest.mark.parametrize("value", ["skp", None, True, "errors"])
def test_checked_policy__names_what_there_is(value):
    with pytest.raises(ConfigError, match=r"dataloader\.on_bad_image=.* choose error .* or skip"):
        checked_policy(value)
    assert checked_policy("skip") == "skip"


@pytest.mark.parametrize("key", ["file_name", "sem_seg_file_name"])
def test_mark_bad_pictures__detectron2s_mapper_waits_for_no_pipe(tmp_path, key):
    os.mkfifo(tmp_path / "pipe.png")
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "a.png")
    record = {"file_name": str(tmp_path / "a.png"), key: str(tmp_path / "pipe.png")}
    marked = MarkBadPictures(DatasetMapper(is_train=True, augmentations=[], image_format="BGR"))
    assert "pipe.png is no regular file" in marked(record).error
