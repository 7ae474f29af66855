"""Every module has its place on an API page, and no page names one that is gone."""

import re

from tests.docs.code_blocks import ROOT

LISTED = [
    module
    for page in (ROOT / "docs" / "api").glob("*.md")
    for module in re.findall(r"^\.\. automodule:: (\S+)$", page.read_text(), re.MULTILINE)
]
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in (ROOT / "detrex").rglob("*.py")
    if not path.name.startswith("__") and ROOT / "detrex" / "config" / "configs" not in path.parents
}


def test_api_pages__list_every_module_once():
    assert set(LISTED) == MODULES
    assert len(LISTED) == len(set(LISTED))
