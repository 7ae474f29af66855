"""A server on this machine, which does what servers do, and a cache of its own."""

import pytest

from detrex.checkpoint.download import http_download
from tests.reference.file_server import BODY, HASHED, serving


@pytest.fixture(autouse=True)
def _quick(tmp_path, monkeypatch):
    """A cache of its own, and no long pauses."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    for proxy in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(proxy, raising=False)
    monkeypatch.setattr(http_download, "WAITS_SECONDS", (0.01, 0.01))


@pytest.fixture
def server():
    with serving() as running:
        running.files = {HASHED: BODY, "/models/net.pth": BODY}
        yield running
