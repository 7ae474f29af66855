"""The Makefile's set-up, with a Python that only writes down what it is asked."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TARGETS = ["help", "install", "demo", "bench", "test", "faults", "check", "docs", "clean"]
TARGETS += ["test-numeric", "test-processors", "test-lowest", "test-newest"]

STUB = """#!/bin/sh
echo "$@" >> "{log}"
case "$1 $2" in "-c import"*) exit {has_detectron2};; esac
"""

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


@pytest.fixture
def make(tmp_path):
    """Run make on a folder like a clone whose environment holds the stub; return output and log."""
    for name in ("Makefile", "setup.py", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    log = tmp_path / "asked.log"
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)

    def run(*arguments, has_detectron2=False):
        python.write_text(STUB.format(log=log, has_detectron2=int(not has_detectron2)))
        python.chmod(0o755)
        log.write_text("")
        inherited = {
            key: value
            for key, value in os.environ.items()
            if key not in {"VENV", "PYTHON", "D2"} and not key.startswith("MAKE")
        }
        done = subprocess.run(
            ["make", *arguments],
            cwd=tmp_path,
            env=inherited,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout, log.read_text()

    return run


def test_help__lists_every_target(make):
    output, _ = make()
    for target in TARGETS:
        assert f"make {target} " in output


def test_install__brings_detectron2_from_the_recipe(make):
    output, asked = make("install")
    assert "install --editable .[test]" in asked
    assert "install --no-build-isolation ./third_party/detectron2" in asked
    assert "detectron2 from ./third_party/detectron2" in output


def test_install__leaves_a_detectron2_that_is_there(make):
    output, asked = make("install", "D2=another", has_detectron2=True)
    assert "stays as it is" in output
    assert "another" not in asked
    assert "third_party" not in asked


def test_install__takes_the_source_that_d2_names(make):
    _, asked = make("install", "D2=detectron2 @ git+https://example.org/d2")
    assert "install --no-build-isolation detectron2 @ git+https://example.org/d2" in asked


def test_test__starts_at_once_the_second_time(make):
    _, first = make("test")
    _, second = make("test", has_detectron2=True)
    assert "pip" in first
    assert "pip" not in second
    assert "pytest -n 2" in second


@pytest.mark.parametrize(
    ("target", "resolution"), [("lowest", "lowest-direct"), ("newest", "highest")]
)
def test_test_versions__have_an_environment_of_their_own(make, target, resolution):
    output, _ = make("--dry-run", f"test-{target}", "TESTS=tests/layers")
    own = f".venv-{target}"
    assert f"uv pip install -q --python {own}/bin/python --resolution {resolution}" in output
    assert (
        f'{own}/bin/python -m pytest -n 2 -q -m "not slow and not gpu and not site" tests/layers'
        in output
    )
    assert f"{own}/bin/python -m pip -qq" in output
    assert ".venv/" not in output


def test_test_numeric__runs_under_the_variables_of_the_shell(make):
    _, asked = make("test-numeric", has_detectron2=True)
    assert ".ci/processors.py here" in asked


def test_bench__brings_the_peers(make):
    _, asked = make("bench", has_detectron2=True)
    assert "install --editable .[bench]" in asked
    assert "-m benchmarks" in asked


def test_clean__keeps_runs_and_environment(make, tmp_path):
    for name in ("output/demo", "output/mine", "build", "docs/_build"):
        (tmp_path / name).mkdir(parents=True)
    make("clean")
    assert (tmp_path / "output" / "mine").is_dir()
    assert (tmp_path / ".venv" / "bin" / "python").is_file()
    for name in ("output/demo", "build", "docs/_build"):
        assert not (tmp_path / name).exists()
