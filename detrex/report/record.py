"""What a run notes of itself for its report: ``report.json``, beside its other files.

It holds what no other file of the run does: the seconds by part and the machine of each process
that the run went on in, the number of parameters, and the evaluator's figures by class.
"""

import json
import logging
import platform
import reprlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from detrex.errors import first_line
from detrex.files import write_atomically

RECORD = "report.json"

Record = dict[str, Any]

logger = logging.getLogger(__name__)


def read_record(folder: Path) -> Record:
    """Read what a run noted.

    Args:
        folder: the run's.

    Returns:
        The record; empty where there is none that can be read.
    """
    try:
        content = json.loads((folder / RECORD).read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        logger.warning("%s cannot be read (%s).", folder / RECORD, first_line(error))
        return {}
    return content if isinstance(content, dict) else {}


def misfit(record: Record) -> str:
    """Say what in a record is not as a run notes it, and where; empty if nothing.

    Args:
        record: of `read_record`.
    """
    return _misfit(record, _FORM)


def begin(folder: Path, run: str, iteration: int, about: Mapping[str, Any]) -> None:
    """Note that a process goes to work on a run; what an earlier run noted goes.

    Args:
        folder: the run's.
        run: its identity.
        iteration: the first one of this process.
        about: of the run: ``config``, ``parameters``, ``max_iter`` and the like.
    """
    record = read_record(folder)
    kept = record.get("processes") if record.get("run") == run and iteration > 0 else None
    process = {"started": time.time(), "iteration": iteration, "environment": environment()}
    _write(folder, {**about, "run": run, "processes": [*(kept or []), process]})


def end(folder: Path, process: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    """Note how the work of a process ended.

    Args:
        folder: the run's.
        process: of the process: ``seconds`` by part, its last ``iteration``, and how it ``ended``.
        about: of the run: ``scores``, ``data``.
    """
    record = read_record(folder)
    if record.get("processes"):
        record["processes"][-1] |= process
        _write(folder, {**record, **about})


def environment() -> dict[str, str]:
    """Say in a few words on what a process runs."""
    from detrex import __version__

    cards = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "machine": platform.node(),
        "system": platform.platform(),
        "Python": platform.python_version(),
        "detrex": __version__,
        "torch": torch.__version__,
        "threads": str(torch.get_num_threads()),
        "cards": ", ".join(dict.fromkeys(cards)) or "none",
    }


_FIGURES = {"": (int, float)}
_FORM: Any = {
    **dict.fromkeys(("run", "config", "config_file", "detector", "backbone"), (str,)),
    **dict.fromkeys(("parameters", "trainable", "max_iter"), (int,)),
    "trained_on": [(str,)],
    "processes": [
        {
            **dict.fromkeys(("iteration", "last"), (int,)),
            "started": (int, float),
            "environment": {"": (str,)},
            "ended": (str,),
            "seconds": _FIGURES,
        }
    ],
    "scores": {
        "": {"total": _FIGURES, "classes": [{"name": (str,), "id": (int, str), **_FIGURES}]}
    },
    "data": {
        **dict.fromkeys(("name", "json_file", "results", "image_root"), (str,)),
        "value_range": [(int, float)],
    },
}
"""What may be where: types, a list of one form, or forms by key, "" for all other keys."""

_MOST = 1e11  # no date, time or number of iterations or parameters is beyond


def _misfit(value: Any, form: Any, place: str = "") -> str:
    """Say where a value is not of a form, and what is there; empty if nothing. None fits all."""
    if value is None:
        return ""
    kinds = form if isinstance(form, tuple) else (type(form),)
    if type(value) not in kinds or (type(value) in (int, float) and not abs(value) <= _MOST):
        return f"{place} is {reprlib.repr(value)}"
    parts: dict[Any, Any] = dict(enumerate(value)) if isinstance(form, list) else value
    for key, part in parts.items() if not isinstance(form, tuple) else ():
        inner = form[0] if isinstance(form, list) else form.get(key, form.get(""))
        if inner and (found := _misfit(part, inner, f"{place}.{key}".lstrip("."))):
            return found
    return ""


def _write(folder: Path, record: Record) -> None:
    """Write the record; a run goes on without it where that fails."""
    text = json.dumps(record, indent=1, default=str)
    try:
        write_atomically(folder / RECORD, lambda stream: stream.write(text.encode()))
    except OSError as error:
        reason = error.strerror or first_line(error)
        logger.warning("%s cannot be written (%s): the report lacks it.", folder / RECORD, reason)
