"""Two machines of an elastic torchrun: network namespaces of this one, joined by a cable."""

import os
import signal
import subprocess
import sys
import uuid
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CABLE = "eth0"


def _ip(*words):
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True, timeout=20)


@contextmanager
def two_machines():
    """Make two namespaces, and give their names and addresses."""
    tag = uuid.uuid4().hex[:6]
    names = [f"detrex-{tag}-{i}" for i in (1, 2)]
    addresses = ["10.213.77.1", "10.213.77.2"]
    try:
        for name in names:
            _ip("netns", "add", name)
        _ip("link", "add", f"v{tag}a", "type", "veth", "peer", "name", f"v{tag}b")
        for name, end, address in zip(names, "ab", addresses, strict=True):
            _ip("link", "set", f"v{tag}{end}", "netns", name, "name", CABLE)
            _ip("-n", name, "addr", "add", f"{address}/24", "dev", CABLE)
            _ip("-n", name, "link", "set", CABLE, "up")
            _ip("-n", name, "link", "set", "lo", "up")
        yield list(zip(names, addresses, strict=True))
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


class Node:
    """A torchrun in a namespace, of one process, in a session that can be killed as a machine."""

    def __init__(self, machine, host, log, program):
        name, address = machine
        torchrun = [
            *(sys.executable, "-m", "torch.distributed.run", "--nnodes=1:2"),
            *("--nproc-per-node=1", "--rdzv-backend=c10d", f"--rdzv-endpoint={host}:29500"),
            *("--rdzv-id=elastic", "--max-restarts=10", f"--local-addr={address}"),
            "--rdzv-conf=last_call_timeout=3,keep_alive_interval=1,keep_alive_max_attempt=3,"
            f"is_host={int(address == host)}",
        ]
        env = {**os.environ, "GLOO_SOCKET_IFNAME": CABLE, "PYTHONPATH": str(ROOT)}
        env["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
        with open(log, "ab") as file:
            self.process = subprocess.Popen(
                ["ip", "netns", "exec", name, *torchrun, *program],
                env={**env, "OMP_NUM_THREADS": "1"},
                stdout=file,
                stderr=file,
                start_new_session=True,
            )

    def kill(self):
        """End all at once, as when the power goes."""
        for pid in _session(self.process.pid):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait(20)


def _session(leader):
    """The processes of a torchrun: its workers are in sessions of their own, but its children."""
    found = [leader]
    for pid in found:
        for task in Path(f"/proc/{pid}/task").glob("*/children"):
            found += [int(child) for child in task.read_text().split()]
    return found
