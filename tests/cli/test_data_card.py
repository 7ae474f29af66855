import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from detrex.cli.data_card import inspect_data_sets, text_of_cards, text_of_mistakes
from tests.reference.annotation_files import config, truth, write


@pytest.fixture(autouse=True)
def _unregistered():
    yield
    for side in ("train", "test"):
        for catalogue in (DatasetCatalog, MetadataCatalog):
            if f"card_{side}" in catalogue.list():
                catalogue.remove(f"card_{side}")


def varied(content):
    """An empty picture, a crowd, areas at COCO's bounds, an object that is left out."""
    content["images"].append({**content["images"][0], "id": 3, "file_name": "blank.png"})
    areas = [32**2 - 1, 32**2, 96**2 - 1, 96**2, 10**6]
    for annotation, area in zip(content["annotations"], areas, strict=False):
        annotation["area"] = area
    content["annotations"][5]["iscrowd"] = 1
    content["annotations"][6]["bbox"] = [500, 500, 9, 9]


def test_inspect_data_sets__counts(tmp_path):
    folder = write(tmp_path / "data", train=varied)
    (train, test), mistakes = inspect_data_sets(config(folder, "card"))
    assert mistakes == []
    assert (train.images, train.empty_images, train.objects) == (6, 1, 11)
    assert (train.crowds, train.left_out) == (1, 1)
    assert train.sizes == {"small": 7, "medium": 2, "large": 2}
    assert sum(train.classes.values()) == 11
    assert (test.images, test.empty_images, test.objects, test.mended) == (5, 0, 12, [])
    expected = [0, 0, 0]
    for number in range(5):
        for drawn, _ in truth(f"test{number}"):
            expected[drawn] += 1
    assert list(test.classes.values()) == expected
    assert not (folder / "out").exists()


def test_text_of_cards__side_by_side(tmp_path):
    cards, _ = inspect_data_sets(config(write(tmp_path / "data", train=varied), "card"))
    lines = [line.split() for line in text_of_cards(cards)]
    assert ["objects", "11", "12"] in lines
    assert ["without", "objects", "1", "0"] in lines
    assert ["1", "Fläche", *(str(card.classes["Fläche"]) for card in cards)] in lines
    assert lines[-1][0] == "mended:"
    assert text_of_cards([]) == []


def test_text_of_cards__a_name_of_several_lines_keeps_to_its_row(tmp_path):
    def change(content):
        content["categories"][0]["name"] = "a\nb"

    folder = write(tmp_path / "data", train=change, test=change)
    cards, _ = inspect_data_sets(config(folder, "card"))
    assert any(r"a\nb" in line for line in text_of_cards(cards))
    assert not any("\n" in line for line in text_of_cards(cards))


def test_inspect_data_sets__mistakes_of_all_sets_at_once(tmp_path):
    def change(content):
        content["annotations"][0]["bbox"] = None
        content["images"][1]["width"] = 0

    cfg = config(write(tmp_path / "data", change), "card")
    cards, mistakes = inspect_data_sets(cfg)
    assert cards == []
    assert [m.split(".json: ")[0].rsplit("/")[-1] for m in mistakes] == ["train"] * 2 + ["test"] * 2


def test_inspect_data_sets__number_of_classes_and_paths(tmp_path):
    cfg = config(write(tmp_path / "data"), "card")
    cfg.model.num_classes = 5
    cards, mistakes = inspect_data_sets(cfg)
    assert len(cards) == 2
    assert len([m for m in mistakes if "set model.num_classes=3" in m]) == 2
    cfg.model.num_classes = 3
    cfg.dataloader.train.dataset.names.num_classes = 4
    assert len([m for m in inspect_data_sets(cfg)[1] if "set model.num_classes=3" in m]) == 1
    cfg.dataloader.train.dataset.names.json_file = None
    cards, mistakes = inspect_data_sets(cfg)
    assert "json_file of data set 'card_train' is not set" in mistakes[0]


@pytest.mark.parametrize(
    ("mistakes", "lines"),
    [
        ([], ["no mistakes found"]),
        (["a"], ["1 mistake found", "  1. a"]),
        (["a", "b"], ["2 mistakes found", "  1. a", "  2. b"]),
    ],
)
def test_text_of_mistakes(mistakes, lines):
    assert text_of_mistakes(mistakes) == lines
