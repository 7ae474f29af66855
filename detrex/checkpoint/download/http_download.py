"""One file over HTTP: within bounds, continued after a fault, verified, whole or not there."""

import errno
import hashlib
import http.client
import logging
import os
import re
import shutil
import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from detrex.checkpoint.download.cache import cached_path, has_promised_hash, hash_in_name
from detrex.checkpoint.download.connections import opener, proxy_secrets
from detrex.checkpoint.download.turns import (
    PARTIAL,
    beside,
    open_own,
    read_note,
    tidy,
    turn,
    write_note,
)
from detrex.checkpoint.download.urls import WebAddress, brief, shown, without_secrets
from detrex.checkpoint.download.watch import Limits, OutOfBoundsError, Watch
from detrex.errors import DownloadError
from detrex.files import add_to_digest, foreign_kind

logger = logging.getLogger(__name__)

TIMEOUT_SECONDS = 30.0
"""For how long a server may be silent, where ``DETREX_DOWNLOAD_TIMEOUT`` does not say."""
WAITS_SECONDS = (1.0, 3.0, 9.0)
"""Pauses before each further attempt after a passing failure."""
REMEDY = "give the path of a file that you have fetched by other means"
"""What helps whatever the failure is."""
DAMAGED = ".damaged"
"""What is put behind the name of a file in the cache that turned out to be none."""

Check = Callable[[Path, str], str]
"""Says what is wrong with a file that shall have a name, empty where it is whole."""

_CHUNK = 1 << 20
_PASSING_CODES = (408, 425, 429, 500, 502, 503, 504)
_STRONG_TAG = re.compile(r'"[\x21\x23-\x7e]{1,200}"')


def no_page(file: Path, name: str) -> str:
    """The least `Check`: what a portal or a server that has nothing gives in place of a file."""
    with file.open("rb") as stream:
        return foreign_kind(stream.read(64))


def fetch_url(url: str, check: Check = no_page) -> Path:
    """Get the file at an address, from the cache or else over the network.

    Args:
        url: an ``http://`` or ``https://`` address.
        check: tells whether what has come, or lies in the cache, is a whole file of its kind; not
            asked where the file's name carries its hash.

    Returns:
        The path of a whole file, of the right hash where its name carries one.

    Raises:
        DownloadError: it cannot be fetched or kept, or is not what it should be.
    """
    address, target = WebAddress.of(url), cached_path(url)
    limits = Limits.from_environment(TIMEOUT_SECONDS)
    try:
        if _fault(target, check) is None:
            tidy(target)
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        with turn(target, limits.lock) as waited:
            fault = _fault(target, check)
            if fault:
                logger.warning("%s %s: fetching %s again", target, fault, shown(url))
            if fault is not None:
                job = _Job(address, shown(url), target, check, Watch(limits), fault)
                _fetch_patiently(job, WAITS_SECONDS[:1] if waited else WAITS_SECONDS)
    except DownloadError:
        raise
    except (OSError, NotImplementedError) as error:
        raise DownloadError(
            f"{shown(url)} cannot be kept in {target.parent} ({reason_of(error)}): set TORCH_HOME "
            f"to a folder that you may write to, or {REMEDY}"
        ) from error
    return target


def _fault(target: Path, check: Check) -> str | None:
    """Say what is wrong with a file in the cache; None for nothing, empty where there is none."""
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, f"{target.name} is a folder there")
    if not target.is_file():
        return ""
    if hash_in_name(target.name):
        return None if has_promised_hash(target) else "is not the file that its name promises"
    why = check(target, target.name)
    return f"is no whole weights file ({why})" if why else None


@dataclass(frozen=True)
class _Job:
    """A file to fetch.

    Attributes:
        address: where it is.
        shown: how to call that.
        target: its place.
        check: see `fetch_url`.
        watch: ends it.
        fault: what is wrong with the one that is in its place.
    """

    address: WebAddress
    shown: str
    target: Path
    check: Check
    watch: Watch
    fault: str

    @property
    def partial(self) -> Path:
        return beside(self.target, PARTIAL)

    def told(self, why: str) -> str:
        """Write a reason to be shown: a server may repeat in it what it was sent."""
        return brief(without_secrets(why, *self.address.secrets, *proxy_secrets()))

    def error(self, why: str, cure: str) -> DownloadError:
        kept = f"; {self.target} in the cache {self.fault}" if self.fault else ""
        return DownloadError(
            f"cannot fetch {self.shown} ({self.told(why)}){kept}: {cure}, or {REMEDY}"
        )


