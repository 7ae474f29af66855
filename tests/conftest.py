"""What every test shares: one thread unless told, a fixed seed, a clean global state afterwards."""

import builtins
import os
import signal

import pytest
import torch

from detrex import files
from tests.reference.unregistered import unregistered

torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a script's shell has it for what it puts
    signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background


def pytest_runtest_setup(item):
    """Skip what needs a card where there is none."""
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")


@pytest.fixture(autouse=True)
def _seeded():
    """Seed before each test; restore what a config that fails to load may leave behind."""
    torch.manual_seed(0)
    original_import = builtins.__import__
    yield
    builtins.__import__ = original_import
    assert torch.get_default_dtype() == torch.float32


@pytest.fixture(autouse=True, scope="session")
def _findings(tmp_path_factory):
    """Keep what is found of networks in a folder of this run, and read nothing that others kept."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "default_cache_dir", lambda: folder)
        yield


@pytest.fixture(autouse=True, scope="module")
def _data_sets():
    """Forget the data sets that a module's tests register: names are taken for a whole process."""
    with unregistered():
        yield
