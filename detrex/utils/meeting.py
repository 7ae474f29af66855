"""Where the processes of a run meet: a store that all of them reach, and a name for this meeting.

The store may outlive a meeting (torchrun keeps one over restarts, a file may be an old run's), so
nothing found under a fixed key can be trusted. Each rank says hello with a number of its own, and
rank 0 answers under that number with the name it gave to this meeting; all else goes below it.
"""

import json
import logging
import os
import socket
import time
import uuid
from dataclasses import dataclass
from datetime import timedelta
from urllib.parse import urlsplit

from torch.distributed import DistError, FileStore, PrefixStore, Store, TCPStore

from detrex.errors import ConfigError, DetrexError, first_line

logger = logging.getLogger(__name__)

WARN_AFTER = 60.0
"""Seconds of waiting after which it is said who is waited for; less where less than twice that may
be waited."""

_SLICE = 15.0
_POLL = 0.05
_NEVER = 10 * 365 * 86400.0


@dataclass(frozen=True)
class Meeting:
    """What a process knows once all have come.

    Attributes:
        store: for the process group.
        signs: the same for the thread that gives signs of life, by a connection of its own.
        rank: this process.
        world_size: of how many.
        timeout: seconds that any of them waits for the others.
    """

    store: Store
    signs: Store
    rank: int
    world_size: int
    timeout: float


def seconds_or_never(seconds: float) -> float:
    """Read a time-out of the config, in which 0 stands for never."""
    return float(seconds) or _NEVER


def warn_after(timeout: float) -> float:
    """Tell how many seconds of a wait pass before it is spoken of."""
    return min(WARN_AFTER, timeout / 2)


def identity() -> str:
    """Name this process for people: machine and process id."""
    return f"{socket.gethostname()}, process {os.getpid()}"


def meet(url: str, rank: int, world_size: int, timeout: float) -> Meeting:
    """Wait until all processes of a run have come.

    Args:
        url: ``tcp://host:port``, ``file:///path`` on a file system that all see, or ``env://``:
            torchrun's variables.
        rank: this process; -1 for that of torchrun's variables.
        world_size: how many come; -1 likewise.
        timeout: seconds after which who has come gives up.

    Raises:
        ConfigError: the URL is none of these, or its place cannot be used.
        DetrexError: not all came in time; it names those that did not.
    """
    if url == "env://":
        rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    deadline = time.monotonic() + timeout
    store, signs = _open(url, rank, world_size, deadline, timeout)
    try:
        name = _name_of_meeting(store, rank, world_size, deadline, timeout)
    except DistError as error:
        raise DetrexError(
            f"Rank {rank} ({identity()}) lost the place to meet, {_place(url)}, while it waited "
            f"for all {world_size} processes to come: the process of rank 0 or its torchrun ended."
        ) from error
    for one in (store, signs):
        one.set_timeout(timedelta(seconds=timeout))
    below = [PrefixStore(name, one) for one in (store, signs)]
    return Meeting(below[0], below[1], rank, world_size, timeout)


def _place(url: str) -> str:
    return (
        f"tcp://{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        if url[:3] == "env"
        else url
    )


def _open(
    url: str, rank: int, world_size: int, deadline: float, timeout: float
) -> tuple[Store, Store]:
    place = urlsplit(_place(url))
    if place.scheme == "file":
        return FileStore(place.path, -1), FileStore(place.path, -1)
    try:
        host, port = place.hostname, place.port
    except ValueError:
        host = port = None
    if place.scheme != "tcp" or not host or not port:
        raise ConfigError(
            f"--dist-url {url} is no place to meet: expected tcp://<address of machine 0>:<port>, "
            "or file:///<path> on a file system that all machines see."
        )
    agents = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True" and url == "env://"
    hosts = rank == 0 and not agents
    store = None
    if hosts:
        store = _host(host, port, place.geturl())
    first = store or _connect(host, port, rank, deadline, timeout)
    return first, _connect(host, port, rank, deadline, timeout)


