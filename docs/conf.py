"""Sphinx settings; `make docs` builds."""

import sys
from importlib.util import find_spec
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import roles

import detrex

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))

project = "detrex"
copyright = "the detrex authors"
version = release = detrex.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "accessible",
    "catalog_page",
    "config_table",
    "gallery",
]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
default_role = "literal"  # docstrings put code in single backticks, too
# detectron2's docstrings, which its re-exported classes bring, name papers by a role of its own.
roles.register_generic_role("paper", nodes.emphasis)

myst_enable_extensions = ["attrs_block", "colon_fence", "deflist"]
myst_heading_anchors = 3

# The Triton programs are listed where Triton is not there, too.
autodoc_mock_imports = [] if find_spec("triton") else ["triton"]
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 88
# The navigation is copied into every page; an entry for each function took half of the build.
toc_object_entries = False
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

templates_path = ["_templates"]
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_js_files = ["search.js"]
html_theme = "furo"
html_theme_options = {"top_of_page_buttons": []}
html_copy_source = False
html_title = f"detrex {release}"
copybutton_prompt_text = r"\$ "
copybutton_prompt_is_regexp = True
