"""Where drawn pictures go, and what they may replace."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detrex.errors import ConfigError, PictureError
from detrex.utils.outputs import Failures, make_folder, plan_outputs, refuse_to_replace, save_drawn

PICTURE = np.full((8, 9, 3), 90, np.uint8)


def relative(targets, folder):
    return [target.relative_to(folder).as_posix() for target in targets]


@pytest.mark.parametrize(
    ("sources", "suffix", "expected"),
    [
        (["d/x.png", "d/y.jpg"], None, ["x.png", "y.jpg"]),
        (["d/a/x.png", "d/b/x.png", "d/y.png"], None, ["a/x.png", "b/x.png", "y.png"]),
        (["d/a/x.png", "d/a/y.png"], None, ["x.png", "y.png"]),
        (["d/x.bmp", "d/y.gif", "d/z"], None, ["x.bmp.png", "y.gif.png", "z.png"]),
        (["d/x.jpg", "d/x.png", "d/v1.0.png"], ".png", ["x.png", "x.png.png", "v1.0.png"]),
        (["d/x.png", "d/X.PNG"], None, ["x.png", "X.PNG.PNG"]),
        (["d/x.png", "d/x.png.png", "d/X.jpg"], ".png", ["x.png", "x.png.png", "X.jpg.png"]),
        (["d/x.png", "d/x.png.png", "d/X.PNG"], ".png", ["x.png", "x.png.png", "X-2.png"]),
        (["d/../d/x.png", "d/b/x.png"], None, ["x.png", "b/x.png"]),
        ([], None, []),
    ],
)
def test_plan_outputs__each_source_has_a_file_of_its_own(tmp_path, sources, suffix, expected):
    planned = plan_outputs([tmp_path / source for source in sources], tmp_path / "out", suffix)
    assert relative(planned, tmp_path / "out") == expected


@pytest.mark.parametrize("link", [None, "symlink_to", "hardlink_to"])
def test_plan_outputs__an_input_is_never_replaced(tmp_path, link):
    """Neither in its own folder nor through a link, and not even if it was drawn before."""
    source, out = tmp_path / "in" / "x.png", tmp_path / "out"
    source.parent.mkdir()
    out.mkdir()
    save_drawn(PICTURE, source)
    if link is not None:
        getattr(out / "x.png", link)(source)
    folder = source.parent if link is None else out
    with pytest.raises(ConfigError, match=r"x\.png is one of the input files .* name another fold"):
        plan_outputs([source], folder)


def test_plan_outputs__nor_an_input_of_another_name(tmp_path):
    for name in ("x.jpg", "x.png"):
        Image.fromarray(PICTURE).save(tmp_path / name)
    with pytest.raises(ConfigError, match=r"x\.png is one of the input files"):
        plan_outputs([tmp_path / "x.png", tmp_path / "x.jpg"], tmp_path, ".png")


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".JPG"])
def test_save_drawn__replaces_what_it_drew_and_nothing_else(tmp_path, suffix):
    target = tmp_path / "new" / f"x{suffix}"
    save_drawn(PICTURE, target)
    save_drawn(PICTURE // 2, target)
    with Image.open(target) as picture:
        assert np.abs(np.asarray(picture.convert("RGB")).astype(int) - 45).max() <= 3
    Image.fromarray(PICTURE).save(target)
    before = target.read_bytes()
    with pytest.raises(ConfigError, match="exists and was not drawn by this program"):
        save_drawn(PICTURE, target)
    with pytest.raises(ConfigError, match="exists and was not drawn by this program"):
        plan_outputs([tmp_path / f"x{suffix}"], tmp_path / "new")
    assert target.read_bytes() == before


def test_refuse_to_replace__files_that_are_no_pictures(tmp_path):
    (tmp_path / "film.mp4").write_bytes(b"frames")
    with pytest.raises(ConfigError, match=r"film\.mp4 exists and was not drawn"):
        refuse_to_replace([tmp_path / "film.mp4"])
    refuse_to_replace([tmp_path / "absent.mp4", tmp_path / ("x" * 5000)], ["\0", "absent"])


def test_save_drawn__what_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"x\.png cannot be written \(.+\): name another output"):
        save_drawn(PICTURE, tmp_path / "file" / "x.png")


def test_make_folder__says_why_not(tmp_path):
    assert make_folder(tmp_path / "a" / "b", "--output") == tmp_path / "a" / "b"
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ConfigError, match=r"--output .*file.* cannot be a folder to write to"):
            make_folder(path, "--output")
    assert not any((tmp_path / "a" / "b").iterdir())


def test_failures__go_on_and_are_told_at_the_end():
    failures, drawn = Failures(), []

    def draw(number):
        if number % 2:
            raise PictureError(f"{number}.png is cut.")
        drawn.append(number)

    assert [failures.attempt(draw, number) for number in range(4)] == [True, False, True, False]
    assert drawn == [0, 2]
    with pytest.raises(SystemExit) as caught:
        failures.end()
    expected = "2 of 4 pictures could not be drawn: 1.png is cut; 3.png is cut."
    assert caught.value.code == expected
    for number in range(5, 17, 2):
        failures.attempt(draw, number)
    with pytest.raises(SystemExit, match=r"8 of 10 .* 9\.png is cut; and 3 more\.$"):
        failures.end()
    with pytest.raises(ZeroDivisionError):
        failures.attempt(lambda: 1 / 0)
    Failures().end()


def test_plan_outputs__a_relative_folder_is_as_good(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(PICTURE).save("x.png")
    with pytest.raises(ConfigError, match="one of the input files"):
        plan_outputs([os.path.abspath("x.png")], ".")
    assert plan_outputs(["x.png"], "out") == [Path("out/x.png")]


def test_failures__long_reasons_leave_one_short_line():
    failures = Failures()
    failures.reasons = [f"{number}.png {'is cut ' * 30}" for number in range(9)]
    failures.total = 9
    with pytest.raises(SystemExit, match=r"^9 of 9 .* and 8 more\.$") as caught:
        failures.end()
    assert len(str(caught.value)) < 500
