"""From an address to a file, by its scheme.

http(s)://...                      -> the cache
detectron2://..., catalog://...    -> its address at detectron2's server -> the cache
hf-hub:owner/name[@revision][/file] -> huggingface_hub and its cache
any other scheme                   -> detectron2's path manager
"""

import os
import re
from pathlib import Path
from urllib.parse import urlsplit

from detrex.checkpoint.download.http_download import REMEDY, fetch_url, reason_of
from detrex.errors import DownloadError

_HUB = re.compile(r"hf[-_]hub:(?://)?")
_HUB_FILES = (
    "model.safetensors",
    "pytorch_model.bin",
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.bin",
)


def is_address(source: str) -> bool:
    """Tell an address from a path.

    Args:
        source: what a user named.

    Returns:
        Whether `fetch` takes it.
    """
    return "://" in source or _HUB.match(source) is not None


def fetch(address: str) -> Path:
    """Get the file at an address, from the cache or else over the network.

    Args:
        address: see the head of this module

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
            f"cannot fetch {address} ({reason_of(error)}): check the address, or {REMEDY}"
        ) from error
    if not path.exists():
        raise DownloadError(
            f"cannot fetch {address} (no handler of its scheme is registered with detectron2's "
            f"path manager): use https://, detectron2:// or hf-hub:, or {REMEDY}"
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
            f"`pip install huggingface_hub`, or {REMEDY}"
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
        f"cannot fetch {address} ({reason_of(cause or reason)}), looked for "
        f"{' or '.join(names)}: check the name and the network, or {REMEDY}"
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
