"""A picture at an address: fetched into memory within bounds, and kept nowhere."""

import dataclasses
import http.client
import urllib.request
from functools import partial

from detrex.checkpoint.download import shown, without_secrets
from detrex.checkpoint.download.connections import opener, proxy_secrets
from detrex.checkpoint.download.http_download import reason_of
from detrex.checkpoint.download.urls import WebAddress
from detrex.checkpoint.download.watch import Limits, OutOfBoundsError, Watch
from detrex.errors import PictureError

MAX_BYTES = 100e6
"""The most bytes of a picture, where ``DETREX_DOWNLOAD_MAX_BYTES`` does not say less."""
MAX_SECONDS = 300.0
"""For how long it may take, where ``DETREX_DOWNLOAD_DEADLINE`` does not say less."""

_CHUNK = 1 << 16


def is_web_address(name: str) -> bool:
    """Tell an ``http://`` or ``https://`` address."""
    return name.lower().startswith(("http://", "https://"))


def fetch_picture(url: str) -> bytes:
    """Fetch a picture's file.

    Args:
        url: an ``http://`` or ``https://`` address.

    Returns:
        What the server gave.

    Raises:
        PictureError: it cannot be fetched, or passes a bound; see `Limits`.
        DownloadError: the address or a bound is wrong.
    """
    address, limits = WebAddress.of(url), Limits.from_environment()
    limits = dataclasses.replace(
        limits, size=min(limits.size, MAX_BYTES), total=min(limits.total, MAX_SECONDS)
    )
    watch = Watch(limits)
    try:
        return watch.run(partial(_read, address, watch))
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = without_secrets(reason_of(error), *address.secrets, *proxy_secrets())
        raise PictureError(
            f"{shown(url)} cannot be fetched ({reason:.160}): check the address and the network, "
            "or give the path of a file."
        ) from None


def _read(address: WebAddress, watch: Watch) -> bytes:
    headers = {"User-Agent": "detrex"}
    if address.authorization:
        headers["Authorization"] = address.authorization
    request = urllib.request.Request(address.url, headers=headers)
    data = bytearray()
    with opener(watch).open(request, timeout=watch.limits.silence) as response:
        promised = response.headers.get("Content-Length")
        while chunk := response.read(_CHUNK):
            watch.arrived(len(chunk))
            data += chunk
            if len(data) > watch.limits.size:
                raise OutOfBoundsError(f"it has more than {watch.limits.size:g} bytes")
    if promised is not None and promised.isdigit() and len(data) < int(promised):
        raise ConnectionError(f"it ended after {len(data)} of {promised} bytes")
    return bytes(data)
