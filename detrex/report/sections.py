"""The sections of the page that are of figures, texts and times."""

import datetime
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from detrex.report.collect import Run
from detrex.report.curves import Points, chart
from detrex.report.html import Content, Html, element
from detrex.report.tables import NOTHING, folded, number, scrolled, table
from detrex.utils.curves import AP_NAMES, is_own_term

PARTS = {
    "start": "start, until the first iteration",
    "data": "waiting for data",
    "step": "steps of the optimizer",
    "evaluation": "evaluation",
    "checkpoints": "checkpoints",
    "records": "writing logs and metrics",
    "rest": "rest, such as averages of weights",
}
"""What the parts of a run's time are called in the page, by their name in the record."""

_TASKS = {"bbox": "boxes", "segm": "masks", "keypoints": "keypoints", "sem_seg": "pixels"}
_FIGURES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR")
_SIZES = {
    "small": ("s", "below 32 x 32 pixels"),
    "medium": ("m", "32 x 32 to 96 x 96 pixels"),
    "large": ("l", "above 96 x 96 pixels"),
}


def summary(run: Run) -> Html:
    """The head: what was trained, on what, how well and how long."""
    record, processes = run.record, run.processes()
    wall = wall_seconds(run)
    data = record.get("data") or {}
    facts = {
        "config": record.get("config_file"),
        "detector": record.get("detector"),
        "backbone": record.get("backbone"),
        "trained on": ", ".join(record.get("trained_on") or []) or None,
        "evaluated on": data.get("name") and _data_set_in_words(run, data["name"]),
        "parameters": record.get("parameters")
        and f"{record['parameters']:,}, of which {record.get('trainable', 0):,} are trained",
        "iterations": _iterations(run),
        "wall time": None if wall is None else in_words(wall),
        "started": processes and _moment(processes[0].get("started")),
        "folder": str(run.folder),
    }
    tiles = [
        element("li", element("b", number(value)), f"{name} of {task_in_words(task)}", plain)
        for task in final_tasks(run)
        for name, value, plain in _headlines(run, task)
    ]
    return element(
        "div",
        element("ul", tiles, class_="tiles") if tiles else None,
        element(
            "dl", ((element("dt", k), element("dd", v)) for k, v in facts.items() if v is not None)
        ),
        [element("p", note, class_="note") for note in _remarks(run)],
    )


def figures(run: Run) -> Html | None:
    """The final figures of all tasks, of plain and averaged weights."""
    tasks = run.tasks()
    columns = [n for n in _FIGURES if any(_figure(run, task, n) is not None for task in tasks)]
    others = [n for task in tasks for n in run.final(task) if n not in _FIGURES and "-" not in n]
    columns += list(dict.fromkeys(others))
    if not columns:
        return None
    rows = [(task_in_words(task), *(_figure(run, task, n) for n in columns)) for task in tasks]
    return table("the last evaluation, in percent", ["task", *columns], rows)


def curves(run: Run) -> Html | None:
    """Losses, figures of the evaluations, learning rate and seconds over the iterations."""
    starts = [float(p["iteration"]) for p in run.processes() if p.get("iteration")]
    names = {key for row in run.metrics for key in row}
    terms = sorted(name for name in names if is_own_term(name))
    evaluated = sorted(
        name for name in names if name.rpartition("/")[2] in (*AP_NAMES, "mIoU", "PQ")
    )
    drawn = [
        chart("total loss", _series(run, ["total_loss"]), log=True, marks=starts),
        chart("terms of the loss", _series(run, terms), log=True, marks=starts),
        chart(
            "AP of the evaluations",
            _series(run, evaluated),
            unit="percent",
            zero=True,
            digits=1,
            marks=starts,
        ),
        chart("learning rate", _series(run, ["lr"]), digits=8, zero=True, marks=starts),
        chart(
            "time of an iteration",
            _series(run, ["time", "data_time"]),
            unit="seconds",
            zero=True,
            marks=starts,
        ),
    ]
    shown = [figure for figure in drawn if figure]
    return element("div", shown, class_="charts") if shown else None


