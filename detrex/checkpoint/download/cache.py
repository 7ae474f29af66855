"""Where a fetched file lies: torch's folder, with the hash in its name.

A file whose name carries its hash (``resnet50-11ad3fa6.pth``) lies in
``$TORCH_HOME/hub/checkpoints`` under that name, as torch and torchvision put it, so what they have
fetched is found. Other names say too little (there are many ``model.pth``): such a file lies in a
folder of its host and path.
"""

import hashlib
import os
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

import torch

from detrex.checkpoint.download.urls import WebAddress, shown
from detrex.errors import DownloadError
from detrex.files import sha256_of

_HASH = re.compile(r"-([0-9a-f]{8,64})\.\w+$")
# What stores of files sign an address with.
_SIGNING = re.compile(
    r"(x-(amz|goog|oss|cos|obs)-[^=]*|(aws)?accesskeyid|googleaccessid|key-pair-id|policy|expires|"
    r"signature|sig|(access_|auth_|private_)?token|api_?key|password|passwd|secret)(=|$)",
    re.IGNORECASE,
)
_LONGEST_NAME = 180  # bytes; file systems take 255, and a lock's name is longer
_LONGEST_PATH = 1500
_DATE = re.compile(r"(19|20)\d\d(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])")


def cache_dir() -> Path:
    """The folder of fetched weights, that of torch: ``torch.hub.get_dir()/checkpoints``."""
    return Path(torch.hub.get_dir()) / "checkpoints"


def cached_path(url: str) -> Path:
    """Say where in the cache the file at an address lies, or would lie.

    Args:
        url: an ``http://`` or ``https://`` address; credentials in it and signatures, which change
            from one day to the next, play no part.

    Returns:
        A path in `cache_dir`; different addresses share one only where the name carries a hash.

    Raises:
        DownloadError: the address names no file.
    """
    parts = urlsplit(WebAddress.of(url).url)
    path = unquote(parts.path, errors="surrogateescape")
    if not path.isprintable():
        path = parts.path
    steps = [_short(step) for step in path.split("/") if step not in ("", ".", "..")]
    if not steps:
        raise DownloadError(
            f"the address {shown(url)} names no file: expected one such as https://a/b.pth"
        )
    if hash_in_name(steps[-1]):
        return cache_dir() / steps[-1]
    if query := "&".join(pair for pair in parts.query.split("&") if not _SIGNING.match(pair)):
        steps[-1] = f"{hashlib.sha256(query.encode()).hexdigest()[:8]}-{steps[-1]}"
    if len(os.fsencode("/".join(steps))) > _LONGEST_PATH:
        steps = [_short("/".join(steps[:-1]), 0), steps[-1]]
    return cache_dir().joinpath(_short(parts.netloc.replace(":", "_")), *steps)


def _short(step: str, longest: int = _LONGEST_NAME) -> str:
    """Shorten a name that file systems refuse to a hash and its end, which tells its kind."""
    if len(os.fsencode(step)) <= longest:
        return step
    end = os.fsencode(step)[-longest // 2 :].decode(errors="ignore") if longest else ""
    return hashlib.sha256(os.fsencode(step)).hexdigest()[:16] + end.replace("/", "_")


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
