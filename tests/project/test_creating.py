import json
import shutil
from pathlib import Path

import pytest
import torch
from detectron2.config import instantiate
from detectron2.data import DatasetCatalog
from detectron2.utils.events import EventStorage

from detrex.cli.data_card import inspect_data_sets
from detrex.config import load_config
from detrex.errors import BackboneError, ConfigError, DataError, RunError
from detrex.project import create_project
from tests.project.labelled import coco, voc, voc_object, voc_xml, yolo
from tests.reference.unregistered import unregistered

pytest.importorskip("supervision")

BOX = "0 0.5 0.5 0.25 0.4\n"
OUTLINE = "1 0.1 0.1 0.6 0.1 0.6 0.9 0.2 0.7\n"
SMALL = {"backbone": "resnet10t", "weights": "none", "size": 64}


@pytest.fixture(autouse=True)
def forgotten():
    """Data sets that a test registers are forgotten after it."""
    with unregistered():
        yield


def files_below(folder):
    return {p: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def tiny(model):
    if "transformer" in model:
        model.transformer.encoder.num_layers = model.transformer.decoder.num_layers = 1
        model.num_queries = model.select_box_nums_for_evaluation = 20
    if "roi_heads" in model:
        model.roi_heads.batch_size_per_image = 8
        model.proposal_generator.update(pre_nms_topk=(20, 20), post_nms_topk=(10, 10))
    return model


@pytest.mark.parametrize("detector", ["dino", "mask_rcnn", "retinanet", "fcos"])
def test_create_project__takes_a_step_of_training(tmp_path, detector):
    labels = {"train/a": OUTLINE, "train/b": None, "train/c": "", "val/d": OUTLINE}
    source = yolo(tmp_path / "data", labels)
    before = files_below(source)
    project = create_project(tmp_path / f"my_{detector}", source, detector=detector, **SMALL)
    assert files_below(source) == before
    assert sorted(p.name for p in project.folder.iterdir()) == [
        "config.py",
        "train.json",
        "val.json",
    ]
    cfg = load_config(project.config)
    cards, mistakes = inspect_data_sets(cfg)
    assert mistakes == []
    assert [(c.images, c.empty_images, c.objects) for c in cards] == [(3, 2, 1), (1, 0, 1)]
    cfg.train.device = "cpu"
    model = instantiate(tiny(cfg.model)).train()
    cfg.dataloader.train.num_workers = 0
    batch = next(iter(instantiate(cfg.dataloader.train)))
    assert len(batch) == project.schedule.batch_size
    mapper = instantiate(cfg.dataloader.train.mapper)
    records = DatasetCatalog.get(f"my_{detector}_train")
    for some in (records, [r for r in records if not r["annotations"]]):
        with EventStorage():
            losses = model([mapper(record) for record in some])
        sum(losses.values()).backward()
        assert all(torch.isfinite(loss) for loss in losses.values())


@pytest.mark.parametrize("form", ["coco", "yolo", "voc"])
def test_create_project__holds_pictures_back(tmp_path, form):
    source = {
        "coco": lambda root: coco(root, 10),
        "yolo": lambda root: yolo(root, dict.fromkeys("abcdefghij", BOX)),
        "voc": lambda root: voc(
            root, dict.fromkeys("abcdefghij", voc_xml(voc_object("cat", (1, 1, 9, 9))))
        ),
    }[form](tmp_path / "data")
    found = []
    for folder in ("first", "second")[: 2 if form == "yolo" else 1]:
        project = create_project(tmp_path / folder, source, detector="fcos", **SMALL)
        assert project.form == form
        no_gpu = [note for note in project.notes if "no GPU here, and " in note]
        assert len(no_gpu) == (0 if torch.cuda.is_available() else 1)
        assert any("2 of 10 pictures are held back" in note for note in project.notes)
        texts = [(project.folder / name).read_text() for name in ("train.json", "val.json")]
        names = [[i["file_name"] for i in json.loads(text)["images"]] for text in texts]
        assert [len(part) for part in names] == [8, 2]
        assert not set(names[0]) & set(names[1])
        assert inspect_data_sets(load_config(project.config))[1] == []
        found.append(texts)
    assert found[0] == found[-1]


@pytest.mark.parametrize("form", ["coco", "yolo", "voc"])
def test_create_project__what_was_mended_is_told_of_pictures_that_are_divided(tmp_path, form):
    root = tmp_path / "data"
    if form == "coco":
        source = coco(root)
        content = json.loads(source.read_text())
        content["annotations"][1]["bbox"] = [100, 100, 5, 5]
        source.write_text(json.dumps(content))
    elif form == "yolo":
        source = yolo(root, {"a": BOX, "b": BOX, "c": BOX + BOX.replace("0.25", "0")})
    else:
        good, bad = (voc_xml(voc_object("cat", (n, 1, n + 5, 9))) for n in (1, 100))
        source = voc(root, {"a": good, "b": good, "c": bad})
    project = create_project(tmp_path / "p", source, detector="fcos", **SMALL)
    told = [note for note in project.notes if note.startswith("mended: ")]
    assert len(told) == 1
    assert told[0].startswith(f"mended: {source}: in 1 of ")
    assert "left out of training and evaluation" in told[0]


def test_create_project__annotations_are_read_once(tmp_path, monkeypatch):
    reads = []
    read_bytes = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda file: (reads.append(file), read_bytes(file))[1])
    files = [coco(tmp_path / "a"), coco(tmp_path / "b")]
    create_project(tmp_path / "p", files[0], val=files[1], detector="fcos", **SMALL)
    create_project(tmp_path / "q", files[0], detector="fcos", **SMALL)
    assert [f for f in reads if f.suffix == ".json"] == [*files, files[0]]