class _BrokenOffError(ConnectionError):
    """The body did not come whole, or does not continue what came before."""


def _fetch_patiently(job: _Job, pauses: tuple[float, ...]) -> None:
    waits, keeps = iter(pauses), True
    try:
        while True:
            try:
                return _fetch_once(job)
            except DownloadError:
                keeps = False
                raise
            except (OSError, http.client.HTTPException, ValueError) as error:
                keeps, wait = _is_passing(error), next(waits, None)
                if wait is None or not keeps:
                    keeps = keeps or isinstance(error, OutOfBoundsError)
                    raise job.error(reason_of(error), "check the address and the network") from None
                why = job.told(reason_of(error))
                logger.warning("Fetching %s again in %g s (%s)", job.shown, wait, why)
            time.sleep(wait)
    finally:
        if not (keeps and _tag_of(job)):
            job.partial.unlink(missing_ok=True)


def _fetch_once(job: _Job) -> None:
    """Fetch into a file beside the target, and give it the target's name when it is right."""
    resumed, got = _ask(job)
    promised = hash_in_name(job.target.name)
    if promised:
        fault = "" if got.startswith(promised) else "is not the file that its name promises"
        fault += f" (sha256 {got[:16]}..., expected {promised}...)" if fault else ""
    else:
        why = job.check(job.partial, job.target.name)
        fault = f"is no whole weights file ({brief(why)})" if why else ""
    if fault and resumed:
        raise _drop(job, "the parts do not fit together")
    if fault:
        raise DownloadError(f"what {job.shown} gave {fault}: check the address, or {REMEDY}")
    _put_in_place(job)


def _ask(job: _Job) -> tuple[bool, str]:
    """Fetch all of a file, or what is left of it; see `_transfer`."""
    tag = _tag_of(job)
    digest, have = hashlib.sha256(), 0
    if tag and job.partial.is_file() and not job.partial.is_symlink():
        have = add_to_digest(job.partial, digest)
    request = urllib.request.Request(job.address.url, headers={"User-Agent": "detrex"})
    if job.address.authorization:
        request.add_header("Authorization", job.address.authorization)
    if have:
        request.add_header("Range", f"bytes={have}-")
        request.add_header("If-Range", tag)
    try:
        return job.watch.run(lambda: _transfer(job, request, have, tag, digest))
    except urllib.error.HTTPError as error:
        error.close()
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE or not have:
            raise
        if error.headers.get("Content-Range") != f"bytes */{have}":
            raise _drop(job, "it has another file by now") from error
        return True, digest.hexdigest()  # it had come whole


def _tag_of(job: _Job) -> str:
    """Give the server's tag of what has come, empty where there is none."""
    tag = str(read_note(job.target).get("tag", ""))
    return tag if _STRONG_TAG.fullmatch(tag) else ""


def _drop(job: _Job, why: str) -> _BrokenOffError:
    job.partial.unlink(missing_ok=True)
    return _BrokenOffError(why)


def _put_in_place(job: _Job) -> None:
    with job.partial.open("rb") as file:
        os.fsync(file.fileno())
    if job.fault:
        job.target.replace(beside(job.target, DAMAGED))
        logger.warning("What lay there is now %s", beside(job.target, DAMAGED))
    job.partial.replace(job.target)


def _transfer(
    job: _Job, request: urllib.request.Request, have: int, tag: str, digest: "hashlib._Hash"
) -> tuple[bool, str]:
    """Ask for a file and write what comes; tell whether it continued, and the sha256 of all."""
    limits = job.watch.limits
    with opener(job.watch).open(request, timeout=limits.silence) as response:
        job.watch.arrived(0)  # headers may have ended because it was given up
        new_tag = response.headers.get("ETag", "")
        resumed = response.status == http.HTTPStatus.PARTIAL_CONTENT and bool(have)
        total = _length(response, job)
        if resumed:
            total = _length_of_all(response, job, have, agrees=new_tag == tag)
        elif response.status != http.HTTPStatus.OK:
            raise job.error(f"HTTP {response.status} {response.reason}", "check the address")
        else:
            digest, have = hashlib.sha256(), 0
            job.partial.unlink(missing_ok=True)  # before it could be taken for what has this tag
            write_note(job.target, new_tag if _STRONG_TAG.fullmatch(new_tag) else "")
        _require_room(job, total, have)
        bar = _progress(job.target.name, have, total)
        with _disk_full_told(job), bar as note, open_own(job.partial, have) as file:
            while chunk := response.read1(_CHUNK):
                job.watch.arrived(len(chunk))
                have += len(chunk)
                _require_room(job, have, have)
                file.write(chunk)
                digest.update(chunk)
                note(len(chunk))
    if total is not None and have != total:
        raise _BrokenOffError(f"{have} of {total} bytes arrived")
    return resumed, digest.hexdigest()


