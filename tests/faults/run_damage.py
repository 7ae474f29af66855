"""What may happen to the checkpoints and the folder of a run between two starts of it."""

import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

OUT = Path("out")


def cut_short(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-500])


def with_a_flipped_bit(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 3] ^= 16
    file.write_bytes(data)


def empty(file: Path) -> None:
    file.write_bytes(b"")


def a_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def a_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def a_link_to_nothing(file: Path) -> None:
    file.unlink()
    file.symlink_to("gone.pth")
    shutil.copy(OUT / "model_0000001.pth", OUT / "model_0000002.pth")
    with (OUT / "model_0000002.pth").open("r+b") as stream:
        stream.truncate(100)


def a_web_page(file: Path) -> None:
    file.write_bytes(b"<!DOCTYPE html><title>login</title>" * 99)


def with_nan_weights(file: Path) -> None:
    _poison(file, lambda content: next(iter(content["model"].values())))


def with_a_nan_average(file: Path) -> None:
    _poison(file, lambda content: next(iter(content["ema_state"].values())))


def with_a_nan_optimizer(file: Path) -> None:
    _poison(file, lambda content: content["trainer"]["optimizer"]["state"][0]["exp_avg"])


def _poison(file: Path, find: Callable[[Any], torch.Tensor]) -> None:
    content = torch.load(file, weights_only=True)
    find(content).reshape(-1)[0] = float("nan")
    torch.save(content, file)
    file.with_name(f"{file.name}.sha256").unlink()


DAMAGE = (
    *(cut_short, with_a_flipped_bit, empty, a_folder, a_pipe, a_link_to_nothing, a_web_page),
    *(with_nan_weights, with_a_nan_average, with_a_nan_optimizer),
)


def foreign_weights() -> Sequence[str]:
    """Weights of others, newer than all checkpoints, named by the tag."""
    names = ("swin_tiny_patch4_window7_224.pth", "resnet_20990101.pth", "backbone_final.pth")
    for name in names:
        torch.save({"model": {"x": torch.zeros(3)}}, OUT / name)
    (OUT / "last_checkpoint").write_text(names[2])
    return names


def unfinished_files() -> Sequence[str]:
    for name in ("model_0000009.pth", "metrics.json", "run.json"):
        (OUT / f"{name}.{'a' * 32}.unfinished").write_bytes(b"half")
    return ()


def a_damaged_tag() -> Sequence[str]:
    (OUT / "last_checkpoint").write_bytes(b"\xff\xfe\x00/../..\n")
    return ()


def a_torn_line() -> Sequence[str]:
    with (OUT / "metrics.json").open("ab") as stream:
        stream.write(b'{"iteration": 3, "lo')
    return ()


def a_damaged_record() -> Sequence[str]:
    (OUT / "run.json").write_bytes(b'{"id": "\xff')
    return ()


def no_record() -> Sequence[str]:
    (OUT / "run.json").unlink()
    return ()


def a_lock_of_noise() -> Sequence[str]:
    (OUT / "run.lock").write_bytes(os.urandom(300))
    os.utime(OUT / "run.lock", (1, 1))
    return ()


def folders_and_pipes() -> Sequence[str]:
    (OUT / "model_0000099.pth").mkdir()
    os.mkfifo(OUT / "pipe_0000099.pth")
    with suppress(FileNotFoundError):
        (OUT / "last_checkpoint").unlink()
    return ("model_0000099.pth", "pipe_0000099.pth")


LEFT = (
    *(foreign_weights, unfinished_files, a_damaged_tag, a_torn_line),
    *(a_damaged_record, no_record, a_lock_of_noise, folders_and_pipes),
)
