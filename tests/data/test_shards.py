"""Records from shards: whole, in an order of their own, resumed as any others."""

import json
import pickle
from itertools import islice

import numpy as np
import pytest
from detectron2.structures import BoxMode

from detrex.data import DetrDatasetMapper
from detrex.data.loader import TrainLoader, build_train_loader
from detrex.data.pictures import read_image
from detrex.data.shards import shard_records
from detrex.errors import ConfigError, DataError
from tests.reference.tar_files import picture, record, write_shards, write_tar

NAMES = ["round", "square", "other"]
COUNTS = [3, 1, 5, 2, 4]


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("shards"), COUNTS)


def test_shard_records__in_detectron2s_format(shards):
    records = shard_records(shards, NAMES)
    assert len(records) == sum(COUNTS)
    for number, found in enumerate(records):
        assert (read_image(found.pop("file_name")) == picture(number)[0]).all()
        box = {"bbox": [1, 2, 3 + number % 5, 4], "bbox_mode": BoxMode.XYWH_ABS, "iscrowd": 0}
        annotations = [{**box, "category_id": 1 + number % 2}]
        size = {"height": 20, "width": 30}
        assert found == {**size, "image_id": number, "annotations": annotations}


def test_shard_records__categories_of_a_coco_file(shards, tmp_path):
    categories = [{"id": i, "name": n} for i, n in ((7, "c"), (2, "b"), (1, "a"))]
    file = tmp_path / "val.json"
    file.write_text(json.dumps({"images": [], "annotations": [], "categories": categories}))
    records = shard_records(shards, str(file), num_classes=3)
    assert {a["category_id"] for r in records for a in r["annotations"]} == {0, 1}
    with pytest.raises(ConfigError, match=r"has 3 categories \(a, b, c\), but the model is for 80"):
        shard_records(shards, str(file), num_classes=80)


def test_shard_records__names_of_files(shards):
    star = shards.replace("{00..04}", "*")
    one = shards.replace("{00..04}", "03")
    assert len(shard_records(star, NAMES)) == sum(COUNTS)
    assert len(shard_records([one, one], NAMES)) == 2 * COUNTS[3]
    for absent in ("nowhere-*.tar", "nowhere.tar", []):
        with pytest.raises(DataError, match=r"no such file in .*expected shards"):
            shard_records(absent, NAMES)


def test_shard_records__images_without_objects(tmp_path):
    crowd = {"bbox": [1, 1, 5, 5], "category_id": 0, "iscrowd": 1}
    members = {}
    for number, annotations in enumerate([[], [crowd], [{**crowd, "iscrowd": 0}]]):
        members[f"{number}.png"] = b""
        members[f"{number}.json"] = record(number, annotations=annotations)
    path = str(write_tar(tmp_path / "a.tar", members))
    assert [r["image_id"] for r in shard_records(path, NAMES)] == [2]
    assert len(shard_records(path, NAMES, filter_empty=False)) == 3
    empty = str(write_tar(tmp_path / "b.tar", {"a.png": b"", "a.json": record(0, annotations=[])}))
    with pytest.raises(DataError, match=r"b\.tar.*no image with an object to train on"):
        shard_records(empty, NAMES)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"{", "Expecting property name"),
        (b"[]", "list indices"),
        (b"\xff", "decode"),
        (b"[" * 10**5, "recursion"),
        ({"width": 3, "height": 3}, "no 'annotations'"),
        (record(0, width="30"), "width and height are '30', 20"),
        (record(0, height=-1), "width and height are 30, -1"),
        (record(0, annotations=[{"category_id": 1}]), "no 'bbox'"),
        (record(0, annotations=[{"bbox": [1, 2, 3], "category_id": 1}]), "four finite numbers"),
        (record(0, annotations=[{"bbox": [1, 2, 3, "x"], "category_id": 1}]), "real number"),
        (record(0, annotations=[{"bbox": [1, 2, 3, 4], "category_id": 9}]), "one of 0, 1, 2"),
        (record(0, annotations=[{"bbox": [1, 2, 3, 4], "category_id": True}]), "is true"),
    ],
)
@pytest.mark.parametrize("shards", [1, 2])
def test_shard_records__a_damaged_record_is_named(tmp_path, content, reason, shards):
    for number in range(shards):
        members = {"good.png": b"", "good.json": record(0), "bad.png": b"", "bad.json": content}
        write_tar(tmp_path / f"{number}.tar", members)
    with pytest.raises(DataError, match=rf"0\.tar: 'bad' is no record .*{reason}.*\)") as caught:
        shard_records(f"{tmp_path}/*.tar", NAMES)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("mixed", [1, 2, 16])
