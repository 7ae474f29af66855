import pytest

from benchmarks import __main__ as run_all
from benchmarks import report


@pytest.fixture
def _scripts(monkeypatch, tmp_path):
    """Three scripts in place of the real ones, and a page that only remembers that it was asked."""
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "good.py").write_text("import sys; open('good.txt', 'w').write(sys.argv[1])")
    (folder / "bad.py").write_text("raise SystemExit(3)")
    (folder / "endless.py").write_text(
        "import subprocess, sys\n"
        "subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
    )
    monkeypatch.setattr(run_all, "SCRIPTS", ("bad", "endless", "good"))
    monkeypatch.setattr(run_all, "SHORT", 5)
    monkeypatch.setattr(report, "SCRIPTS", folder)
    monkeypatch.setattr(report, "main", lambda words: (folder / "page written").touch())
    monkeypatch.delenv("PYTHONPATH", raising=False)


@pytest.mark.usefixtures("_scripts")
def test_main__a_script_that_fails_costs_its_own_results(capsys, tmp_path):
    assert run_all.main([]) == 1
    printed = capsys.readouterr().out
    assert (tmp_path / "benchmarks" / "page written").exists()
    lines = [line.split("s): ")[1] for line in printed.splitlines() if "s): " in line]
    assert lines == ["failed with status 3", "failed: more than 5 s", "ok"]
    assert (tmp_path / "good.txt").read_text() == "--quick"


@pytest.mark.usefixtures("_scripts")
def test_main__one_script(capsys):
    assert run_all.main(["good"]) == 0
    assert "bad" not in capsys.readouterr().out


def test_main__knows_its_scripts(capsys):
    with pytest.raises(SystemExit):
        run_all.main(["backbone"])
    assert "no script backbone; there are backbones, " in capsys.readouterr().err


def test_scripts__have_a_title_on_the_page():
    assert set(run_all.SCRIPTS) <= set(report.TITLES)
