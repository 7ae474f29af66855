"""Fetch weights once: verified, whole or not at all, and from the cache ever after.

    http(s)://...                      -> the cache
    detectron2://..., catalog://...    -> its address at detectron2's server -> the cache
    hf-hub:owner/name[@revision][/file] -> huggingface_hub and its cache
    any other scheme                   -> detectron2's path manager

The cache is that of torch, ``$TORCH_HOME/hub/checkpoints``. A file whose name carries its hash
(``resnet50-11ad3fa6.pth``) lies there under that name, as torch and torchvision put it, so what
they have fetched is found. Other names say too little (there are many ``model.pth``): such a file
lies in a folder of its host and path.
"""

import hashlib
import http.client
import logging
import os
import re
import ssl
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

import torch

from detrex.errors import DownloadError

logger = logging.getLogger(__name__)

TIMEOUT_SECONDS = 30.0
"""For how long a server may be silent."""
WAITS_SECONDS = (1.0, 3.0, 9.0)
"""Pauses before each further attempt after a passing failure."""

_CHUNK = 1 << 20
_HASH = re.compile(r"-([0-9a-f]{8,64})\.\w+$")
_DATE = re.compile(r"(19|20)\d\d(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])")
_PASSING_CODES = (408, 425, 429, 500, 502, 503, 504)
_HUB = re.compile(r"hf[-_]hub:(?://)?")
_HUB_FILES = (
    "model.safetensors",
    "pytorch_model.bin",
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.bin",
)
_REMEDY = "give the path of a file that you have fetched by other means"


def is_address(source: str) -> bool:
    """Tell an address from a path.

    Args:
        source: what a user named.

    Returns:
        Whether `fetch` takes it.
    """
    return "://" in source or _HUB.match(source) is not None


def cache_dir() -> Path:
    """The folder of fetched weights, that of torch: ``torch.hub.get_dir()/checkpoints``."""
    return Path(torch.hub.get_dir()) / "checkpoints"


def fetch(address: str) -> Path:
    """Get the file at an address, from the cache or else over the network.

    Args:
        address: see the head of this module.

    Returns:
        The path of a whole file, of the right hash where its name carries one.

    Raises:
        DownloadError: it cannot be fetched, or is not the file that its name promises.
    """
    if _HUB.match(address):
        return _fetch_from_hub(address)
    scheme, _, rest = address.partition("://")
    if scheme in ("http", "https"):
        return fetch_url(address)
    if scheme == "detectron2":
        return _fetch_of_detectron2(rest)
    return _fetch_by_path_manager(address)


def fetch_url(url: str) -> Path:
    """Get the file at an ``http://`` or ``https://`` address; see `fetch`."""
    target = cached_path(url)
    if _is_right(target, url):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with _one_at_a_time(target):
        if not _is_right(target, url):
            _download_patiently(url, target)
    return target


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
        steps[-1] = f"{_sha256_of(parts.query.encode())[:8]}-{steps[-1]}"
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
    return bool(promised) and file.is_file() and _sha256_of_file(file).startswith(promised)


def _is_right(file: Path, url: str) -> bool:
    """Whether the cache holds the file; one of another hash is reported and passed over."""
    if not file.is_file():
        return False
    if not hash_in_name(file.name) or has_promised_hash(file):
        return True
    logger.warning("%s is not the file that its name promises: fetching %s again", file, url)
    return False


@contextmanager
def _one_at_a_time(target: Path) -> Iterator[None]:
    """Let the processes of a machine fetch a file once; without locks each fetches its own copy."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    name = f"detrex-fetch-{os.getuid()}-{_sha256_of(os.fsencode(target))[:16]}.lock"
    with (Path(tempfile.gettempdir()) / name).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


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
                    f"cannot fetch {url} ({_reason(error)}): check the address and the network, "
                    f"or {_REMEDY}"
                ) from error
            logger.warning("Fetching %s again in %g s (%s)", url, wait, _reason(error))
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
                f"expected {promised}...): check the address, or {_REMEDY}"
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


def _fetch_of_detectron2(path: str) -> Path:
    from detectron2.utils.file_io import Detectron2Handler
    from iopath.common.file_io import get_cache_dir

    url = Detectron2Handler.S3_DETECTRON2_PREFIX + path
    fetched_by_detectron2 = Path(get_cache_dir()) / urlsplit(url).path.lstrip("/")
    return fetched_by_detectron2 if fetched_by_detectron2.is_file() else fetch_url(url)


def _fetch_by_path_manager(address: str) -> Path:
    """Leave an address to detectron2, where a user may have registered a scheme."""
    from detectron2.checkpoint.catalog import ModelCatalog
    from detectron2.utils.file_io import PathManager

    try:
        if address.startswith("catalog://"):
            return fetch(ModelCatalog.get(address.removeprefix("catalog://")))
        path = Path(PathManager.get_local_path(address))
    except DownloadError:
        raise
    except Exception as error:
        raise DownloadError(
            f"cannot fetch {address} ({_reason(error)}): check the address, or {_REMEDY}"
        ) from error
    if not path.exists():
        raise DownloadError(
            f"cannot fetch {address} (no handler of its scheme is registered with detectron2's "
            f"path manager): use https://, detectron2:// or hf-hub:, or {_REMEDY}"
        )
    return path


def _fetch_from_hub(address: str) -> Path:
    """Fetch from the Hugging Face hub; its client verifies, caches and heeds HF_HUB_OFFLINE."""
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
    except ImportError as error:
        raise DownloadError(
            f"cannot fetch {address}, as huggingface_hub is not installed: "
            f"`pip install huggingface_hub`, or {_REMEDY}"
        ) from error
    repository, revision, names = _parts_of_hub_address(address)
    endpoint, only_cached = os.environ.get("HF_ENDPOINT"), False
    reason: Exception | None = None
    for name in names:
        try:
            file = hf_hub_download(
                repository,
                name,
                revision=revision,
                endpoint=endpoint,
                local_files_only=only_cached,
            )
        except LocalEntryNotFoundError as error:
            reason, only_cached = reason or error, True
        except EntryNotFoundError as error:
            reason = error
        except Exception as error:
            reason = error
            break
        else:
            return Path(file)
    cause = reason.__cause__ if isinstance(reason, LocalEntryNotFoundError) else None
    raise DownloadError(
        f"cannot fetch {address} ({_reason(cause or reason)}), looked for "
        f"{' or '.join(names)}: check the name and the network, or {_REMEDY}"
    ) from reason


def _parts_of_hub_address(address: str) -> tuple[str, str | None, tuple[str, ...]]:
    """Read ``hf-hub:owner/name[@revision][/file]``: repository, revision, files to look for."""
    owner, _, rest = _HUB.sub("", address).partition("/")
    name, _, file = rest.partition("/")
    name, _, revision = name.partition("@")
    if not owner or not name:
        raise DownloadError(
            f"the address {address} names no repository of the Hugging Face hub: expected "
            "hf-hub:owner/name or hf-hub:owner/name/file"
        )
    return f"{owner}/{name}", revision or None, (file,) if file else _HUB_FILES


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


def _reason(error: object) -> str:
    """The first line of what an error says, or its kind where it says nothing."""
    text = str(getattr(error, "reason", "") or error).strip()
    if isinstance(error, urllib.error.HTTPError):
        text = f"HTTP {error.code} {error.reason}"
    return text.splitlines()[0].rstrip(".:") if text else type(error).__name__


def _megabytes(length: int | None) -> str:
    return "of unknown size" if length is None else f"{length / 1e6:.1f} MB"


def _sha256_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _sha256_of_file(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
