import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from tests.reference.clean_logging import restored_loggers


@pytest.fixture(autouse=True, scope="module")
def _loggers():
    with restored_loggers():
        yield


@pytest.fixture(autouse=True, scope="module")
def _datasets():
    """Forget the data sets that a module's configs register."""
    before = set(DatasetCatalog.list())
    yield
    for name in set(DatasetCatalog.list()) - before:
        DatasetCatalog.remove(name)
        MetadataCatalog.pop(name, None)
