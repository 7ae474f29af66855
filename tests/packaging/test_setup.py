"""setup.py: the wheel holds the configs, an editable install does not."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def build_lib(tmp_path_factory):
    """What the wheel would hold, built without an isolated environment, and with a stale module."""
    directory = tmp_path_factory.mktemp("build")
    stale = directory / "lib" / "detrex" / "deleted_long_ago.py"
    stale.parent.mkdir(parents=True)
    stale.touch()
    command = f"egg_info --egg-base {directory} build_py --build-lib {directory / 'lib'}"
    run = subprocess.run(
        [sys.executable, "setup.py", "-q", *command.split()],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return directory / "lib"


def test_build_py__holds_every_config(build_lib):
    configs = {p.relative_to(ROOT / "configs") for p in (ROOT / "configs").rglob("*.py")}
    packaged = build_lib / "detrex" / "config" / "configs"
    assert configs
    assert {p.relative_to(packaged) for p in packaged.rglob("*.py")} == configs


def test_build_py__holds_every_module_and_nothing_else(build_lib):
    modules = {p.relative_to(ROOT) for p in (ROOT / "detrex").rglob("*.py")}
    configs = build_lib / "detrex" / "config" / "configs"
    built = {p.relative_to(build_lib) for p in build_lib.rglob("*.py") if configs not in p.parents}
    assert built == modules
    assert (build_lib / "detrex" / "py.typed").is_file()


def test_get_config__reads_the_wheels_own_configs(build_lib, tmp_path):
    """From a folder that is not the checkout, with the built package alone on the path."""
    program = (
        "import detrex.config, sys; "
        f"assert detrex.config.__file__.startswith({str(build_lib)!r}), detrex.config.__file__; "
        "cfg = detrex.config.get_config('common/train.py'); assert cfg.train.max_iter > 0"
    )
    run = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(build_lib)!r}); {program}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr


def test_version__is_read_without_importing():
    """The version that pip sees is the package's, and reading it needs no torch."""
    program = "import sys; sys.modules['torch'] = None; import setuptools; setuptools.setup()"
    run = subprocess.run(
        [sys.executable, "-c", program, "--version"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    import detrex

    assert run.returncode == 0, run.stderr
    assert run.stdout.split()[-1] == detrex.__version__
