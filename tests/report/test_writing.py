import pytest

from detrex.errors import RunError
from detrex.report import REPORT, write_report
from tests.reference.report_runs import made_up_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return made_up_run(tmp_path_factory.mktemp("writing"), 3)


def test_write_report__into_the_folder_and_again(run):
    page = write_report(run, pictures=1)
    assert page == run / REPORT
    first = page.read_bytes()
    assert write_report(run, pictures=1).read_bytes() == first
    assert list(run.glob("*.unfinished")) == []


def test_write_report__elsewhere(run, tmp_path):
    page = write_report(run, tmp_path / "new" / "look.html", 0)
    assert page.read_text().startswith("<!doctype html>")


@pytest.mark.parametrize("content", [b"", b"<!doctype html><p>mine</p>", b"\xff\x00"])
def test_write_report__a_file_of_the_users_stays(run, tmp_path, content):
    (tmp_path / "mine.html").write_bytes(content)
    with pytest.raises(RunError, match=r"mine\.html is there already and is no report"):
        write_report(run, tmp_path / "mine.html")
    assert (tmp_path / "mine.html").read_bytes() == content


def test_write_report__a_link_of_the_users_to_nothing_stays(run, tmp_path):
    link = tmp_path / "mine.html"
    link.symlink_to(tmp_path / "gone.html")
    with pytest.raises(RunError, match=r"mine\.html is there already and is no report"):
        write_report(run, link)
    assert link.is_symlink()


def test_write_report__where_nothing_can_be_written(run, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=r"cannot be written.*--output"):
        write_report(run, tmp_path / "file" / "page.html")
