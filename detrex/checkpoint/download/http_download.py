"""One download over HTTP: tried again after a passing fault, verified, whole or not there."""

import hashlib
import http.client
import logging
import os
import ssl
import sys
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path

from detrex.checkpoint.download.cache import cached_path, hash_in_name, is_right, one_at_a_time
from detrex.errors import DownloadError

logger = logging.getLogger(__name__)

TIMEOUT_SECONDS = 30.0
"""For how long a server may be silent."""
WAITS_SECONDS = (1.0, 3.0, 9.0)
"""Pauses before each further attempt after a passing failure."""
REMEDY = "give the path of a file that you have fetched by other means"
"""What helps whatever the failure is."""

_CHUNK = 1 << 20
_PASSING_CODES = (408, 425, 429, 500, 502, 503, 504)


def fetch_url(url: str) -> Path:
    """Get the file at an address, from the cache or else over the network.

    Args:
        url: an ``http://`` or ``https://`` address.

    Returns:
        The path of a whole file, of the right hash where its name carries one.

    Raises:
        DownloadError: it cannot be fetched, or is not the file that its name promises.
    """
    target = cached_path(url)
    if is_right(target, url):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with one_at_a_time(target):
        if not is_right(target, url):
            _download_patiently(url, target)
    return target


def _download_patiently(url: str, target: Path) -> None:
    waits = iter(WAITS_SECONDS)
    while True:
        try:
            return _download(url, target)
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, DownloadError):
                raise
            wait = next(waits, None)
            if wait is None or not _is_passing(error):
                raise DownloadError(
                    f"cannot fetch {url} ({reason_of(error)}): check the address and the network, "
                    f"or {REMEDY}"
                ) from error
            logger.warning("Fetching %s again in %g s (%s)", url, wait, reason_of(error))
            time.sleep(wait)


def _download(url: str, target: Path) -> None:
    """Fetch into a file beside the target, and give it the target's name when it is right."""
    part = target.with_name(f"{target.name[:100]}.{uuid.uuid4().hex}.partial")
    request = urllib.request.Request(url, headers={"User-Agent": "detrex"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:
            got, length = _copy(response, part, target.name)
        size = part.stat().st_size
        if length is not None and size != length:
            raise _TruncatedError(f"{size} of {length} bytes arrived")
        promised = hash_in_name(target.name)
        if not got.startswith(promised):
            raise DownloadError(
                f"what {url} gave is not the file that its name promises (sha256 {got[:16]}..., "
                f"expected {promised}...): check the address, or {REMEDY}"
            )
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _copy(response: http.client.HTTPResponse, part: Path, name: str) -> tuple[str, int | None]:
    """Write the body to a file; give its sha256 and the length that the server announced."""
    from tqdm import tqdm

    header = response.headers.get("Content-Length")
    length = int(header) if header else None
    on_terminal = sys.stderr.isatty()
    if not on_terminal:
        logger.info("Fetching %s (%s)", name, _megabytes(length))
    digest, done, next_mark = hashlib.sha256(), 0, 0.25
    bar = tqdm(
        total=length, desc=name, unit="B", unit_scale=True, leave=False, disable=not on_terminal
    )
    with part.open("xb") as file, bar:
        while chunk := response.read(_CHUNK):
            file.write(chunk)
            digest.update(chunk)
            bar.update(len(chunk))
            done += len(chunk)
            if not on_terminal and length and next_mark <= done / length < 1:
                logger.info("Fetching %s: %.0f %%", name, 100 * done / length)
                next_mark = done / length + 0.25
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest(), length


class _TruncatedError(ConnectionError):
    """The connection closed before the whole body had come."""


def _is_passing(error: BaseException) -> bool:
    """Whether the same request may succeed in a moment."""
    if isinstance(error, urllib.error.HTTPError):
        return error.code in _PASSING_CODES
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(reason, ConnectionRefusedError | ssl.SSLCertVerificationError):
        return False
    passing = (TimeoutError, ConnectionError, http.client.HTTPException, ssl.SSLError)
    return isinstance(reason, passing)


def reason_of(error: object) -> str:
    """Give the first line of what an error says, or its kind where it says nothing."""
    text = str(getattr(error, "reason", "") or error).strip()
    if isinstance(error, urllib.error.HTTPError):
        text = f"HTTP {error.code} {error.reason}"
    return text.splitlines()[0].rstrip(".:") if text else type(error).__name__


def _megabytes(length: int | None) -> str:
    return "of unknown size" if length is None else f"{length / 1e6:.1f} MB"
