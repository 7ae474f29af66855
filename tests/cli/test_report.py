import pytest

from detrex.cli import main
from tests.reference.report_runs import made_up_run


def test_report__writes_the_page_and_names_it(tmp_path, capsys):
    run = made_up_run(tmp_path, 2)
    capsys.readouterr()
    assert main(["report", str(run), "--pictures", "1"]) == 0
    assert capsys.readouterr().out == f"{run / 'report.html'}\n"
    assert (run / "report.html").read_text().count("<img") == 2


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["nowhere"], 1, "detrex: nowhere holds no metrics.json"),
        ([".", "--pictures", "-1"], 2, "--pictures expects 0 or more"),
        ([], 2, "report: the following arguments are required: folder"),
    ],
)
def test_report__a_mistake_is_one_sentence(words, status, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    try:
        ended = main(["report", *words])
    except SystemExit as end:
        ended = end.code
    assert ended == status
    assert said in capsys.readouterr().err