def _length(response: http.client.HTTPResponse, job: _Job) -> int | None:
    """Read how many bytes come, None where the server does not say."""
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding.lower() != "identity":
        raise job.error(f"the server packs it as {encoding}", "name the file itself")
    lengths = set(response.headers.get_all("Content-Length", []))
    if "chunked" in response.headers.get("Transfer-Encoding", "").lower() or not lengths:
        return None
    text = " and ".join(sorted(lengths))
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise job.error(f"its Content-Length is {text[:40]!r}, which is no size", "tell its owner")
    return int(text)


def _length_of_all(
    response: http.client.HTTPResponse, job: _Job, have: int, *, agrees: bool
) -> int:
    """Read how many bytes a file has of which the rest comes."""
    span = re.fullmatch(
        r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})",
        response.headers.get("Content-Range", ""),
    )
    first, last, total = (int(word) for word in span.groups()) if span else (0, 0, 0)
    if not agrees or first != have or last != total - 1:
        raise _drop(job, "the rest that came is of another file")
    return total


def _require_room(job: _Job, total: int | None, have: int) -> None:
    limit = job.watch.limits.size
    if (total or 0) > limit:
        raise job.error(
            f"it has {'more than ' if total == have else ''}{_size(total)}",
            f"set DETREX_DOWNLOAD_MAX_BYTES, which is {limit:g}, higher",
        )
    if total is not None and total > have:
        free = shutil.disk_usage(job.target.parent).free
        if total - have > free:
            raise _disk_full(job, f"{_size(total - have)} are needed and {_size(free)} are free")


def _disk_full(job: _Job, why: str) -> DownloadError:
    folder = job.target.parent
    return job.error(
        f"the disk is full: {why}", f"make room in {folder}, set TORCH_HOME to another disk"
    )


@contextmanager
def _disk_full_told(job: _Job) -> Iterator[None]:
    """Tell a full disk from what goes wrong on the way."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise _disk_full(job, error.strerror or "no space left") from error
        raise


@contextmanager
def _progress(name: str, done: int, total: int | None) -> Iterator[Callable[[int], None]]:
    """Draw how far it is on a terminal, else log it."""
    name = brief(name, 80)
    if sys.stderr.isatty():
        from tqdm import tqdm

        keywords = {"total": total, "initial": done, "desc": name, "leave": False}
        with tqdm(**keywords, unit="B", unit_scale=True) as bar:
            yield bar.update
        return
    # No bar that is only disabled: tqdm takes a lock of all processes, which a killed one keeps.
    marks = iter((0.25, 0.5, 0.75))
    mark = next(marks)
    logger.info("Fetching %s (%s)", name, _size(total))

    def note(count: int) -> None:
        nonlocal done, mark
        done += count
        if total and mark <= done / total < 1:
            logger.info("Fetching %s: %.0f %%", name, 100 * done / total)
            mark = next((later for later in marks if later > done / total), 2)

    yield note


def _is_passing(error: BaseException) -> bool:
    """Whether the same request may succeed in a moment."""
    if isinstance(error, urllib.error.HTTPError):
        return error.code in _PASSING_CODES
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(reason, ConnectionRefusedError | ssl.SSLCertVerificationError | OutOfBoundsError):
        return False
    passing = (TimeoutError, ConnectionError, http.client.HTTPException, ssl.SSLError)
    return isinstance(reason, passing)


def reason_of(error: object) -> str:
    """Give the first line of what an error says, or its kind where it says nothing."""
    text = str(getattr(error, "reason", "") or getattr(error, "strerror", "") or error).strip()
    if isinstance(error, urllib.error.HTTPError):
        text = f"HTTP {error.code} {error.reason}"
    elif isinstance(error, http.client.IncompleteRead):
        text = "the connection closed within the body"
    elif type(error) is http.client.BadStatusLine:
        text = "what answers is no web server"
    return brief(text.splitlines()[0].rstrip(".:")) if text else type(error).__name__


def _size(count: int | None) -> str:
    if count is None:
        return "of unknown size"
    return f"{count / 1e6:.1f} MB" if count < 1e10 else f"{count / 1e9:.0f} GB"
