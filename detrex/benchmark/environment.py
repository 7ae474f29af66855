"""The machine, the versions and how busy the machine is, without a name or a path of it."""

import os
import platform
import time
from collections.abc import Mapping
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path

from detrex.threads import COUNTS, WAITING, available_cores

# Those that change what a convolution or a product of matrices costs.
FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
PACKAGES = (
    *("detrex", "torch", "torchvision", "timm", "detectron2", "transformers"),
    *("onnxruntime", "openvino", "pycocotools", "faster-coco-eval"),
)
_QUIET = 0.05


def environment(threads: int, *, quick: bool = False) -> dict[str, str]:
    """Describe where a measurement is taken.

    Args:
        threads: of each process.
        quick: whether it is the short version.

    Returns:
        By name a value without line breaks; ``"busy"`` is the share of all cores that others use
        while this process sleeps, in percent.
    """
    found = {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        "processor": processor(),
        "cores": str(available_cores()),
        "flags": " ".join(flag for flag in FLAGS if flag in processor_flags()) or "unknown",
        "threads": str(threads),
        "length": "short" if quick else "full",
        "system": platform.system(),
        "python": platform.python_version(),
    }
    found |= {name: version for name in PACKAGES if (version := installed(name))}
    found |= {name: os.environ[name] for name in (*COUNTS, *WAITING) if name in os.environ}
    if hasattr(os, "getloadavg"):
        found["load average"] = f"{os.getloadavg()[0]:.2f}"
    if (busy := busy_share()) is not None:
        found["busy"] = f"{100 * busy:.0f} %"
    return found


def installed(package: str) -> str:
    """Give the version of a package, empty where it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def processor() -> str:
    """Give the processor's name, as well as the system knows it."""
    return _cpu_info().get("model name", "") or platform.processor() or platform.machine()


def processor_flags() -> list[str]:
    """List the processor's instruction sets by the kernel's names; empty where it tells none."""
    return _cpu_info().get("flags", "").split()


def busy_share(seconds: float = 0.5) -> float | None:
    """Give the share of all cores' time, 0 to 1, that is used while this process sleeps.

    Returns:
        None where the system has no ``/proc/stat``.
    """
    before = _processor_times()
    time.sleep(seconds)
    after = _processor_times()
    if not before or not after:
        return None
    passed = [b - a for a, b in zip(before, after, strict=True)]
    idle = passed[3] + passed[4]  # idle, and waiting for a disk
    return 1 - idle / max(sum(passed), 1)


def busy_warning(described: Mapping[str, str]) -> str:
    """Say that figures are rough, where others keep the cores busy; else nothing.

    Args:
        described: from `environment`.

    Returns:
        A sentence, or an empty text.
    """
    busy = float(described.get("busy", "0 %").removesuffix(" %")) / 100
    if busy <= _QUIET:
        return ""
    return f"other programs use {busy:.0%} of this machine's cores: these figures are rough"


def _processor_times() -> list[int]:
    path = Path("/proc/stat")
    if not path.is_file():
        return []
    return [int(word) for word in path.read_text().split("\n")[0].split()[1:9]]


def _cpu_info() -> dict[str, str]:
    path = Path("/proc/cpuinfo")
    if not path.is_file():
        return {}
    first = path.read_text().split("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}
