from pathlib import Path

import pytest
from PIL import Image

from detrex.errors import ConfigError, PictureError
from detrex.inference.planning import Job, plan_jobs
from detrex.utils.outputs import save_drawn
from tests.inference.test_inputs import PIXELS


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("in/a.jpg", "in/deep/b.bmp", "in/film.avi", "c.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True, parents=True)
        Image.fromarray(PIXELS).save(path) if path.suffix != ".avi" else path.write_bytes(b"1")
    return tmp_path


def targets(inputs, output="out"):
    return [(job.name, str(job.target)) for job in plan_jobs(inputs, output)]


def test_plan_jobs__a_file_for_each_and_each_once(folder):
    inputs = ["in", "in/a.jpg", "https://host/x/p%20q.png?w=1", "https://host/y", "0"]
    assert targets(inputs) == [
        ("in/a.jpg", "out/a.jpg"),
        ("in/deep/b.bmp", "out/deep/b.bmp.png"),
        ("in/film.avi", "out/film.mp4"),
        ("https://host/x/p%20q.png?...", "out/web/p_q.png"),
        ("https://host/y", "out/web/y.png"),
        ("camera 0", "out/streams/camera-0.mp4"),
    ]
    assert [job.is_video for job in plan_jobs(inputs, None)] == [False] * 2 + [True] + [
        False,
        False,
        True,
    ]
    assert {job.target for job in plan_jobs(inputs, None)} == {None}


def test_plan_jobs__folders_of_addresses_hold_no_file_of_others(folder):
    for name in ("in/Web/a.jpg", "in/streams/film.avi"):
        (folder / name).parent.mkdir()
        (folder / name).write_bytes((folder / "in" / Path(name).name).read_bytes())
    inputs = ["in", "https://host/a.jpg", "https://host/film.avi"]
    planned = [target.lower() for _, target in targets(inputs)]
    assert len(set(planned)) == len(planned) == 7
    assert planned[-2:] == ["out/web-addresses/a.jpg", "out/streams-addresses/film.mp4"]


def test_plan_jobs__a_file_for_a_single_one(folder):
    assert plan_jobs(["c.png"], "found.jpg") == [Job("c.png", Path("found.jpg"))]
    assert plan_jobs(["in/film.avi"], "found.mp4") == [Job("in/film.avi", Path("found.mp4"))]


@pytest.mark.parametrize(
    ("inputs", "output", "message"),
    [
        (["in"], "found.png", "is one file, but the inputs name 3 pictures and videos"),
        (["in/film.avi"], "found.png", r"is no name for a video: end it in \.mp4, \.avi"),
        (["c.png"], "found.mp4", "is no name for a picture: end it in"),
        (["c.png"], "found.gif", r"is no name for a picture: end it in \.jpeg, \.jpg, \.png"),
        (["c.png"], "c.png", "is one of the input files"),
        (["c.png"], ".", "is one of the input files"),
        (["in/a.jpg"], "c.png", "exists and was not drawn by this program"),
        (["in/film.avi"], "film.mp4", "exists and was not drawn by this program"),
        (["c.png"], "c.png/deep", "cannot be a folder to write to"),
    ],
)
def test_plan_jobs__nothing_of_the_users_is_replaced(folder, inputs, output, message):
    (folder / "film.mp4").write_bytes(b"1")
    with pytest.raises(ConfigError, match=message):
        plan_jobs(inputs, output)


def test_plan_jobs__what_was_drawn_before_may_be(folder):
    save_drawn(PIXELS, folder / "out" / "c.png")
    assert targets(["c.png"]) == [("c.png", "out/c.png")]


def test_plan_jobs__what_is_drawn_is_no_input_of_the_next_run(folder):
    before = targets(["."])
    for _, target in before:
        save_drawn(PIXELS, folder / Path(target).with_suffix(".png"))
    assert len(before) == 4
    assert targets(["."]) == before
    assert "out/in/a.png" in dict(targets(["out/in"], "again"))


def test_plan_jobs__what_is_not_there_is_told_with_near_names(folder):
    with pytest.raises(PictureError, match=r"in/aa\.jpg names no picture.*Did you mean 'a\.jpg'"):
        plan_jobs(["in/aa.jpg"], "out")