def classes(run: Run) -> list[Html]:
    """AP by class, and what is found and missed of each at the score threshold."""
    tables = []
    for task in final_tasks(run):
        rows, columns = _class_figures(run, task)
        if rows:
            title = f"by class: {task_in_words(task)}; figures in percent"
            if "objects" in columns and run.confusion:
                title += f", right to recall of scores from {run.confusion.threshold:g} on"
            tables.append(table(title, ["class", *columns], rows, sortable=True))
    return tables


def sizes(run: Run) -> Html | None:
    """AP and AR by size of the objects."""
    rows = []
    for task in final_tasks(run):
        for name, (suffix, what) in _SIZES.items():
            ap = _figure(run, task, f"AP{suffix}")
            ar = _figure(run, task, f"AR{suffix}")
            if ap is not None or ar is not None:
                label = f"{name}, {task_in_words(task)}"
                rows.append((label, what, _objects_of_size(run, name), ap, ar))
    header = ["size", "area", "objects", "AP", "AR"]
    return table("by size of the objects", header, rows, sortable=True) if rows else None


def seconds(run: Run) -> list[Html]:
    """Where the time went, and the processes that the run went on in."""
    parts: dict[str, float] = {}
    for process in run.processes():
        for part, spent in (process.get("seconds") or {}).items():
            parts[part] = parts.get(part, 0.0) + spent
    total = sum(parts.values())
    if not total:
        return []
    order = [*PARTS, *(part for part in parts if part not in PARTS)]
    rows: list[Sequence[Content]] = [
        (
            PARTS.get(part, part),
            parts[part],
            100 * parts[part] / total,
            element("span", class_="bar", style=f"width: {100 * parts[part] / total:.1f}%"),
        )
        for part in order
        if part in parts
    ]
    rows.append(("all: wall time", total, 100.0, ""))
    processes = [
        (
            str(place),
            _moment(process.get("started")),
            (process.get("environment") or {}).get("machine", NOTHING),
            process.get("iteration"),
            process.get("last"),
            process.get("ended") or "not recorded: it is at work, or was killed",
            sum((process.get("seconds") or {}).values()) or None,
        )
        for place, process in enumerate(run.processes(), start=1)
    ]
    said = (
        "Of the main process, from the start of its work to the end of its last evaluation; the "
        "import of libraries before, and this page after it, do not count."
    )
    header = ["process", "started", "machine", "first iteration", "last", "ended", "seconds"]
    return [
        element("p", said),
        table("seconds by part", ["part", "seconds", "percent", "share"], rows),
        table("processes of the run", header, processes),
    ]


def warnings(run: Run) -> list[Html]:
    """The warnings that were logged."""
    if not run.log.warnings:
        return [element("p", "None was logged." if (run.folder / "log.txt").is_file() else NOTHING)]
    rows = [(text, count) for text, count in run.log.warnings.items()]
    return [table("warnings and errors of log.txt", ["what", "times"], rows)]


def config(run: Run) -> list[Html]:
    """The resolved config."""
    text = scrolled("config", element("pre", element("code", run.config)))
    return [folded("show the config, with all values resolved", text)] if run.config else []


def environment(run: Run) -> list[Html]:
    """Machine and versions."""
    parts = []
    processes = run.processes()
    if processes and processes[-1].get("environment"):
        rows = list(processes[-1]["environment"].items())
        parts.append(table("the last process", ["what", "value"], rows))
    if run.log.environment:
        full = table("the environment in log.txt", ["what", "value"], run.log.environment)
        parts.append(folded("all of it, as logged", full))
    return parts


def final_tasks(run: Run) -> list[str]:
    """The tasks with the weights that count: the averaged ones where there are both."""
    tasks = run.tasks()
    return [task for task in tasks if f"ema/{task}" not in tasks]


def task_in_words(task: str) -> str:
    """Name a task, and the weights where they are averages."""
    averaged, _, name = task.rpartition("/")
    words = _TASKS.get(name, name)
    return f"{words}, averaged weights" if averaged == "ema" else words


def wall_seconds(run: Run) -> float | None:
    """The sum over all processes that noted their time."""
    spent = [sum(p["seconds"].values()) for p in run.processes() if p.get("seconds")]
    return sum(spent) if spent else None


def in_words(spent: float) -> str:
    """Write a time as ``1:02:03``, or in seconds where it is short."""
    return f"{spent:.1f} s" if spent < 60 else str(datetime.timedelta(seconds=round(spent)))


