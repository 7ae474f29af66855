"""Where a fetched file lies: torch's folder, with the hash in its name, one process at a time.

A file whose name carries its hash (``resnet50-11ad3fa6.pth``) lies in
``$TORCH_HOME/hub/checkpoints`` under that name, as torch and torchvision put it, so what they have
fetched is found. Other names say too little (there are many ``model.pth``): such a file lies in a
folder of its host and path.
"""

import hashlib
import logging
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

import torch

from detrex.errors import DownloadError
from detrex.files import sha256_of

logger = logging.getLogger(__name__)

_HASH = re.compile(r"-([0-9a-f]{8,64})\.\w+$")
_DATE = re.compile(r"(19|20)\d\d(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])")


def cache_dir() -> Path:
    """The folder of fetched weights, that of torch: ``torch.hub.get_dir()/checkpoints``."""
    return Path(torch.hub.get_dir()) / "checkpoints"


def cached_path(url: str) -> Path:
    """Say where in the cache the file at an address lies, or would lie.

    Args:
        url: an ``http://`` or ``https://`` address.

    Returns:
        A path in `cache_dir`; different addresses share one only where the name carries a hash.

    Raises:
        DownloadError: the address names no file.
    """
    parts = urlsplit(url)
    steps = [step for step in unquote(parts.path).split("/") if step not in ("", ".", "..")]
    if not steps or not parts.hostname:
        raise DownloadError(
            f"the address {url} names no file: expected one such as https://a/b.pth"
        )
    if hash_in_name(steps[-1]):
        return cache_dir() / steps[-1]
    if parts.query:
        steps[-1] = f"{hashlib.sha256(parts.query.encode()).hexdigest()[:8]}-{steps[-1]}"
    return cache_dir().joinpath(parts.netloc.rpartition("@")[2].replace(":", "_"), *steps)


def hash_in_name(name: str) -> str:
    """Find the start of a file's sha256 in its name.

    Args:
        name: such as ``"resnet50-11ad3fa6.pth"``.

    Returns:
        Eight to 64 hexadecimal digits, or an empty string where there are none; eight that are a
        date (``-20230131.pth``) are no hash.
    """
    found = _HASH.search(name)
    return "" if found is None or _DATE.fullmatch(found.group(1)) else found.group(1)


def has_promised_hash(file: Path) -> bool:
    """Tell whether a file's name carries the start of its sha256, as those of torch do.

    Args:
        file: a path; what is no file has no hash.
    """
    promised = hash_in_name(file.name)
    return bool(promised) and file.is_file() and sha256_of(file).startswith(promised)


def is_right(file: Path, url: str) -> bool:
    """Tell whether the cache holds the file of an address.

    Args:
        file: its place in the cache.
        url: the address; a file of another hash than its name promises is warned of.
    """
    if not file.is_file():
        return False
    if not hash_in_name(file.name) or has_promised_hash(file):
        return True
    logger.warning("%s is not the file that its name promises: fetching %s again", file, url)
    return False


@contextmanager
def one_at_a_time(target: Path) -> Iterator[None]:
    """Let the processes of a machine fetch a file once; without locks each fetches its own copy.

    Args:
        target: the file's place in the cache.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    name = f"detrex-fetch-{os.getuid()}-{hashlib.sha256(os.fsencode(target)).hexdigest()[:16]}.lock"
    with (Path(tempfile.gettempdir()) / name).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
