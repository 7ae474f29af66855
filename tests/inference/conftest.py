import pytest

import detrex
from tests.reference.tiny_run import write_run


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A folder with ``data`` and ``run``; not to be changed."""
    folder = tmp_path_factory.mktemp("trained")
    write_run(folder)
    return folder


@pytest.fixture(scope="session")
def detector(trained):
    return detrex.load(trained / "run", threshold=0.0)
