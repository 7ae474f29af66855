"""From an address to a file, by its scheme.

http(s)://...                      -> the cache
detectron2://..., catalog://...    -> its address at detectron2's server -> the cache
hf-hub:owner/name[@revision][/file] -> huggingface_hub and its cache
any other scheme                   -> detectron2's path manager
"""

import re
from pathlib import Path
from urllib.parse import urlsplit

from detrex.checkpoint.download.http_download import REMEDY, Check, fetch_url, no_page, reason_of
from detrex.checkpoint.download.hub import fetch_from_hub
from detrex.checkpoint.download.urls import shown, without_secrets
from detrex.errors import DownloadError

_HUB = re.compile(r"hf[-_]hub:(?://)?")
_NAME = r"[^/@]+/[^/@]+(?:@[^/]+)?"
_REPOSITORY = re.compile(f"{_HUB.pattern}{_NAME}/?")
_FILE_OF_REPOSITORY = re.compile(f"{_HUB.pattern}{_NAME}/[^/].*")


def is_address(source: str) -> bool:
    """Tell an address from a path.

    Args:
        source: what a user named.

    Returns:
        Whether `fetch` takes it.
    """
    return "://" in source or _HUB.match(source) is not None


def names_hub(source: str) -> bool:
    """Tell what is meant for the Hugging Face hub, well written or not, from all else."""
    return source.lower().startswith(("hf-hub:", "hf_hub:", "hf://"))


def is_repository(source: str) -> bool:
    """Tell the address of a whole repository, ``hf-hub:owner/name[@revision]``, from a file's."""
    return _REPOSITORY.fullmatch(source) is not None


def is_file_of_repository(source: str) -> bool:
    """Tell the address of a file on the hub, ``hf-hub:owner/name[@revision]/file``."""
    return _FILE_OF_REPOSITORY.fullmatch(source) is not None


def fetch(address: str, check: Check = no_page) -> Path:
    """Get the file at an address, from the cache or else over the network.

    Args:
        address: see the head of this module
        check: says what is wrong with a file that shall have a name, empty where it is whole; what
            is not is neither kept nor taken from the cache.

    Returns:
        The path of a whole file, of the right hash where its name carries one.

    Raises:
        DownloadError: it cannot be fetched, or is not what it should be.
    """
    if _HUB.match(address):
        return fetch_from_hub(_HUB.sub("", address), check)
    scheme, _, rest = address.partition("://")
    if scheme.lower() in ("http", "https"):
        return fetch_url(address, check)
    if scheme == "detectron2":
        return _fetch_of_detectron2(rest, check)
    return _fetch_by_path_manager(address, check)


def _fetch_of_detectron2(path: str, check: Check) -> Path:
    from detectron2.utils.file_io import Detectron2Handler
    from iopath.common.file_io import get_cache_dir

    url = Detectron2Handler.S3_DETECTRON2_PREFIX + path
    theirs = Path(get_cache_dir()) / urlsplit(url).path.lstrip("/")
    whole = theirs.is_file() and not check(theirs, theirs.name)
    return theirs if whole else fetch_url(url, check)


def _fetch_by_path_manager(address: str, check: Check) -> Path:
    """Leave an address to detectron2, where a user may have registered a scheme."""
    from detectron2.checkpoint.catalog import ModelCatalog
    from detectron2.utils.file_io import PathManager

    if address.lower().startswith(("ftp:", "ftps:")):
        raise DownloadError(
            f"cannot fetch {shown(address)}, as FTP has no bounds: use https://, or {REMEDY}"
        )
    try:
        if address.startswith("catalog://"):
            return fetch(ModelCatalog.get(address.removeprefix("catalog://")), check)
        path = Path(PathManager.get_local_path(address))
    except DownloadError:
        raise
    except Exception as error:
        secrets = (*re.findall(r"//(\S+)@", address), address.partition("?")[2])
        raise DownloadError(
            f"cannot fetch {shown(address)} ({without_secrets(reason_of(error), *secrets)}): check "
            f"the address, or {REMEDY}"
        ) from None
    if not path.exists():
        raise DownloadError(
            f"cannot fetch {shown(address)} (no handler of its scheme is registered with "
            f"detectron2's path manager): use https://, detectron2:// or hf-hub:, or {REMEDY}"
        )
    return path
