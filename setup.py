"""Build step that pyproject.toml cannot state: the wheel holds the configs of this checkout."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent


class BuildPyWithConfigs(build_py):
    """Copy ``configs/`` to ``detrex/config/configs``, where ``get_config`` looks for them."""

    def run(self) -> None:
        """Build the package from an empty folder, then add the configs.

        An editable install reads the configs of the checkout and gets no copy.
        """
        package = Path(self.build_lib) / "detrex"
        if not self.editable_mode:
            # `pip install .` builds in the checkout, where an earlier build may have left modules
            # that were deleted since.
            shutil.rmtree(package, ignore_errors=True)
        super().run()
        if not self.editable_mode:
            shutil.copytree(
                ROOT / "configs",
                package / "config" / "configs",
                ignore=shutil.ignore_patterns("__pycache__", "*.pyc"),
            )


setup(cmdclass={"build_py": BuildPyWithConfigs})
