"""Which run a folder belongs to: ``run.json`` there, and the same in each of its checkpoints.

A run has an identity from its first start on, and keeps it when it is resumed. A fresh run in a
used folder is another one: what the earlier one wrote stays, under names with that one's identity
where both would have the same, and its checkpoints are not resumed.
"""

import hashlib
import json
import logging
import os
import shutil
import socket
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from detrex.checkpoint.detection_checkpoint import IN_PARTS, DetectionCheckpointer
from detrex.checkpoint.runs import earlier_name, is_identity, origin_of
from detrex.engine.run_folder.differences import describe, differences
from detrex.files import UNFINISHED, write_atomically, writing
from detrex.report import REPORT
from detrex.report.record import RECORD

logger = logging.getLogger(__name__)

RUN_FILE = "run.json"
METRICS = "metrics.json"
_EVENTS = "events.out.tfevents*"


@dataclass
class Run:
    """A run, as ``run.json`` describes it.

    Attributes:
        id: a digest of the config and the start, 12 hexadecimal digits.
        config_digest: sha256 of the resolved config, as it was at the last start.
        started: when the run began, in seconds since 1970.
        host: the machine of the last start.
        pid: the process of the last start.
        unnamed: whether checkpoints without an identity count as the run's: it goes on from one of
            detectron2, the original detrex or an earlier version.
        config: the resolved config of the last start, by full key.
    """

    id: str
    config_digest: str
    started: float
    host: str = field(default_factory=socket.gethostname)
    pid: int = field(default_factory=os.getpid)
    unnamed: bool = False
    config: dict[str, Any] = field(default_factory=dict)


def enter_run(checkpointer: DetectionCheckpointer, cfg: Mapping[str, Any], resume: bool) -> Run:
    """Begin or go on with a run in a checkpointer's folder, which this process has locked.

    Args:
        checkpointer: is told the run, whose checkpoints alone it resumes from and counts.
        cfg: the config.
        resume: whether to go on with the run of the folder, if there is one.

    Returns:
        The run.

    Raises:
        RunError: the folder cannot be written to.
    """
    folder = Path(checkpointer.save_dir)
    folder.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(folder)
    config = describe(cfg)
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()
    earlier = read_run(folder)
    run = earlier or _of_checkpoints(checkpointer) if resume else None
    if run is None:
        _set_aside(checkpointer, earlier)
        started = time.time()
        seal = f"{digest} {started} {socket.gethostname()} {os.getpid()}"
        run = Run(hashlib.sha256(seal.encode()).hexdigest()[:12], digest, started)
    else:
        _take_metrics_back(folder, run)
        _log_differences(run, config)
    run.config, run.config_digest = config, digest
    run.host, run.pid = socket.gethostname(), os.getpid()
    file = folder / RUN_FILE
    with writing(file):
        text = json.dumps(asdict(run), indent=1, sort_keys=True)
        write_atomically(file, lambda stream: stream.write(text.encode()))
    follow(checkpointer, run)
    return run


def follow(checkpointer: DetectionCheckpointer, run: Run | None) -> None:
    """Let a checkpointer resume from the checkpoints of a run alone; from any where it is None."""
    if run is not None:
        note = {"id": run.id, "config_digest": run.config_digest, "started": run.started}
        checkpointer.follow(note, run.unnamed)


def read_run(folder: str | os.PathLike[str]) -> Run | None:
    """Read which run a folder belongs to.

    Args:
        folder: it need not exist.

    Returns:
        None where there is no ``run.json``, or a damaged one, which is warned of.
    """
    file = Path(folder, RUN_FILE)
    try:
        if file.exists() and not file.is_file():
            raise ValueError("it is no file")
        content = json.loads(file.read_text(encoding="utf-8"))
        run = Run(**{key: content[key] for key in Run.__annotations__ if key in content})
        if not is_identity(run.id) or not isinstance(run.config, dict):
            raise ValueError("it has no proper id and config")
        run.started = float(run.started)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, RecursionError) as error:
        logger.warning("%s cannot be read (%s): it counts as not there.", file, error)
        return None
    return run


