import pytest

from tests.reference.clean_logging import restored_loggers


@pytest.fixture(autouse=True)
def _loggers():
    with restored_loggers():
        yield
