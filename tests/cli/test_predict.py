import json
import shutil

import numpy as np
import pytest

from detrex.cli import main
from detrex.inference.video import Video, VideoWriter
from tests.reference.tiny_run import images_of, write_run


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    write_run(folder)
    return folder


@pytest.fixture
def here(trained, tmp_path, monkeypatch):
    """A folder with a run and three pictures, to work in."""
    shutil.copytree(trained / "run", tmp_path / "run")
    shutil.copytree(trained / "data" / "val" / "images", tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_predict__draws_counts_and_writes_all_that_is_found(here, trained, capsys):
    (here / "photos" / "broken.png").write_bytes(b"\x89PNG\r\n")
    words = ["predict", "run", "photos", "--threshold", "0", "--json", "all.json"]
    assert main([*words, "--batch-size", "2"]) == 1
    printed = capsys.readouterr()
    assert printed.err.startswith("weights: run/model_final.pth, the last of the run\n")
    names = [file.name for _, file in images_of(trained)]
    assert sorted(path.name for path in (here / "predictions").iterdir()) == names
    lines = printed.out.splitlines()
    assert [line.partition(":")[0] for line in lines[:3]] == [f"photos/{name}" for name in names]
    assert lines[0].endswith(f" -> predictions/{names[0]}")
    assert lines[3].split() == ["class", "objects", "pictures"]
    assert "1 of 4 pictures could not be drawn: photos/broken.png is" in printed.err
    content = json.loads((here / "all.json").read_text())
    assert [image["file_name"] for image in content["images"]] == [f"photos/{n}" for n in names]
    total = sum(int(line.split()[1]) for line in lines[4:-1])
    assert len(content["annotations"]) == total > 20


def test_predict__names_every_picture_that_cannot_be_read(here, capsys):
    names = [f"photos/{'long' * 30}{number}.png" for number in range(4)]
    for name in names:
        (here / name).write_bytes(b"\x89PNG\r\n")
    assert main(["predict", "run", "photos", "--no-draw"]) == 1
    _, *each, last = capsys.readouterr().err.splitlines()
    assert [line.partition(" ")[0] for line in each] == names
    assert last.startswith("detrex: 4 of 7 pictures could not be drawn: ")
    assert len(last) < 500


def test_predict__classes_and_nothing_drawn(here, capsys):
    words = ["predict", "run", "photos", "--threshold", "0", "--no-draw"]
    assert main([*words, "--classes", "square, 2"]) == 0
    assert not (here / "predictions").exists()
    text = capsys.readouterr().out
    assert "square" in text
    assert "circle" not in text


def test_predict__a_video_to_a_video(here, capsys):
    pytest.importorskip("cv2")
    with VideoWriter(here / "a.avi", 5.0) as writer:
        for value in (0, 90, 180):
            writer.write(np.full((32, 48, 3), value, np.uint8))
    words = ["predict", "run", "a.avi", "--output", "found.mp4", "--threshold", "0"]
    assert main(words) == 0
    assert capsys.readouterr().out.startswith("a.avi: 3 frames, ")
    with Video("found.mp4") as video:
        assert video.count == 3
        assert next(iter(video)).shape == (480, 720, 3)
    assert main([*words, "--no-draw"]) == 0
    assert main(["predict", "run", "found.mp4", "--output", "found.mp4"]) == 1
    assert "found.mp4 is one of the input files" in capsys.readouterr().err


def test_predict__what_was_found_until_ctrl_c_is_written(here, monkeypatch):
    def frames(_):
        yield np.zeros((32, 48, 3), np.uint8)
        raise KeyboardInterrupt

    monkeypatch.setattr(Video, "__init__", lambda self, _: vars(self).update(name="camera"))
    monkeypatch.setattr(Video, "__iter__", frames)
    monkeypatch.setattr(Video, "__exit__", lambda *_: None)
    monkeypatch.setattr(Video, "count", None, raising=False)
    assert main(["predict", "run", "0", "--no-draw", "--json", "all.json"]) == 130
    assert len(json.loads((here / "all.json").read_text())["images"]) == 1


def test_predict__a_damaged_video_is_one_sentence(here, capfd):
    pytest.importorskip("cv2")
    with VideoWriter(here / "a.mp4", 5.0) as writer:
        writer.write(np.zeros((32, 48, 3), np.uint8))
    (here / "a.mp4").write_bytes((here / "a.mp4").read_bytes()[:200])
    assert main(["predict", "run", "a.mp4", "photos", "--output", "found"]) == 1
    errors = capfd.readouterr().err.splitlines()
    assert errors[-1].startswith("detrex: 1 of 4 pictures could not be drawn: OpenCV cannot open")
    assert len(list((here / "found").rglob("*.png"))) == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["rnu", "photos"], "detrex: rnu does not exist. Did you mean 'run'?\n"),
        (["run", "photo"], "detrex: The input photo names no picture: "),
        (["run", "photos", "--classes", "sqare"], "Did you mean 'square'?\n"),
        (["run", "photos", "--threshold", "50"], "threshold=50.0 is no score: "),
        (["run", "photos", "--batch-size", "0"], "batch_size=0 is no whole number"),
        (["run", "photos", "--device", "gpu"], "device=gpu is no device that PyTorch knows"),
        (["run", "photos", "--dtype", "float31"], "'float31', expected 'auto', 'float32'"),
        (["run", "photos", "--output", "photos"], "is one of the input files"),
        (["run", "photos", "--json", "run/config.yaml"], "was not written by this program"),
    ],
)
def test_predict__mistakes_are_one_sentence(here, capsys, words, message):
    before = {path: path.read_bytes() for path in here.rglob("*.*") if path.is_file()}
    assert main(["predict", *words]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert len(error) < 500
    assert {path: path.read_bytes() for path in before} == before
