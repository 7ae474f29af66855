"""Addresses that lead nowhere, caches that cannot be used, and hubs of every kind on 127.0.0.1."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from huggingface_hub import constants

from detrex.checkpoint import read_state_dict
from detrex.checkpoint.download import cache_dir, cached_path, shown
from detrex.errors import DetrexError
from tests.faults.trials import Wrong, expect
from tests.reference.raw_server import answering, response

SECRET = "hunter2"
NOWHERE = (
    *("http:///x.pth", "http://", "https://:80/x.pth", "http://127.0.0.1", "http://127.0.0.1/"),
    *("http://127.0.0.1:99999/x.pth", "http://127.0.0.1:-1/x.pth", "http://127.0.0.1:9/x.pth"),
    *(
        "http://127.0.0.1:0/x.pth",
        "http://[::1/x.pth",
        "http://[::x]/x.pth",
        "https://127.0.0.1:9/x",
    ),
    *("http://127.0.0.1:9/%00.pth", "http://127.0.0.1:9/a\nb.pth", "http://127.0.0.1:9/\udcff.pth"),
    *("http://127.0.0.1:9/%2e%2e%2fx.pth", f"http://127.0.0.1:9/{'n' * 300}.pth"),
    *(f"http://127.0.0.1:9{'/dir' * 2000}/x.pth", "http://127.0.0.1:9/ü ä?ö=ß#ü"),
    *(f"http://user:{SECRET}@127.0.0.1:9/x.pth", f"http://user:{SECRET}/x@127.0.0.1:9/x.pth"),
    *(f"http://127.0.0.1:9/x.pth?X-Amz-Signature={SECRET}", f"http://:{SECRET}@127.0.0.1:x/y.pth"),
    *(f"http://{'a' * 300}.invalid/x.pth", "http://a..b/x.pth", "http://a b/x.pth"),
    *("ftp://127.0.0.1:9/x.pth", f"ftp://user:{SECRET}@127.0.0.1:9/x.pth", "nowhere://x.pth"),
    *("file:///etc/hostname", "data:,x://", "catalog://nothing", "detectron2://", "://x.pth"),
    *("hf-hub:", "hf-hub:name", "hf-hub:../..", "hf-hub:owner/name/../../x.pth", "hf-hub:a/b\0c"),
)


def ask_nowhere(address: str) -> None:
    """Read weights from an address at which nothing answers."""
    os.environ |= {"DETREX_DOWNLOAD_TIMEOUT": "0.2", "HF_ENDPOINT": "http://127.0.0.1:9"}
    constants.HF_HUB_CACHE = os.path.join(os.environ["HF_HOME"], "hub")
    try:
        read_state_dict(address)
    except DetrexError as error:
        expect(SECRET not in str(error), "a secret is in the message")
        raise


def _blocked(file: Path) -> None:
    cache_dir().parent.mkdir(parents=True)
    cache_dir().write_text("a file")


def _folder(file: Path) -> None:
    file.mkdir(parents=True)


def _link(ending: str) -> Callable[[Path], None]:
    def plant(file: Path) -> None:
        file.parent.mkdir(parents=True)
        file.with_name(file.name + ending).symlink_to(Path("precious").absolute())

    return plant


def _pipe(ending: str) -> Callable[[Path], None]:
    def plant(file: Path) -> None:
        file.parent.mkdir(parents=True)
        os.mkfifo(file.with_name(file.name + ending))

    return plant


def _unset(value: str) -> Callable[[Path], None]:
    return lambda file: os.environ.__setitem__("TORCH_HOME", value)


def _setting(name: str, value: str) -> Callable[[Path], None]:
    return lambda file: os.environ.__setitem__(f"DETREX_DOWNLOAD_{name}", value)


SURROUNDINGS = {
    "a file for the cache": _blocked,
    "a folder for the file": _folder,
    "no such TORCH_HOME": _unset("/proc/nowhere"),
    **{f"TIMEOUT {text!r}": _setting("TIMEOUT", text) for text in ("x", "0", "-1", "nan")},
    **{f"MAX_BYTES {text!r}": _setting("MAX_BYTES", text) for text in ("x", "0", "-1", "5")},
}
PLANTED = {
    **{f"a link for {ending}": _link(ending) for ending in (".lock", ".fetching", ".partial")},
    **{f"a pipe for {ending}": _pipe(ending) for ending in (".fetching", ".partial")},
}


def ask_amid(plant: Callable[[Path], None], body: bytes) -> None:
    """Read weights from a good server, where something is in the way."""
    Path("precious").write_bytes(b"data")
    os.environ["DETREX_DOWNLOAD_TIMEOUT"] = "0.2"
    try:
        with answering(lambda connection, *_: connection.sendall(response(body))) as server:
            plant(cached_path(server.url()))
            read_state_dict(server.url())
    finally:
        expect(Path("precious").read_bytes() == b"data", "a file was written through a link")
        for pipe in cache_dir().rglob("*.partial"):
            pipe.unlink()


def ask_hub(get: Callable[..., object], head: dict[str, str], body: bytes, right: bool) -> None:
    """Read weights from a hub that answers ``HEAD`` with some headers, and ``GET`` as it likes."""
    tag = f'"{hashlib.sha256(body).hexdigest()}"'
    facts = {"ETag": tag, "X-Repo-Commit": "0" * 40} | head

    def behave(connection: object, request: bytes, number: int) -> None:
        if request.startswith(b"HEAD"):
            connection.sendall(response(length=str(len(body)), **facts))
        else:
            get(connection, request, number)

    os.environ |= {"DETREX_DOWNLOAD_TIMEOUT": "0.2", "HF_TOKEN": f"hf_{SECRET * 4}"}
    constants.HF_HUB_CACHE = os.path.join(os.environ["HF_HOME"], "hub")
    with answering(behave) as server:
        os.environ["HF_ENDPOINT"] = server.url("").replace("//", f"//user:{SECRET}@")
        try:
            found = read_state_dict("hf-hub:owner/name/model.safetensors")
        except DetrexError as error:
            expect(SECRET not in str(error), "a secret is in the message")
            raise
    if not right:
        raise Wrong("no sentence")
    expect(sorted(found) == ["a", "b"], "other weights than the hub has")


def name_of(address: str) -> str:
    """Name a trial by its address."""
    return ascii(shown(address))[1:-1][:60]
