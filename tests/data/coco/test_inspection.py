import logging

from detrex.data.coco.inspection import has_errors, inspect, log_findings
from tests.reference.annotation_files import NAMES, write


def test_inspect__right_files_have_no_findings(tmp_path):
    folder = write(tmp_path / "data")
    for side in ("train", "test"):
        document = inspect(folder / f"{side}.json", folder / "images", masks=True, classes=NAMES)
        assert (document.findings, document.changed) == ([], False)


def test_inspect__every_kind_of_error_is_found_in_one_pass(tmp_path):
    def change(content):
        boxes = ([1, 2, 3], [1, 2, float("nan"), 4], [9, 9, -3, 4])
        for annotation, box in zip(content["annotations"], boxes, strict=False):
            annotation["bbox"] = box
        content["annotations"][5]["category_id"] = 77
        content["annotations"][6]["image_id"] = 77
        content["annotations"][7]["ignore"] = 1
        content["annotations"][8]["iscrowd"] = 5
        content["images"][0]["width"] = None
        content["images"][1]["file_name"] = "gone.png"
        content["images"][3]["id"] = content["images"][2]["id"]
        content["categories"][1]["name"] = None

    folder = write(tmp_path / "data", train=change)
    document = inspect(folder / "train.json", folder / "images")
    assert {f.kind for f in document.findings if f.severity == "error"} == {
        *("box-form", "box-not-finite", "box-negative", "unknown-category", "unknown-image"),
        *("ignore", "iscrowd", "image-width", "picture-missing", "duplicate-image-id"),
        "category-name",
    }
    for finding in document.findings:
        assert "\n" not in finding.message
        assert len(finding.message) < 500
        assert finding.message.startswith(str(folder / "train.json"))


def test_inspect__empty_lists(tmp_path):
    def change(content):
        return {key: [] for key in content}

    folder = write(tmp_path / "data", train=change)
    document = inspect(folder / "train.json", folder / "images")
    assert {f.kind for f in document.findings} == {"no-images", "no-categories"}
    assert has_errors(document)


def test_log_findings__warnings_and_notes_one_line_each(tmp_path, caplog):
    def change(content):
        del content["annotations"][0]["area"]
        content["annotations"][1]["bbox"] = [500, 500, 1, 1]

    folder = write(tmp_path / "data", train=change)
    document = inspect(folder / "train.json", folder / "images")
    with caplog.at_level(logging.INFO, logger="detrex"):
        log_findings(document)
    levels = [(record.levelname, "\n" in record.getMessage()) for record in caplog.records]
    assert levels == [("WARNING", False), ("INFO", False)]
