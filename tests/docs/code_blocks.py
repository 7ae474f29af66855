"""The Python that a page shows: every fenced block that opens with three backticks and ``python``.

Fragments that cannot run by themselves are written as ``{code-block} python`` and are not returned.
"""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def sections(page: str) -> dict[str, list[tuple[int, str]]]:
    """Return the blocks of a page by its second-level headings, each with its line in the page."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found: dict[str, list[tuple[int, str]]] = {}
    for block in _BLOCK.finditer(text):
        headings = re.findall(r"^## (.+)$", text[: block.start()], re.MULTILINE)
        line = text.count("\n", 0, block.start()) + 2
        found.setdefault(headings[-1] if headings else "top", []).append((line, block[1]))
    return found


def run(page: str, blocks: list[tuple[int, str]]) -> dict[str, object]:
    """Run ``blocks`` in order, as one program; a traceback points into the page."""
    namespace: dict[str, object] = {"__name__": "__main__"}
    for line, code in blocks:
        exec(compile("\n" * (line - 1) + code, str(ROOT / page), "exec"), namespace)
    return namespace
