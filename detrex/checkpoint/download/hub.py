"""Files of the Hugging Face hub: huggingface_hub fetches, verifies and caches; here it is bounded.

Its client has a timeout for each read and none in all, so it works under the `Watch` of the other
downloads. It heeds ``HF_HOME``, ``HF_TOKEN``, ``HF_ENDPOINT`` and ``HF_HUB_OFFLINE``.
"""

import logging
import math
import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from detrex.checkpoint.download.http_download import (
    DAMAGED,
    REMEDY,
    TIMEOUT_SECONDS,
    Check,
    no_page,
    reason_of,
)
from detrex.checkpoint.download.turns import beside
from detrex.checkpoint.download.urls import brief, without_secrets
from detrex.checkpoint.download.watch import Limits, OutOfBoundsError, Watch
from detrex.errors import DownloadError

logger = logging.getLogger(__name__)

_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.bin",
)


def fetch_from_hub(address: str, check: Check = no_page) -> Path:
    """Fetch a file of the hub.

    Args:
        address: ``owner/name[@revision][/file]``; by default the file is one of the usual names.
        check: as for `detrex.checkpoint.download.fetch`.

    Returns:
        Its path in the cache of huggingface_hub.

    Raises:
        DownloadError: it cannot be fetched, or is not what it should be; it has a cause where the
            repository has no such file.
    """
    named = f"hf-hub:{brief(address.partition('?')[0])}"
    try:
        import huggingface_hub
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
        from huggingface_hub.utils import get_session
    except ImportError as error:
        raise DownloadError(
            f"cannot fetch {named}, as huggingface_hub is not installed: "
            f"`pip install huggingface_hub`, or {REMEDY}"
        ) from error
    repository, revision, names = _parts_of(address.partition("?")[0], named)

    def get(name: str, local_files_only: bool, force_download: bool = False) -> str:
        _guard(get_session())  # before version 1 each thread has a session of its own
        return huggingface_hub.hf_hub_download(
            repository,
            name,
            revision=revision,
            endpoint=os.environ.get("HF_ENDPOINT"),
            local_files_only=local_files_only,
            force_download=force_download,
        )

    limits = Limits.from_environment(TIMEOUT_SECONDS)
    there = _incomplete(repository)
    _remove(file for file in there if time.time() - _written(file) > limits.lock)
    run = partial(
        Watch(limits).run,
        progress=partial(_arrived, repository),
        stop=getattr(huggingface_hub, "close_session", lambda: None),
    )
    only_cached = False
    reason: Exception | None = None
    for name in names:
        work = partial(get, name, local_files_only=only_cached)
        try:
            file = Path(run(work))
            if why := check(file, file.name):
                again = partial(run, partial(work, force_download=True))
                return _mended(file, why, again, check)
            return file
        except LocalEntryNotFoundError as error:
            reason, only_cached = reason or error, True
        except EntryNotFoundError as error:
            reason = error
        except DownloadError:
            raise
        except Exception as error:
            if isinstance(error, OutOfBoundsError):
                _remove(_incomplete(repository) - there)
            reason = error
            break
    cut_off = reason if isinstance(reason, LocalEntryNotFoundError) else None
    cause = cut_off.__cause__ if cut_off else None
    is_absent = isinstance(reason, EntryNotFoundError) and not cut_off
    raise DownloadError(
        f"cannot fetch {named} ({_why(cause or reason)}), looked for {brief(' or '.join(names))}: "
        f"check the name and the network, or {REMEDY}"
    ) from (reason if is_absent else None)


def _guard(session: Any) -> None:
    """Let the client name no file of its cache as a server likes: it takes tags for bare names."""
    hooks = getattr(session, "event_hooks", None) or session.hooks  # of httpx, or of requests
    if _refuse_path not in hooks["response"]:
        hooks["response"] = [*hooks["response"], _refuse_path]


def _refuse_path(response: Any, *_: object, **__: object) -> None:
    for header in ("ETag", "X-Linked-Etag", "X-Repo-Commit"):
        name = response.headers.get(header, "").removeprefix("W/")
        if "/" in name or "\\" in name:
            raise DownloadError(
                f"the hub's server names a file {brief(name, 60)!r}, which leads out of the cache: "
                f"check HF_ENDPOINT, or {REMEDY}"
            )


def _mended(file: Path, why: str, again: Callable[[], str], check: Check) -> Path:
    """Fetch once more what lies damaged in the cache."""
    logger.warning("%s is no whole weights file (%s): fetching it again", file, why)
    try:
        new = Path(again())
    except Exception as error:
        raise DownloadError(
            f"{file} in the cache is no whole weights file ({why}), and it cannot be fetched "
            f"again ({_why(error)}): check the network, or {REMEDY}"
        ) from None
    if why := check(new, new.name):
        blob = new.resolve()
        blob.replace(beside(blob, DAMAGED))
        new.unlink(missing_ok=True)
        raise DownloadError(
            f"what the hub gave as {new.name} is no whole weights file ({why}), it is now "
            f"{beside(blob, DAMAGED)}: name another file, or {REMEDY}"
        )
    return new


def _why(error: object) -> str:
    token = os.environ.get("HF_TOKEN") or ""
    return brief(without_secrets(reason_of(error), token, token.strip()))


def _blobs(repository: str) -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}" / "blobs"


def _incomplete(repository: str) -> set[Path]:
    """Find what is being fetched, or was when its process died: each attempt has its own file."""
    return set(_blobs(repository).glob("*.????????.incomplete"))


def _written(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except OSError:  # it is there no more
        return math.inf


def _remove(files: Iterable[Path]) -> None:
    for file in files:
        with suppress(OSError):  # another process was first
            file.unlink()


def _arrived(repository: str) -> int:
    """Count the bytes of a repository that are on this machine."""
    count = 0
    for file in _blobs(repository).glob("*"):
        with suppress(OSError):  # renamed meanwhile
            status = file.stat()
            count += getattr(status, "st_blocks", 0) * 512 or status.st_size
    return count


def _parts_of(address: str, named: str) -> tuple[str, str | None, tuple[str, ...]]:
    """Read ``owner/name[@revision][/file]``: repository, revision, files to look for."""
    owner, _, rest = address.partition("/")
    name, _, file = rest.partition("/")
    name, _, revision = name.partition("@")
    if not owner or not name:
        raise DownloadError(
            f"the address {named} names no repository of the Hugging Face hub: expected "
            "hf-hub:owner/name or hf-hub:owner/name/file"
        )
    return f"{owner}/{name}", revision or None, (file,) if file else _FILES