@pytest.mark.parametrize("named", ["empty", "link", "."])
def test_create_project__into_an_empty_folder_that_is_there(tmp_path, monkeypatch, named):
    source = coco(tmp_path / "data")
    folder = tmp_path / "empty"
    folder.mkdir()
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.chdir(folder if named == "." else tmp_path)
    before = folder.stat().st_ino
    create_project(named, source, detector="fcos", **SMALL)
    assert folder.stat().st_ino == before
    assert sorted(p.name for p in folder.iterdir()) == ["config.py", "train.json", "val.json"]
    assert len(list(tmp_path.iterdir())) == 3
    assert inspect_data_sets(load_config(folder / "config.py"))[1] == []


@pytest.mark.parametrize(
    ("keywords", "told", "untold"),
    [
        ({"detector": "dino"}, ["leave out --weights none", "take --detector fcos"], []),
        ({"detector": "dino", "size": 256}, ["trial, --detector fcos, --size 128, --ep"], []),
        (
            {"detector": "fcos"},
            ["leave out --weights none", "trial, --epochs 5"],
            ["fcos", "--size"],
        ),
        (
            {"detector": "fcos", "backbone": "cs3darknet_s"},
            ["take one of `detrex backbones --pretrained`"],
            [],
        ),
        ({"detector": "dino", "weights": "auto"}, ["trial, --detector fcos"], ["random weights"]),
    ],
)
def test_create_project__says_what_is_slow_and_helps(tmp_path, monkeypatch, keywords, told, untold):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    source = coco(tmp_path / "data")
    notes = create_project(tmp_path / "p", source, **{**SMALL, **keywords}).notes
    text = "\n".join(note for note in notes if "trial" in note or "random weights" in note)
    assert all(part in text for part in told)
    assert not any(part in text for part in untold)


def test_create_project__pictures_of_training_among_those_of_validation(tmp_path):
    file = coco(tmp_path / "data")
    content = json.loads(file.read_text())
    content["images"], content["annotations"] = (
        content["images"][1:],
        content["annotations"][1:],
    )
    part = file.with_name("val.json")
    part.write_text(json.dumps(content))
    project = create_project(tmp_path / "p", file, val=part, detector="fcos", **SMALL)
    told = [note for note in project.notes if "are trained on, too" in note]
    assert len(told) == 1
    assert told[0].startswith("3 of 3 pictures for validation are trained on, too, such as ")
    held = create_project(tmp_path / "q", file, detector="fcos", **SMALL)
    assert not any("trained on, too" in note for note in held.notes)


def test_create_project__inside_of_its_data(tmp_path):
    source = yolo(tmp_path / "data", {"a": BOX, "b": BOX, "empty": BOX.replace("0.25", "0")})
    first = create_project(source / "my", source, detector="fcos", **SMALL)
    shutil.copy(source / "images" / "a.png", first.folder / "drawn.png")
    second = create_project(source / "again", source, detector="fcos", **SMALL)
    texts = [(p.folder / "train.json").read_text() for p in (first, second)]
    assert texts[0] == texts[1], "what lies in a project is not taken for data"
    with pytest.raises(DataError, match="take --detector dino"):
        create_project(tmp_path / "x", source, detector="mask_rcnn", **SMALL)


def test_create_project__may_be_moved(tmp_path):
    source = coco(tmp_path / "data")
    create_project(tmp_path / "a", source, detector="fcos", **SMALL)
    shutil.move(tmp_path / "a", tmp_path / "b")
    cfg = load_config(tmp_path / "b" / "config.py")
    assert cfg.train.output_dir == str(tmp_path / "b" / "output")
    assert inspect_data_sets(cfg)[1] == []


