import pytest
from PIL import Image

from tests.reference.data_config import data_config  # noqa: F401
from tools import visualize_data


def _run(config, output, *options):
    visualize_data.main(["--config-file", config, "--output-dir", str(output), *options])
    return sorted(output.iterdir())


def test_main__output_dir_may_be_spelt_with_an_underscore(data_config, tmp_path):  # noqa: F811
    arguments = ["--source", "annotation", "--config-file", data_config, "-n", "1"]
    visualize_data.main([*arguments, "--output_dir", str(tmp_path / "other")])
    assert len(list((tmp_path / "other").iterdir())) == 1


def test_main__show_opens_a_viewer_and_writes_nothing(data_config, tmp_path, monkeypatch):  # noqa: F811
    shown = []
    monkeypatch.setattr(Image.Image, "show", lambda self, title=None: shown.append(title))
    assert not _run(data_config, tmp_path / "out", "--source", "annotation", "--show")
    assert shown == ["000000.png", "000001.png", "000002.png"]


@pytest.mark.parametrize("count", ["0", "-1"])
def test_main__number_of_images_is_at_least_one(data_config, tmp_path, count, capsys):  # noqa: F811
    with pytest.raises(SystemExit):
        _run(data_config, tmp_path / "out", "--source", "annotation", "-n", count)
    assert "expected a whole number of at least 1" in capsys.readouterr().err