def _host(host: str, port: int, url: str) -> Store:
    try:
        return TCPStore(host, port, None, True, timedelta(seconds=_SLICE), wait_for_workers=False)
    except (DistError, RuntimeError) as error:
        raise ConfigError(
            f"Rank 0 ({identity()}) cannot open {url} for the others ({first_line(error)}): "
            "choose another port, and the address of machine 0."
        ) from error


def _connect(host: str, port: int, rank: int, deadline: float, timeout: float) -> Store:
    start, warned = time.monotonic(), False
    while True:
        left = deadline - time.monotonic()
        try:
            slice_ = timedelta(seconds=max(0.1, min(left, _SLICE, warn_after(timeout))))
            return TCPStore(host, port, None, False, slice_, wait_for_workers=False)
        except (DistError, RuntimeError) as error:
            waited = time.monotonic() - start
            if waited >= timeout - 0.1:
                raise DetrexError(
                    f"Rank {rank} ({identity()}) found nobody at tcp://{host}:{port} within "
                    f"{waited:.0f} s ({first_line(error)}): start the process of rank 0 there, "
                    "let its port through, or correct --dist-url; train.timeouts.collective="
                    f"{timeout:g} is how long to wait."
                ) from error
            if waited >= warn_after(timeout) and not warned:
                warned = True
                logger.warning(
                    "Rank %d (%s) has waited %.0f s for rank 0 to open tcp://%s:%d.",
                    *(rank, identity(), waited, host, port),
                )
            time.sleep(_POLL)


def _name_of_meeting(
    store: Store, rank: int, world_size: int, deadline: float, timeout: float
) -> str:
    hello = uuid.uuid4().hex
    store.set(f"hello/{rank}", json.dumps([hello, identity()]))
    names = {hello: hello}  # by hello: the name that rank 0 answers with
    came: set[int] = set()
    warned = False
    pause = _POLL
    while True:
        if rank == 0:
            came |= _answer(store, world_size, hello, names, came)
            if len(came) == world_size:
                store.set(f"{hello}/complete", "1")
                return hello
        elif store.check([f"answer/{hello}"]):
            name = store.get(f"answer/{hello}").decode()
            if not store.check([f"{name}/came/{rank}"]):
                store.set(f"{name}/came/{rank}", identity())
            if store.check([f"{name}/complete"]):
                return name
        left = deadline - time.monotonic()
        if left < 0:
            raise DetrexError(_who_is_missing(rank, world_size, came, timeout, timeout))
        if timeout - left > warn_after(timeout) and not warned:
            warned = True
            logger.warning("%s", _who_is_missing(rank, world_size, came, timeout - left, timeout))
        time.sleep(pause)
        pause = min(pause * 1.3, 0.5)


def _answer(
    store: Store, world_size: int, name: str, names: dict[str, str], came: set[int]
) -> set[int]:
    """Answer those who say hello, and tell who has read the answer."""
    found = {0}
    for rank in range(1, world_size):
        if rank in came or not store.check([f"hello/{rank}"]):
            continue
        hello, _ = json.loads(store.get(f"hello/{rank}"))
        if hello not in names:
            names[hello] = name
            store.set(f"answer/{hello}", name)
        if store.check([f"{name}/came/{rank}"]):
            found.add(rank)
    return found


def _who_is_missing(
    rank: int, world_size: int, came: set[int], waited: float, timeout: float
) -> str:
    start = f"Rank {rank} ({identity()}) has waited {waited:.0f} s for all processes to come"
    end = f"(train.timeouts.collective={timeout:g} s)"
    if rank:
        return (
            f"{start}: not all {world_size} have, or rank 0 is stopped {end}; rank 0's log names "
            "those that are missing."
        )
    missing = [str(other) for other in range(world_size) if other not in came]
    listed = ", ".join(missing[:8]) + (", ..." if len(missing) > 8 else "")
    return (
        f"{start}: {len(came)} of {world_size} have, rank(s) {listed} have not {end}; start the "
        "machines that are missing with the same place to meet, and look into their logs."
    )
