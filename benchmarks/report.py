"""Write `docs/benchmarks.md` and the plots from the CSV files that there are.

    python -m benchmarks.report

Every figure of the page is computed here from the raw samples; the words about a script are its
docstring.
"""

import argparse
import ast
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.plots import plot
from benchmarks.protocol import RESULTS, readable, readable_unit
from benchmarks.results_file import holds_rows, read_rows, read_table
from benchmarks.summary import (
    NO_UNIT,
    Cases,
    Series,
    cases_of,
    exponent,
    faster_peers,
    series_of,
    sized,
    slower_options,
)
from detrex.benchmark.turns import Comparison

SCRIPTS = Path(__file__).resolve().parent
PAGE = SCRIPTS.parent / "docs" / "benchmarks.md"
TITLES = {
    "backbones": "Backbones in evaluation",
    "dino_evaluation": "DINO in evaluation",
    "dino_training_step": "DINO's training step",
    "mask_rcnn": "Mask R-CNN",
    "deformable_attention": "Deformable attention",
    "deformable_attention_cuda": "Deformable attention on a card",
    "memory": "Memory",
    "sizes": "Cost against the size of the picture and of the batch",
    "two_processes": "Two processes",
    "start_up": "Start-up",
    "busy_machine": "A busy machine",
    "export": "What exports",
    "wrapper_overhead": "Overhead of a wrapper",
    "inspect_annotations": "Reading annotations",
}
HEAD = """# Benchmarks

What this package costs beside its peers. `make bench` measures a short version of all of it, in
about ten minutes on two quiet cores, and writes this page; a script alone, without `--quick`,
measures more.

## How it is measured

- What is compared runs in one process on the same input and takes turns, round by round; every
  second round runs in the opposite order. Rounds that warm up do not count.
- Tables give the median, the minimum and the middle half of the rounds. The ratio is the median
  over the rounds of one round's time over that of the baseline, whose ratio is 1: what slows the
  machine down for a while slows both.
- All sides have the same number of threads. Weights are random, which changes no time.
- Raw samples, with versions and the processor, are kept in `benchmarks/results/*.csv`, and every
  figure below is computed from them (`python -m benchmarks.report`). Absolute times are those of
  one machine: ratios carry over better than times, and neither to a graphics card.
"""


def main(words: Sequence[str] | None = None) -> None:
    """Write the page and the plots."""
    options = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    options.add_argument("--results", default=RESULTS, type=Path, help="folder of the CSV files")
    options.add_argument("--page", default=PAGE, type=Path, help="the file to write")
    arguments = options.parse_args(words)
    for name in existing(arguments.results):
        file = arguments.results / f"{name}.csv"
        if holds_rows(file):
            plot(TITLES.get(name, name), cases_of(read_rows(file)[0]), file.with_suffix(".png"))
    arguments.page.write_text(page(arguments.results), encoding="utf-8")
    print(f"wrote {arguments.page.name}")


def existing(folder: Path) -> list[str]:
    """List the scripts that have results, in the page's order, those without a title last."""
    found = sorted(file.stem for file in folder.glob("*.csv"))
    return [name for name in TITLES if name in found] + [n for n in found if n not in TITLES]


def page(folder: Path) -> str:
    """Compute the text of the page from a folder of CSV files."""
    files = {name: folder / f"{name}.csv" for name in existing(folder)}
    if not files:
        return f"{HEAD}\nThere are no results yet.\n"
    read = {name: read_rows(file) for name, file in files.items() if holds_rows(file)}
    cases = {name: cases_of(rows) for name, (rows, _) in read.items()}
    parts = [HEAD, "\n".join(_faster(cases))]
    for name, file in files.items():
        lines = _heading(name)
        if name in read:
            lines += _section(name, cases[name], read[name][1], folder)
        else:
            lines += [*_plain_table(read_table(file)), ""]
        parts.append("\n".join(lines))
    return "\n".join(parts)


def _faster(sections: Mapping[str, Cases]) -> list[str]:
    """Say where a peer takes less time than the fastest of this package, and what does not pay."""
    peers, options = [], []
    for name, cases in sections.items():
        for case, comparison in cases.items():
            where = f"- {TITLES.get(name, name)}, {case}:"
            peers += [
                f"{where} {peer} takes {share:.2f} of the time of {best}."
                for peer, best, share in faster_peers(comparison)
            ]
            options += [
                f"{where} {option} takes {share:.2f} of the time of the plain network."
                for option, share in slower_options(comparison)
            ]
    return [
        "## Where others are faster",
        "",
        "By more than 2 %, beside the fastest that this package has at the same precision:"
        if peers
        else "Nowhere below is a peer faster by 2 % than the fastest that this package has.",
        "",
        *peers,
        *(
            ["", "Options that cost time here, instead of saving it:", "", *options]
            if options
            else []
        ),
        "",
    ]