def test_epoch_order__few_shards_at_a_time(shards, mixed):
    records = shard_records(shards, NAMES, mixed=mixed)
    shard = np.repeat(np.arange(len(COUNTS)), COUNTS)
    orders = [records.epoch_order(3, epoch) for epoch in (0, 1)]
    for order in orders:
        assert sorted(order.tolist()) == list(range(sum(COUNTS)))
        runs = [s for i, s in enumerate(shard[order]) if i == 0 or s != shard[order][i - 1]]
        assert (len(runs) == len(COUNTS)) == (mixed == 1)
    assert orders[0].tolist() != orders[1].tolist()
    again = pickle.loads(pickle.dumps(records))
    assert (again.epoch_order(3, 1) == orders[1]).all()
    assert list(again) == list(records)


@pytest.mark.parametrize("grouping", [False, True])
def test_train_loader__ranks_share_shards_and_resume(shards, grouping):
    """Against a plain loop over the order of each epoch."""
    records = shard_records(shards, NAMES, mixed=2)
    total, seen = len(records), []
    for rank in (0, 1):
        options = {"batch_size": 2, "rank": rank, "world_size": 2}
        loader = TrainLoader(records, None, aspect_ratio_grouping=grouping, **options)
        stream = [(e * total + i, k) for e in range(6) for i, k in enumerate(_order(records, e))]
        mine = stream[rank::2]
        plain = [mine[i : i + 2] for i in range(0, 40, 2)]
        assert list(islice(loader.sample_keys(5), 20)) == plain
        loader.seek(9, seed=5)
        assert list(islice(loader._order.batches(5, 9), 3)) == plain[9:12]
        seen += [index for batch in plain[:4] for _, index in batch]
    assert len(seen) > len(set(seen)) == total


def _order(records, epoch):
    return records.epoch_order(5, epoch).tolist()


def test_build_train_loader__the_usual_mapper_reads_them(shards):
    batches = []
    for workers in (0, 2):
        loader = build_train_loader(
            shard_records(shards, NAMES),
            DetrDatasetMapper([], None, is_train=True),
            total_batch_size=3,
            num_workers=workers,
        )
        loader.seek(2, seed=1)
        batches.append(list(islice(loader, 4)))
    for one, other in zip(*batches, strict=True):
        for sample, same in zip(one, other, strict=True):
            expected = picture(sample["image_id"])[0].transpose(2, 0, 1)
            assert (sample["image"].numpy() == expected).all()
            assert sample["image_id"] == same["image_id"]
            assert (sample["instances"].gt_boxes.tensor[:, :2].numpy() == [1, 2]).all()


def test_shard_records__shards_that_webdataset_wrote(tmp_path):
    webdataset = pytest.importorskip("webdataset")
    path = str(tmp_path / "a.tar")
    with webdataset.TarWriter(path) as writer:
        for number in range(3):
            sample = {"png": picture(number)[1], "json": record(number), "pyd": {"a": 1}}
            writer.write({"__key__": f"{number:04d}", **sample})
    records = shard_records(path, NAMES)
    assert [found["image_id"] for found in records] == [0, 1, 2]
    assert (read_image(records[2]["file_name"]) == picture(2)[0]).all()
