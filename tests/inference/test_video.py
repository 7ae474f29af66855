import sys
from types import SimpleNamespace

import numpy as np
import pytest

from detrex.errors import ConfigError, PictureError
from detrex.inference.video import Video, VideoWriter, is_video, require_opencv


def write(path, frames=3, size=(32, 48)):
    with VideoWriter(path, 5.0) as writer:
        for number in range(frames):
            writer.write(np.full((*size, 3), (200, 40 * number, 10), np.uint8))
    return path


@pytest.mark.parametrize("name", ["a.avi", "deep/a.mp4"])
def test_video__what_is_written_is_read(tmp_path, name):
    pytest.importorskip("cv2")
    with Video(write(tmp_path / name)) as video:
        frames = list(video)
        assert video.count == 3
        assert video.frames_per_second == pytest.approx(5.0)
    assert [frame.shape for frame in frames] == [(32, 48, 3)] * 3
    expected = [[200, 40 * number, 10] for number in range(3)]
    np.testing.assert_allclose([f.mean(axis=(0, 1)) for f in frames], expected, atol=12)


def test_video__that_ends_early_is_told(tmp_path, caplog):
    pytest.importorskip("cv2")
    with Video(write(tmp_path / "a.avi", frames=40)) as video:
        assert len(list(video)) == 40
    assert not caplog.records
    whole = (tmp_path / "a.avi").read_bytes()
    (tmp_path / "cut.avi").write_bytes(whole[: len(whole) // 2])
    with Video(tmp_path / "cut.avi") as video:
        frames = len(list(video))
        assert frames < video.count == 40
        assert f"cut.avi ends after {frames} of 40 frames" in caplog.text
        with pytest.raises(PictureError, match=r"No frame of the video .*cut\.avi can be read"):
            next(iter(video))  # which is at its end


@pytest.mark.parametrize("camera", [-1, 200])
def test_video__a_number_that_no_camera_has(camera):
    """Which would end the process within OpenCV."""
    with pytest.raises(PictureError, match=f"there is no camera {camera}: .* from 0"):
        Video(camera)


def test_video_writer__odd_sizes_and_frames_of_another_size(tmp_path):
    pytest.importorskip("cv2")
    with VideoWriter(tmp_path / "a.mp4", 5.0) as writer:
        writer.write(np.zeros((33, 47, 3), np.uint8))
        writer.write(np.zeros((20, 60, 3), np.uint8))
    with Video(tmp_path / "a.mp4") as video:
        assert len({frame.shape for frame in video}) == 1


@pytest.mark.parametrize("name", ["a.mp4", "a.avi", "a.mov", "a.M4V"])
def test_video_writer__replaces_what_it_wrote_and_nothing_else(tmp_path, name):
    pytest.importorskip("cv2")
    for frames in (3, 2):
        write(tmp_path / name, frames)
    with Video(tmp_path / name) as video:  # the mark is no frame, and no damage
        assert len(list(video)) == video.count == 2
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-1])
    with pytest.raises(ConfigError, match=r"a\.\w+ exists and was not drawn by this program"):
        VideoWriter(tmp_path / name, 5.0)


def test_video_writer__an_ending_that_no_video_has(monkeypatch, tmp_path):
    closed = SimpleNamespace(isOpened=lambda: False)
    cv2 = SimpleNamespace(VideoWriter=lambda *_: closed, VideoWriter_fourcc=lambda *_: 0)
    monkeypatch.setitem(sys.modules, "cv2", cv2)
    with (
        VideoWriter(tmp_path / "a.xyz", 5.0) as writer,
        pytest.raises(ConfigError, match=r"cannot write video .*ends in \.mp4"),
    ):
        writer.write(np.zeros((32, 48, 3), np.uint8))


def test_video__what_cannot_be_opened_is_said(tmp_path):
    pytest.importorskip("cv2")
    (tmp_path / "a.mp4").write_bytes(b"no video")
    for name, message in (
        ("a.mp4", "cannot open the video"),
        ("b.mp4", r"b\.mp4 does not exist"),
        (".", "is no file"),
    ):
        with pytest.raises(PictureError, match=message):
            Video(tmp_path / name)


def test_require_opencv__says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ImportError, match=r"video goes through OpenCV.*pip install opencv-python"):
        require_opencv()


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("a.MP4", True),
        ("https://host/a.webm?key=1", True),
        ("rtsp://camera", True),
        (0, True),
        (True, False),
        ("a.png", False),
        (b"a.mp4", False),
        (None, False),
    ],
)
def test_is_video__by_its_name(source, expected):
    assert is_video(source) is expected