def _series(run: Run, names: Sequence[str]) -> dict[str, Points]:
    return {n: [(row["iteration"], row[n]) for row in run.metrics if n in row] for n in names}


def _headlines(run: Run, task: str) -> Iterable[tuple[str, float, Content]]:
    for name in ("AP", "AP50", "AR", "mIoU", "PQ"):
        value = _figure(run, task, name)
        if value is not None:
            plain = _figure(run, task.rpartition("/")[2], name) if "/" in task else None
            said = None if plain is None else f"plain weights: {number(plain)}"
            yield name, value, said and element("div", said, class_="soft")


def _figure(run: Run, task: str, name: str) -> float | None:
    value = run.final(task).get(name)
    return (run.scores(task).get("total") or {}).get(name) if value is None else value


def _data_set_in_words(run: Run, name: str) -> str:
    if run.data is None:
        return name
    return (
        f"{name}: {len(run.data.images):,} pictures, {int((run.data.truth.scores > 0).sum()):,} "
        f"objects of {len(run.data.names)} classes"
    )


def _iterations(run: Run) -> str | None:
    done = int(max((row["iteration"] for row in run.metrics), default=-1)) + 1
    of = run.record.get("max_iter")  # the last evaluation counts one more
    return f"{min(done, of):,} of {of:,}" if of else f"{done:,}"


def _moment(started: float | None) -> str:
    if not started:
        return NOTHING
    return datetime.datetime.fromtimestamp(started).strftime("%Y-%m-%d %H:%M:%S")


def _remarks(run: Run) -> Iterable[str]:
    processes = run.processes()
    if len(processes) > 1 or (processes and processes[0].get("iteration")):
        resumed = [f"{p['iteration']:,}" for p in processes if p.get("iteration")]
        yield f"The run was resumed at iteration {', '.join(resumed)}: see “Time”."
    if processes and processes[-1].get("ended") != "finished":
        why = processes[-1].get("ended") or "no end is recorded"
        yield f"The run has not finished ({why}): this is what there is so far."
    yield from run.notes


def _class_figures(run: Run, task: str) -> tuple[list[Sequence[Content]], list[str]]:
    scores = run.scores(task).get("classes") or []
    if not scores:
        final = run.final(task)
        kinds = [n for n in ("AP", "IoU", "ACC") if any(k.startswith(f"{n}-") for k in final)]
        names = dict.fromkeys(k.partition("-")[2] for k in final if k.partition("-")[0] in kinds)
        return [(n, *(final.get(f"{kind}-{n}") for kind in kinds)) for n in names], kinds
    columns = [name for name in _FIGURES if any(one.get(name) is not None for one in scores)]
    counts = _counts_by_class(run) if task.rpartition("/")[2] == "bbox" else {}
    counted = ["objects", "right", "missed", "wrong", "precision", "recall"] if counts else []
    unknown = (None,) * len(counted)  # of a class that the annotations do not have any more
    rows: list[Sequence[Content]] = [
        (one.get("name"), *(one.get(name) for name in columns), *counts.get(one.get("id"), unknown))
        for one in scores
    ]
    return rows, columns + counted


def _counts_by_class(run: Run) -> dict[Any, tuple[Content, ...]]:
    if run.confusion is None or run.data is None:
        return {}
    matrix = run.confusion.matrix
    counts: dict[Any, tuple[Content, ...]] = {}
    for key, rank in run.data.ranks.items():
        objects, found = int(matrix[rank].sum()), int(matrix[:, rank].sum())
        right = int(matrix[rank, rank])
        precision = 100 * right / found if found else None
        recall = 100 * right / objects if objects else None
        counts[key] = (objects, right, objects - right, found - right, precision, recall)
    return counts


def _objects_of_size(run: Run, name: str) -> int | None:
    if run.data is None:
        return None
    limits = {"small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, float("inf"))}
    low, high = limits[name]
    areas = run.data.areas[run.data.truth.scores > 0]
    return int(((areas >= low) & (areas <= high)).sum())


def facts_of(record: Mapping[str, Any]) -> str:
    """Title of a run: its detector and backbone, as far as they are known."""
    parts = [str(record[key]) for key in ("detector", "backbone") if record.get(key)]
    return " over ".join(parts) or "a run"
