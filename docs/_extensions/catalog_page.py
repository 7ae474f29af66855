"""The page that searches the catalog: its data, written as scripts, and the scripts that read them.

A page that is opened as a file may load no JSON, but it may run scripts beside it. So the table is
one that sets ``detrexCatalog.table``, and the descriptions, which are read when the first
architecture is opened, another that sets ``detrexCatalog.descriptions``. Both are columns; of one
whose cells recur, every value is written once.
"""

import gzip
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive

from detrex.catalog.describe import config_of
from detrex.catalog.descriptions import FILE_NAME as DESCRIPTIONS
from detrex.catalog.descriptions import SIZE
from detrex.catalog.table import packaged_file, read_catalog

PAGE = "catalog"
SCRIPTS = ("data", "rows", "query", "copy", "form", "table", "detail", "main")

# An architecture's name within its config: written once for all that differ by the name alone.
_NAME = "\N{SYMBOL FOR NULL}"


def columns(records: list[dict[str, Any]]) -> dict[str, Any]:
    """Turn records with the same keys into columns.

    Args:
        records: plain values by name.

    Returns:
        By name a list of all cells; or, where that is shorter, ``{"of": [...], "at": [...]}``: the
        different values and, for each cell, which one it is.
    """
    found: dict[str, Any] = {}
    for name in records[0]:
        cells = [json.dumps(record[name], separators=(",", ":")) for record in records]
        places = {cell: place for place, cell in enumerate(dict.fromkeys(cells))}
        plain = [json.loads(cell) for cell in cells]
        shared = {"of": list(map(json.loads, places)), "at": [places[cell] for cell in cells]}
        found[name] = min(plain, shared, key=lambda column: len(_json(column)))
    return found


def table() -> dict[str, Any]:
    """Give the packaged table.

    Returns:
        ``versions`` of the libraries that it was made with, ``size`` of the image of the
        descriptions, and ``columns`` of all architectures, with the ``config`` of each.
    """
    catalog = read_catalog(packaged_file())
    rows = []
    for entry in catalog.entries:
        config = config_of(entry).replace(f'"{entry.name}"', f'"{_NAME}"')
        rows.append({**asdict(entry), "config": config})
    return {"versions": catalog.versions, "size": SIZE, "columns": columns(rows)}


def descriptions() -> dict[str, Any]:
    """Give the packaged descriptions as columns, of the versions that the table was made with."""
    versions = read_catalog(packaged_file()).versions
    with gzip.open(packaged_file().with_name(DESCRIPTIONS), "rt", encoding="utf-8") as stream:
        rows = [line.rstrip("\n").split("\t", 3) for line in stream]
    facts = [json.loads(text) for library, version, _, text in rows if version == versions[library]]
    for record in facts:
        del record["config"]  # the table has it
    return columns(facts) if facts else {}


def write_data(folder: Path) -> None:
    """Write the scripts with the data.

    Args:
        folder: the page's folder for scripts; it is made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in (("data", table()), ("descriptions", descriptions())):
        variable = "table" if name == "data" else name
        text = f"(window.detrexCatalog ??= {{}}).{variable} = {_json(content)};\n"
        (folder / f"{name}.js").write_text(text, encoding="utf-8")


class CatalogNotes(Directive):
    """``{catalog-notes}``: what the table was made with, and what is not in it."""

    def run(self) -> list[nodes.Node]:
        """Write one paragraph."""
        catalog = read_catalog(packaged_file())
        made_with = " and ".join(f"{name} {version}" for name, version in catalog.versions.items())
        left_out = sorted(entry.name for entry in catalog.entries if not entry.strides)
        text = (
            f"{len(catalog.entries):,} architectures of {made_with}; parameters are those of the "
            "feature network. Not found by any search, for they cannot be analysed: "
            f"{', '.join(left_out)}."
        )
        return [nodes.paragraph("", text)]


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _before_building(app: Any) -> None:
    if app.builder.name == "html":
        write_data(Path(app.outdir) / "_static" / PAGE)


def _add_to_page(app: Any, page: str, template: str, context: Any, doctree: Any) -> None:
    if page == PAGE:
        for name in SCRIPTS:
            app.add_js_file(f"{PAGE}/{name}.js", loading_method="defer")
        app.add_css_file(f"{PAGE}/{PAGE}.css")


def setup(app: Any) -> dict[str, Any]:
    """Register with Sphinx."""
    app.add_directive("catalog-notes", CatalogNotes)
    app.connect("builder-inited", _before_building)
    app.connect("html-page-context", _add_to_page)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