def config_file(folder: str | os.PathLike[str], fresh: bool, evaluation: bool = False) -> Path:
    """Say where a command writes its config down, and make room there.

    Args:
        folder: ``train.output_dir``, which exists.
        fresh: whether a run begins; the config of an earlier one gets its name.
        evaluation: whether nothing is trained; the config of a run is left alone.

    Returns:
        ``config.yaml``, or for an evaluation in a run's folder ``config.evaluation.yaml``.
    """
    file, earlier = Path(folder, "config.yaml"), read_run(folder)
    if evaluation and earlier:
        return file.with_name("config.evaluation.yaml")
    if fresh and earlier and file.exists():
        kept = file.with_name(f"config.{earlier.id}.yaml")
        if not kept.exists():
            with writing(kept):
                file.rename(kept)
    return file


def _remove_leftovers(folder: Path) -> None:
    """Remove what killed processes had begun to write: files, and checkpoints in parts."""
    with writing(folder):
        for leftover in folder.glob(f"*{UNFINISHED}"):
            if leftover.is_symlink() or not leftover.is_dir():
                leftover.unlink(missing_ok=True)
            elif IN_PARTS in leftover.name:
                shutil.rmtree(leftover)


def _of_checkpoints(checkpointer: DetectionCheckpointer) -> Run | None:
    """The run that the checkpoints of a folder without ``run.json`` are of; None without any."""
    files = [Path(file) for file in checkpointer.checkpoint_files()]
    file = next((file for file in files if origin_of(file).readable), None)
    if file is None:
        return None
    identity = origin_of(file).run
    if identity:
        logger.info("%s names run %s, which this folder takes up.", file, identity)
        return Run(identity, "", 0.0)
    run = Run(hashlib.sha256(os.urandom(16)).hexdigest()[:12], "", 0.0, unnamed=True)
    logger.info(
        "%s names no run, as those of detectron2, of the original detrex and of earlier versions: "
        "it is resumed, as run %s.",
        *(file, run.id),
    )
    return run


def _log_differences(run: Run, config: Mapping[str, Any]) -> None:
    if not run.config:
        return
    lines = differences(run.config, config)
    if lines:
        logger.info("Run %s goes on with another config:\n%s", run.id, "\n".join(lines))
    else:
        logger.info("Run %s goes on with the same config.", run.id)


def _take_metrics_back(folder: Path, run: Run) -> None:
    """Undo what `_set_aside` did where it is the earlier run that goes on after all."""
    metrics = folder / METRICS
    kept = metrics.with_name(f"{metrics.stem}.{run.id}{metrics.suffix}")
    if kept.is_file() and not (metrics.is_file() and metrics.stat().st_size):
        with writing(metrics):
            kept.replace(metrics)


def _set_aside(checkpointer: DetectionCheckpointer, earlier: Run | None) -> None:
    """Keep the records of an earlier run under names of its own, where it got to any."""
    folder, identity = Path(checkpointer.save_dir), earlier.id if earlier else ""
    metrics, record = folder / METRICS, folder / RUN_FILE
    has_metrics = metrics.is_file() and metrics.stat().st_size > 0
    if not has_metrics and not any(map(os.path.isfile, checkpointer.checkpoint_files())):
        return
    with writing(folder):
        if events := sorted(folder.glob(_EVENTS)):
            place = earlier_name(folder / "events", identity)
            place.mkdir()
            for file in events:
                file.rename(place / file.name)
        if has_metrics:
            metrics.rename(earlier_name(metrics, identity))
        for page in (folder / RECORD, folder / REPORT):
            if page.is_file():
                page.rename(earlier_name(page, identity))
        if earlier:  # it stays the folder's record until the next is there
            kept = earlier_name(record, identity)
            write_atomically(kept, lambda stream: stream.write(record.read_bytes()))
    logger.info(
        "%s holds an earlier run%s: its checkpoints are left alone, and its metrics, events, "
        "report and run.json have that name in theirs now; to go on with it instead, end this "
        "run, give run.json and metrics.json their names back, and start with --resume.",
        *(folder, f", {identity}" if identity else ""),
    )
