import socket
import threading

import pytest

from detrex.errors import ConfigError, DetrexError
from detrex.utils.meeting import meet


def together(url, ranks, world_size, timeout=10.0):
    """Let ranks meet in threads, and give what each of them got."""
    got = {}

    def one(rank):
        try:
            got[rank] = meet(url, rank, world_size, timeout)
        except DetrexError as error:
            got[rank] = error

    threads = [threading.Thread(target=one, args=(rank,)) for rank in ranks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return got


def test_meet__in_a_file_that_an_old_run_left(tmp_path):
    url = f"file://{tmp_path}/meeting"
    for timeout in (10.0, 9.0, 8.0):
        got = together(url, range(3), 3, timeout)
        got[1].store.set("key", f"of {timeout}")
        assert got[2].signs.get("key") == f"of {timeout}".encode()
        assert (got[2].rank, got[2].world_size, got[2].timeout) == (2, 3, timeout)


def test_meet__who_is_missing(tmp_path):
    got = together(f"file://{tmp_path}/meeting", (0, 2), 4, timeout=0.6)
    assert "2 of 4 have, rank(s) 1, 3 have not (train.timeouts.collective=0.6 s)" in str(got[0])
    assert "not all 4 have, or rank 0 is stopped" in str(got[2])


@pytest.mark.parametrize("url", ["tcp://", "tcp://host", "tcp://host:port", "http://host:80", "x"])
def test_meet__no_place(url):
    with pytest.raises(ConfigError, match="is no place to meet: expected tcp://"):
        meet(url, 0, 2, 1.0)


def test_meet__port_that_is_taken():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(ConfigError, match=r"cannot open tcp://127.0.0.1:.*choose another port"):
            meet(f"tcp://127.0.0.1:{other.getsockname()[1]}", 0, 2, 1.0)
