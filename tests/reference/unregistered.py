"""Names of data sets that a test registers, free again afterwards."""

from collections.abc import Iterator
from contextlib import contextmanager

from detectron2.data import DatasetCatalog, MetadataCatalog


@contextmanager
def unregistered() -> Iterator[None]:
    catalogues = (DatasetCatalog, MetadataCatalog)
    before = [set(catalogue.list()) for catalogue in catalogues]
    yield
    for catalogue, names in zip(catalogues, before, strict=True):
        for name in set(catalogue.list()) - names:
            catalogue.remove(name)