@pytest.mark.parametrize("kept", ["config.py", "thesis.txt"])
def test_create_project__overwrites_nothing(tmp_path, kept):
    source = coco(tmp_path / "data")
    (tmp_path / "my").mkdir()
    (tmp_path / "my" / kept).write_text("mine")
    before = files_below(tmp_path)
    with pytest.raises(ConfigError, match=r"my is (a project|there) already"):
        create_project(tmp_path / "my", source, **SMALL)
    assert files_below(tmp_path) == before


@pytest.mark.parametrize(
    ("keywords", "error", "told"),
    [
        ({"detector": "yolo"}, ConfigError, "no detector 'yolo': expected dino, mask_rcnn"),
        ({"detector": "retinanett"}, ConfigError, "Did you mean 'retinanet'"),
        ({"backbone": "resnet5"}, BackboneError, "Did you mean"),
        ({"detector": "mask_rcnn"}, DataError, "take --detector dino, retinanet or fcos"),
        ({"size": 3}, ConfigError, "size is a whole number"),
    ],
)
def test_create_project__mistake_leaves_nothing(tmp_path, keywords, error, told):
    source = yolo(tmp_path / "data", {"a": BOX, "b": BOX})
    with pytest.raises(error, match=told) as caught:
        create_project(tmp_path / "deep" / "my", source, **{**SMALL, **keywords})
    assert "unfinished" not in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["data"], "nor the folders above it"


def test_create_project__where_nothing_can_be_written(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RunError, match=r"file/project cannot be written \(.*make room, or name"):
        create_project(tmp_path / "file" / "project", coco(tmp_path / "data"), weights="none")


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        ({"a": ""}, r"data: 0 annotations, and none is an object to train on"),
        ({"a": BOX, "b": ""}, r"objects are in 1 of 2 pictures.*--val"),
        ({"train/a": BOX, "val/b": ""}, r"data: 0 annotations, and none .* evaluate"),
    ],
)
def test_create_project__too_little_data(tmp_path, labels, told):
    source = yolo(tmp_path / "data", labels)
    with pytest.raises(DataError, match=told):
        create_project(tmp_path / "my", source, **SMALL)


def test_create_project__damaged_annotations_are_named(tmp_path):
    file = coco(tmp_path / "data")
    content = json.loads(file.read_text())
    content["annotations"][1]["category_id"] = 9
    file.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"data/annotations\.json: in 1 of 4 annotations"):
        create_project(tmp_path / "my", file, **SMALL)


def test_create_project__classes_of_validation_are_brought_together(tmp_path):
    first = coco(tmp_path / "a")
    second = coco(tmp_path / "b")
    content = json.loads(second.read_text())
    content["categories"].reverse()
    content["categories"][0]["id"], content["categories"][1]["id"] = 7, 8
    for annotation in content["annotations"]:
        annotation["category_id"] = 7
    second.write_text(json.dumps(content))
    project = create_project(tmp_path / "my", first, val=second, detector="fcos", **SMALL)
    assert project.classes == ("cat", "dog")
    (_, card), mistakes = inspect_data_sets(load_config(project.config))
    assert (card.classes, mistakes) == ({"cat": 0, "dog": 4}, [])


def test_create_project__names_with_any_sign(tmp_path):
    odd = 'it\'s a "q" 50% %s a=b #\u65e5\n{a,b} *[x]? ~$H \\ .'
    source = yolo(tmp_path / odd, {"train/a": OUTLINE, "val/d": OUTLINE})
    project = create_project(tmp_path / f"my {odd}", source, detector="fcos", **SMALL)
    _, mistakes = inspect_data_sets(load_config(project.config))
    assert mistakes == []


@pytest.mark.parametrize("named", ["the project", "the folder of pictures", "the file of weights"])
@pytest.mark.parametrize("reference", ["${x}", "${train.seed}", "\\${x}", "${"])
def test_create_project__names_that_are_references_are_refused(tmp_path, named, reference):
    data = tmp_path / (reference if "pictures" in named else "data")
    target = tmp_path / (f"{reference}/my" if "project" in named else "my")
    weights = tmp_path / f"{reference}.pth"
    torch.save({}, weights)
    keywords = SMALL | ({"weights": str(weights)} if "weights" in named else {})
    yolo(data, {"train/a": OUTLINE, "val/d": OUTLINE})
    with pytest.raises(ConfigError, match=rf"^{named} .* has \$\{{ in its name"):
        create_project(target, data, detector="fcos", **keywords)
    assert not target.exists()
    assert not target.parent.exists() or target.parent == tmp_path