def _heading(name: str) -> list[str]:
    words = docstring(name)
    return [f"## {TITLES.get(name, name)}", "", *([words, ""] if words else [])]


def _plain_table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Show a table with columns of its own as it is."""
    lines = [f"| {' | '.join(cell.replace('|', '&#124;') for cell in row)} |" for row in rows]
    return [*lines[:1], "|" + ":--|" * len(rows[0]), *lines[1:]]


def _section(name: str, cases: Cases, described: Mapping[str, str], folder: Path) -> list[str]:
    lines = [_conditions(described), ""]
    if (folder / f"{name}.png").is_file():
        lines += [f"![{TITLES.get(name, name)}](../benchmarks/results/{name}.png)", ""]
    for what, series in series_of(cases).items():
        lines += [*_series_table(what, series, cases), ""]
    single = {case: comparison for case, comparison in cases.items() if not sized(case)}
    for case, comparison in single.items():
        lines += [*_table(case, comparison), ""]
    return lines


def docstring(name: str) -> str:
    """Give the docstring of the script of a CSV file as Markdown, its command as code."""
    files = [file for end in ("", "_table") if (file := SCRIPTS / f"{name}{end}.py").is_file()]
    if not files:
        return ""
    paragraphs = (ast.get_docstring(ast.parse(files[0].read_text(encoding="utf-8"))) or "").split(
        "\n\n"
    )
    return "\n\n".join(
        "```bash\n" + "\n".join(line.strip() for line in part.splitlines()) + "\n```"
        if part.startswith("    ")
        else part
        for part in paragraphs
    )


def _conditions(described: Mapping[str, str]) -> str:
    """Describe where a file was measured, in a sentence."""
    packages = ("torch", "torchvision", "timm", "transformers", "onnxruntime", "openvino")
    versions = ", ".join(f"{name} {described[name]}" for name in packages if name in described)
    busy = described.get("busy", "")
    return (
        f"Measured {described.get('date', '')} on {described.get('processor', 'a processor')} "
        f"({described.get('flags', '')}), {described.get('threads', '?')} of "
        f"{described.get('cores', '?')} cores"
        + (f", of which other programs used {busy.replace(' ', chr(160))}" if busy else "")
        + f"; {described.get('length', '')} version; {versions}. "
        f"Python {described.get('python', '')}."
    )


def _table(case: str, comparison: Comparison) -> list[str]:
    scale, unit = readable_unit(comparison)
    several = any(len(values) > 1 for values in comparison.samples.values())
    if comparison.unit == NO_UNIT:
        columns, cells = [], _pure_number
    elif not several:
        columns, cells = ["ratio"], _one_sample
    else:
        columns, cells = ["minimum", "middle half", "ratio"], _many_samples
    first = {0: "greatest" if several else "", 1: unit}.get(len(columns), f"median ({unit})")
    lines = [f"| {case} | {' | '.join([first, *columns])} |", "|:--|--:|" + "--:|" * len(columns)]
    for name in comparison.samples:
        lines.append(f"| {name} | {' | '.join(cells(comparison, name, scale))} |")
    blank = " |" * len(columns)
    return lines + [f"| {name} | {why} |{blank}" for name, why in comparison.left_out.items()]


def _pure_number(comparison: Comparison, name: str, scale: float) -> list[str]:
    return [f"{max(comparison.samples[name]):.2g}"]


def _one_sample(comparison: Comparison, name: str, scale: float) -> list[str]:
    return [readable(scale * comparison.median(name)), f"{comparison.ratio(name):.2f}"]


def _many_samples(comparison: Comparison, name: str, scale: float) -> list[str]:
    low, high = (readable(scale * value) for value in comparison.middle_half(name))
    least = readable(scale * comparison.minimum(name))
    median, ratio = _one_sample(comparison, name, scale)
    return [median, least, f"{low} to {high}", ratio]


def _series_table(what: str, series: Series, cases: Cases) -> list[str]:
    """Medians by size and name, and the fitted exponents below."""
    unit = next(c.unit for case, c in cases.items() if (sized(case) or ("",))[0] == what)
    lines = [f"| {what} | " + " | ".join(f"{name} ({unit})" for name in series) + " |"]
    lines += ["|--:|" + "--:|" * len(series)]
    medians = [dict(zip(sizes, values, strict=True)) for sizes, values in series.values()]
    for size in sorted({size for column in medians for size in column}):
        cells = (readable(column[size]) if size in column else "" for column in medians)
        lines.append(f"| {size} | " + " | ".join(cells) + " |")
    powers = (exponent(sizes, values) for sizes, values in series.values())
    return [*lines, "| exponent | " + " | ".join(powers) + " |"]


if __name__ == "__main__":
    main()
